"""What may be stored: plain JSON that every database gives back as it was.

A value that only looks storable does its harm later, when a session is read again: NaN
is not JSON, Postgres cannot hold U+0000, no database holds half a surrogate pair, and a
dict key that was an int comes back as text. :func:`json_copy` refuses them at the moment
they are handed over, and says where in the value they are. :func:`jsonable` is for what
tools return, and first turns models, dataclasses, dates and the like into JSON.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from enum import Enum

from perdure.errors import InvalidContent
from perdure.types import Json

__all__ = ["MAX_DEPTH", "MAX_INT_BITS", "json_copy", "jsonable"]

MAX_DEPTH = 200
"""Levels of lists and objects inside each other; a value that contains itself has no end of them."""
MAX_INT_BITS = 14_000
"""Python reads and writes no integer of more than 4,300 digits."""

Convert = Callable[[object, str], object]
"""Turns a value that is not JSON into one that is nearer to it, or raises InvalidContent."""


def json_copy(value: object, where: str = "value", *, under: int = 0) -> Json:
    """A deep copy of ``value`` in plain JSON types: tuples become lists, enum members their values.

    Args:
        value: what is to be stored.
        where: what to call the value in an error, such as ``state['counters']``.
        under: levels that it will stand under, which count as its own.

    Raises:
        InvalidContent: something in it that JSON or a database cannot hold, named by its path.
    """
    return _copy(value, where, under, _refuse)


def jsonable(value: object, where: str = "value") -> Json:
    """Like :func:`json_copy`, but takes what functions return, too.

    Pydantic models and dataclasses become objects, sets become lists, dates, UUIDs,
    decimals and paths become strings, int keys become strings. Bytes are refused:
    they belong into an artifact.

    Raises:
        InvalidContent: something in it that has no JSON form, named by its path.
    """
    return _copy(value, where, 0, _convert)


def _copy(value: object, where: str, depth: int, convert: Convert) -> Json:
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, int):
        return _whole(value, where)
    if isinstance(value, float):
        return _number(value, where)
    if depth >= MAX_DEPTH:
        raise InvalidContent(
            f"{where[:100]}… is nested more than {MAX_DEPTH} levels deep, or contains itself"
        )
    if isinstance(value, Mapping):
        return {
            _key(key, where, convert): _copy(item, f"{where}[{key!r}]", depth + 1, convert)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_copy(item, f"{where}[{index}]", depth + 1, convert) for index, item in enumerate(value)]
    if isinstance(value, bytes | bytearray | memoryview):
        raise InvalidContent(
            f"{where} is bytes, which JSON cannot hold; save them with context.save_artifact(name, data) "
            "and use the name"
        )
    return _copy(convert(value, where), where, depth + 1, convert)


def _refuse(value: object, where: str) -> object:
    raise InvalidContent(
        f"{where} is a {type(value).__name__}, which JSON cannot hold; turn it into dicts, lists, strings "
        "and numbers first (a pydantic model: model_dump(mode='json'))"
    )


def _convert(value: object, where: str) -> object:
    if isinstance(value, AbstractSet):
        return list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    # Imported here because `import perdure` is to stay light, and most results are plain JSON.
    from pydantic import BaseModel
    from pydantic_core import PydanticSerializationError, to_jsonable_python

    try:
        if isinstance(value, BaseModel):
            return value.model_dump(mode="json")
        return to_jsonable_python(value)
    except PydanticSerializationError as error:
        raise InvalidContent(
            f"{where} is a {type(value).__name__}, which has no JSON form ({error}); "
            "return dicts, lists, strings, numbers or a pydantic model"
        ) from error


def _key(key: object, where: str, convert: Convert) -> str:
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, int) and not isinstance(key, bool) and convert is _convert:
        return str(_whole(key, where))
    if not isinstance(key, str):
        raise InvalidContent(f"{where} has the key {key!r}; keys in JSON are strings: use {str(key)!r}")
    return _text(key, f"the key {key!r} of {where}")


def _text(text: str, where: str) -> str:
    if "\x00" in text:
        raise InvalidContent(f"{where} contains U+0000, which a database cannot hold; remove it")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidContent(
                f"{where} contains a lone surrogate ({text[error.start]!a}), which is not text; remove it"
            ) from None
    return str.__str__(text)


def _whole(number: int, where: str) -> int:
    if number.bit_length() > MAX_INT_BITS:
        raise InvalidContent(f"{where} has an integer of more than 4,000 digits; use a string")
    return int(number)


def _number(number: float, where: str) -> float:
    if not math.isfinite(number):
        raise InvalidContent(f"{where} is {number!r}, which JSON has no number for; use null or a string")
    return float(number)
