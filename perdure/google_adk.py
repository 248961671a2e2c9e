"""Sessions, artifacts and memory of google-adk agents in Perdure's store: ``docs/adk.md``.

With ``perdure.__main__``, the other module of this package that reaches up. Its process is
somebody else's application, so the rooms it needs come last on the path, and where the
application has a module of the same name it says so, instead of importing that.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

_package = Path(__file__).resolve().parent
_rooms = _package / "_runtime" if (_package / "_runtime").is_dir() else _package.parent
if str(_rooms) not in sys.path:
    sys.path.append(str(_rooms))
for _room in ("integrations", "storage"):
    _found = find_spec(_room)
    if _found is None or _found.origin is None or _rooms not in Path(_found.origin).resolve().parents:
        raise ImportError(
            f"perdure.google_adk needs its own module {_room!r}, but yours comes first: "
            f"{_found.origin if _found else None}; put it into a package of another name"
        )

from integrations.google_adk import (  # noqa: E402  path first
    PerdureArtifactService,
    PerdureMemoryService,
    PerdureSessionService,
)

__all__ = ["PerdureArtifactService", "PerdureMemoryService", "PerdureSessionService"]
