"""Checks of what an author wrote, with messages that say what it should be."""

from __future__ import annotations

import math

from perdure.errors import InvalidAgent, InvalidContent
from perdure.jsonvalues import json_copy

__all__ = ["check_int", "check_kind", "check_seconds", "check_text"]


def check_int(what: str, value: object, *, least: int) -> None:
    """Raise InvalidAgent unless ``value`` is a whole number, ``least`` or more."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidAgent(f"{what} is {value!r}; it is a whole number, {least} or more")


def check_seconds(what: str, value: object, *, optional: bool = False) -> None:
    """Raise InvalidAgent unless ``value`` is a finite number above 0, or None where that is allowed."""
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InvalidAgent(
            f"{what} is {value!r}; it is a number of seconds above 0{', or None' if optional else ''}"
        )


def check_text(what: str, value: object, *, optional: bool = False, empty: bool = False) -> None:
    """Raise InvalidAgent unless ``value`` is text that can be stored, not blank unless ``empty``."""
    if optional and value is None:
        return
    if not isinstance(value, str) or not (empty or value.strip()):
        raise InvalidAgent(f"{what} is {value!r}; it is a {'' if empty else 'non-empty '}string")
    try:
        json_copy(value, what)
    except InvalidContent as error:
        raise InvalidAgent(str(error)) from error


def check_kind(what: str, value: object, kind: type, *, optional: bool = False) -> None:
    """Raise InvalidAgent unless ``value`` is a ``kind``, or None where that is allowed."""
    if not isinstance(value, kind) and not (optional and value is None):
        raise InvalidAgent(f"{what} is {value!r}; it is a perdure.{kind.__name__}")
