"""The one check that a value can be stored, and the one way in which it is written.

PostgreSQL refuses U+0000, SQLite keeps it; Python writes NaN and lone surrogates that no
other JSON reader takes. What would not come back the same from every store is refused
here, before anything is written. Error messages name the place, never the value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from math import isfinite

from perdure.errors import InvalidContent
from perdure.jsonvalues import MAX_INT_BITS
from perdure.types import Json, SessionKey

__all__ = [
    "canonical",
    "check_id",
    "check_json",
    "check_key",
    "check_text",
    "dumps",
    "dumps_exactly",
    "loads",
]

MAX_DEPTH = 200
MAX_ID_BYTES = 255


def dumps(value: Json) -> str:
    """Write a checked value as JSON, keys in their order."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def dumps_exactly(value: Json) -> str:
    """Like :func:`dumps`, but no float is written with an exponent.

    PostgreSQL's ``jsonb`` keeps numbers as decimals: 1e+16 would come back as an integer.
    """
    text = dumps(value)
    return _plain(value) if "e+" in text else text


def loads(text: str) -> Json:
    """Read what :func:`dumps` wrote."""
    return json.loads(text)


def canonical(value: Json) -> str:
    """A text that two values share if, and only if, they are the same JSON: 1, 1.0, True and "1" differ."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True)


def check_json(value: Json, where: str) -> None:
    """Refuse a value that some store could not hold or give back.

    Args:
        value: what is to be stored.
        where: what it is, for the message: ``"content of event m1:user"``.

    Raises:
        InvalidContent: it holds NaN, infinity, U+0000, a lone surrogate, a key that is no
            string, a type that is no JSON, or is nested deeper than 200 levels.
    """
    if (fault := _fault(value, 0)) is not None:
        reason, path = fault
        place = where + "".join(reversed(path))
        raise InvalidContent(f"{place} {reason}; take it out or encode it before it is stored")


def check_text(text: str, where: str) -> None:
    """Refuse text that some store could not hold.

    Raises:
        InvalidContent: it holds U+0000 or a lone surrogate.
    """
    check_json(text, where)


def check_id(value: str, where: str, *, max_bytes: int = MAX_ID_BYTES) -> None:
    """Refuse a name that could not be part of a key.

    Raises:
        InvalidContent: it is no string, empty, too long, or holds what no store can.
    """
    if not isinstance(value, str):
        raise InvalidContent(f"{where} is a {type(value).__name__}, not a string; give it as text")
    if not value:
        raise InvalidContent(f"{where} is empty; give it a name")
    check_json(value, where)
    if (size := len(value.encode())) > max_bytes:
        raise InvalidContent(f"{where} is {size} bytes long and may have {max_bytes}; shorten it")


def check_key(key: SessionKey) -> None:
    """Refuse a session key with an empty or unusable part. Empty owners stand for shared state.

    Raises:
        InvalidContent: a part is empty, longer than 255 bytes, or not storable.
    """
    check_id(key.app, "the session key's app")
    check_id(key.user_id, "the session key's user_id")
    check_id(key.session_id, "the session key's session_id")


def _plain(value: Json) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{dumps(key)}:{_plain(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_plain, value)) + "]"
    if isinstance(value, float) and "e+" in (text := float.__repr__(value)):
        return f"{Decimal(text):f}.0"
    return dumps(value)


def _fault(value: Json, depth: int) -> tuple[str, list[str]] | None:
    """Why a value cannot be stored, and the path to the place, innermost step first."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        reason = _text_fault(value)
        return (reason, []) if reason else None
    if isinstance(value, int):
        return ("is an integer of more than 4,000 digits", []) if value.bit_length() > MAX_INT_BITS else None
    if isinstance(value, float):
        return None if isfinite(value) else (f"is {value}, which JSON cannot hold", [])
    if not isinstance(value, (dict, list, tuple)):
        return f"is a {type(value).__name__}, which JSON cannot hold", []
    if depth >= MAX_DEPTH:
        return f"is nested deeper than {MAX_DEPTH} levels", []
    return _mapping_fault(value, depth) if isinstance(value, dict) else _list_fault(value, depth)


def _mapping_fault(value: Mapping[Json, Json], depth: int) -> tuple[str, list[str]] | None:
    for key, item in value.items():
        if not isinstance(key, str):
            return f"has a key that is a {type(key).__name__}, not a string", []
        if reason := _text_fault(key):
            return f"has a key that {reason}", []
        if (fault := _fault(item, depth + 1)) is not None:
            fault[1].append(f".{key[:80]}")
            return fault
    return None


def _list_fault(value: list[Json] | tuple[Json, ...], depth: int) -> tuple[str, list[str]] | None:
    for index, item in enumerate(value):
        if (fault := _fault(item, depth + 1)) is not None:
            fault[1].append(f"[{index}]")
            return fault
    return None


def _text_fault(text: str) -> str | None:
    if "\0" in text:
        return "holds U+0000"
    if text.isascii():
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds a lone surrogate"
    return None
