"""Thought signatures as Gemini 3 has them: the first call of each step carries one, and must carry it back.

A signature seals the call it came with. So the stand-in needs to remember nothing to tell
whether what it gets back is what it gave, also after a restart.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence

from perdure.testing.request import text_in
from perdure.types import JsonObject

__all__ = ["missing_signature", "seal", "signed"]

# Encodes to "++++////…" and, at this length, to padding: whoever mixes up alphabets is found out.
_MARK = b"\xfb\xef\xbe\xff\xff\xff"


def signed(parts: Sequence[JsonObject]) -> list[JsonObject]:
    """The parts of an answer with a signature on the first call, unless one of the calls has one."""
    calls = [part for part in parts if part.get("functionCall")]
    if not calls or any("thoughtSignature" in part for part in calls):
        return list(parts)
    return [{**part, "thoughtSignature": seal(part)} if part is calls[0] else part for part in parts]


def seal(part: JsonObject) -> str:
    """The signature of a part, in standard base64."""
    said = json.dumps({key: part.get(key) for key in ("functionCall", "text")}, sort_keys=True)
    return base64.b64encode(_MARK + hashlib.sha256(said.encode()).digest()).decode()


def missing_signature(contents: Sequence[JsonObject], issued: frozenset[bytes] | set[bytes]) -> str | None:
    """What Gemini 3 would say about the signatures of the turn under way, or None if all is well.

    Args:
        contents: the conversation.
        issued: the bytes of signatures that a script gave out.
    """
    for position, content in enumerate(contents):
        if position < _turn_start(contents) or content.get("role") != "model":
            continue
        first = next((part for part in content.get("parts") or () if part.get("functionCall")), None)
        if first is None:
            continue
        given = first.get("thoughtSignature", first.get("thought_signature"))
        if not given:
            return (
                "Function call is missing a thought_signature in functionCall parts. This is required for "
                "tools to work correctly, and missing thought_signature may lead to degraded model "
                "performance. Additional data, function call "
                f"`default_api:{first['functionCall'].get('name')}` , position {position + 1}. Please refer "
                "to https://ai.google.dev/gemini-api/docs/thought-signatures for more details."
            )
        data = decode(str(given))
        if data is None or (data != decode(seal(first)) and data not in issued):
            return "Corrupted thought signature."
    return None


def decode(text: str) -> bytes | None:
    """Base64 of either alphabet, with or without padding, or None if it is neither."""
    standard = text.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except binascii.Error:
        return None


def _turn_start(contents: Sequence[JsonObject]) -> int:
    """The position of the last content that a user wrote: Gemini looks at no turn before."""
    for position in range(len(contents) - 1, -1, -1):
        if contents[position].get("role", "user") == "user" and text_in(contents[position]):
            return position
    return 0
