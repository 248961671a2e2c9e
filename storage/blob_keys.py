"""Where blobs lie below the root of the artifact store.

A key is ``{app}/{user}/{first two digits}/{sha256}``: no artifact name in it at all, and the
owners spelled in lower-case ASCII letters, digits, ``-``, ``_``, ``.`` and percent-escapes.
So nothing leads out of the root, and two owners have two folders also where a filesystem
holds ``Ada`` for ``ada``, or one form of ``é`` for the other. A draft, whose hash is not known
yet, is ``{app}/{user}/.drafts/{32 random digits}``, and a message on its way
``{app}/{user}/.messages/{sha256}``.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from urllib.parse import quote, unquote

from perdure.types import SessionKey

__all__ = [
    "blob_key",
    "digest_of",
    "draft_key",
    "identity",
    "is_draft",
    "is_message",
    "is_ours",
    "key_of",
    "message_key",
    "owner_of",
    "prefix_of",
]

MAX_SEGMENT = 200
"""Characters of an escaped owner; filesystems take 255."""

_OURS = re.compile(
    r"[^/]+/[^/]+/(?:([0-9a-f]{2})/(?:\1[0-9a-f]{62}|\.\1[0-9a-f]{62}\.[0-9a-f]{32})|"
    r"\.drafts/[0-9a-f]{32}|\.messages/[0-9a-f]{64})"
)
"""A key, a draft, or a message. Nothing else in the folder is ours."""

_UPPER = re.compile(r"%[0-9A-F]{2}|[A-Z]")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\.|$)")
"""Names that Windows keeps for itself, whatever comes after the dot."""


def blob_key(key: SessionKey, data: bytes) -> str:
    """Where these bytes of this user's belong, relative to the store's root."""
    return key_of(key, hashlib.sha256(data).hexdigest())


def key_of(key: SessionKey, digest: str) -> str:
    """Where the bytes of this user's belong that have this SHA-256, in hex."""
    return "/".join((prefix_of(key), digest[:2], digest))


def draft_key(key: SessionKey) -> str:
    """A place of its own for bytes of this user's whose hash is not known yet."""
    return f"{prefix_of(key)}/.drafts/{uuid.uuid4().hex}"


def message_key(key: SessionKey, data: bytes) -> str:
    """Where these bytes of a message to this user's session belong until it is taken."""
    return f"{prefix_of(key)}/.messages/{hashlib.sha256(data).hexdigest()}"


def digest_of(key: str) -> str:
    """The SHA-256 that the bytes of a key have, in hex."""
    return key.rpartition("/")[2]


def prefix_of(key: SessionKey) -> str:
    """What the keys of all new blobs of this user begin with; older ones may spell the owners otherwise."""
    return f"{_segment(key.app)}/{_segment(key.user_id)}"


def owner_of(prefix: str) -> tuple[str, str] | None:
    """The app and the user behind a prefix; None where a name was too long to be spelled out."""
    app, _, user_id = prefix.partition("/")
    return None if "~" in prefix else (unquote(app), unquote(user_id))


def identity(prefix: str) -> str:
    """One word for the app and the user behind a prefix, however it spells them."""
    return "/".join(
        segment.rpartition("~")[2]
        if "~" in segment
        else hashlib.sha256(unquote(segment).encode()).hexdigest()
        for segment in prefix.split("/")
    )


def is_ours(key: str) -> bool:
    """Whether it is a blob's key, or a draft."""
    return _OURS.fullmatch(key) is not None


def is_draft(key: str) -> bool:
    """Whether it is a blob that was never finished, or not yet."""
    return key.rpartition("/")[2].startswith(".") or "/.drafts/" in key


def is_message(key: str) -> bool:
    """Whether it is the key of a message that waits to be taken."""
    return is_ours(key) and "/.messages/" in key


def _segment(owner: str) -> str:
    """One owner as one folder name: read without regard to case, still nobody else's; never too long."""
    escaped = _UPPER.sub(lambda found: _escape(found[0]), quote(owner, safe="").replace("~", "%7E"))
    if escaped.endswith("."):  # Windows drops the last dots of a name; "." and ".." would lead elsewhere
        dots = len(escaped) - len(escaped.rstrip("."))
        escaped = escaped[:-dots] + "%2E" * dots
    if _DEVICE.match(escaped):
        escaped = _escape(escaped[0]) + escaped[1:]
    if len(escaped) <= MAX_SEGMENT:
        return escaped
    return f"{escaped[: MAX_SEGMENT - 70]}~{hashlib.sha256(owner.encode()).hexdigest()}"


def _escape(character: str) -> str:
    return character if character.startswith("%") else f"%{ord(character):02X}"
