"""Text that others keep for us and send back: URL-safe, and refused where it was cut or changed on its way.

No secret, and no proof of who made it: whoever reads this can make one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib

__all__ = ["sealed", "unsealed"]

_CHECK = 6
"""Bytes by which what was cut or changed is told from what was not."""


def sealed(kind: str, body: bytes) -> str:
    """The bytes as text of letters, digits, ``-`` and ``_``.

    Args:
        kind: what the text begins with: of what kind it is, and in which form.
        body: what it holds.
    """
    return kind + _encoded(_check(kind, body) + body)


def unsealed(kind: str, text: str) -> bytes | None:
    """What a text of :func:`sealed` holds; None where it is none of that kind, or not whole."""
    packed = text.removeprefix(kind)
    try:
        raw = base64.b64decode(packed + "=" * (-len(packed) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    body = raw[_CHECK:]
    whole = text.startswith(kind) and raw[:_CHECK] == _check(kind, body) and _encoded(raw) == packed
    return body if whole else None


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _check(kind: str, body: bytes) -> bytes:
    return hashlib.sha256(kind.encode() + body).digest()[:_CHECK]
