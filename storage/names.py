"""Which names an artifact may have. Names never become paths here, but they may on somebody's disk."""

from __future__ import annotations

from perdure.errors import InvalidContent, InvalidName
from perdure.state import USER_PREFIX
from storage.storable import check_text

__all__ = ["MAX_NAME", "check_name", "is_users"]

MAX_NAME = 512
"""In characters."""
MAX_NAME_BYTES = 1_800
"""What still fits in an index of PostgreSQL beside the longest ids."""


def is_users(name: str) -> bool:
    """Whether an artifact of that name belongs to the user, so that it is shared and not rewound."""
    return name.startswith(USER_PREFIX)


def check_name(name: str) -> None:
    """Refuse a name that is none, or that could lead out of a folder.

    ``/``, spaces and any script are fine: ``reports/März 2026.txt``.

    Raises:
        InvalidName: it is empty, absolute, too long, has a ``..`` segment, or holds U+0000.
    """
    if not isinstance(name, str):
        raise InvalidName(f"artifact name {name!r} is a {type(name).__name__}; give a string")
    try:
        check_text(name, "the name")
    except InvalidContent as error:
        raise InvalidName(f"artifact name {name[:80]!r} cannot be stored: {error}") from None
    own = name.removeprefix(USER_PREFIX)
    if not own.strip():
        raise InvalidName(f"artifact name {name!r} is empty; give it a name")
    if len(name) > MAX_NAME or len(name.encode()) > MAX_NAME_BYTES:
        raise InvalidName(
            f"artifact name {name[:80]!r}… is {len(name)} characters long; "
            f"{MAX_NAME} characters and {MAX_NAME_BYTES} bytes are the limit"
        )
    segments = own.replace("\\", "/").split("/")
    if not segments[0]:
        raise InvalidName(f"artifact name {name!r} is absolute; leave out the leading slash")
    if ".." in segments:
        raise InvalidName(f"artifact name {name!r} has a '..' in it; give the name without")
