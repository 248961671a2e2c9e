"""Values of google-genai's types, read with care.

Its enums take names of a later release, with a warning that is nobody's business here, and
fall over what is no text: an ``AttributeError``, which pydantic does not take for what is
wrong with a request. Optional ones are tried on null, too, before null is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["careful"]

_FREE = frozenset({"args", "response", "partMetadata", "part_metadata"})
"""Fields whose values are the caller's own: a null in them says something."""


def careful(value: Any, read: Callable[[Any], Any]) -> Any:
    """A validator around those of google-genai's models.

    Raises:
        ValueError: a value is of a kind that it cannot have.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            return read(_without_nulls(value))
        except AttributeError:
            raise ValueError("a value of an enum is no text") from None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    if not isinstance(value, Mapping):
        return value
    return {
        name: item if name in _FREE else _without_nulls(item)
        for name, item in value.items()
        if item is not None or name in _FREE
    }
