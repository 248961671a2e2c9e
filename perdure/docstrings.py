"""What a function's docstring says, for the model to read."""

from __future__ import annotations

import inspect
import re
from typing import Literal

__all__ = ["parse"]

_SPHINX = re.compile(r"^[ \t]*:(param|parameter|arg|argument|key|keyword|returns?|raises?)\b.*:", re.M)
_NUMPY = re.compile(r"^[ \t]*(Other )?(Parameters|Returns|Raises)[ \t]*\n[ \t]*-{3,}[ \t]*$", re.M)


def parse(docstring: str | None) -> tuple[str, dict[str, str]]:
    """Split a docstring in Google, NumPy or Sphinx style.

    Returns:
        The text before the first section, and the description of each parameter by name.
    """
    if not docstring or not docstring.strip():
        return "", {}
    # Imported here: it takes longer than all of `import perdure`, and only tools need it.
    from griffe import Docstring, DocstringSectionParameters, DocstringSectionText

    text = inspect.cleandoc(docstring)
    sections = Docstring(text).parse(_style(text), warnings=False)
    leading: list[str] = []
    parameters: dict[str, str] = {}
    in_lead = True
    for section in sections:
        in_lead = in_lead and isinstance(section, DocstringSectionText)
        if in_lead:
            leading.append(str(section.value))
        if isinstance(section, DocstringSectionParameters):
            parameters |= {item.name: " ".join(item.description.split()) for item in section.value}
    return "\n\n".join(leading).strip(), parameters


def _style(text: str) -> Literal["google", "numpy", "sphinx"]:
    if _SPHINX.search(text):
        return "sphinx"
    return "numpy" if _NUMPY.search(text) else "google"
