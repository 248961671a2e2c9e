"""Instructions that name state keys: ``You count for {user:name?}. Counters: {counters}``.

The rules are ADK's, so that instructions can be moved:

- ``{key}`` is replaced by the value; a key that is not set is an error of the turn.
- ``{key?}`` is replaced by nothing where the key is not set.
- ``{app:key}``, ``{user:key}`` and ``{temp:key}`` reach the other scopes.
- Strings go in as they are, all else as JSON.
- Braces around anything that cannot be a key (JSON, code, ``{{key}}``) stay as they are,
  and what was put in is not looked at again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache

from perdure.errors import InvalidInstruction
from perdure.state import APP_PREFIX, USER_PREFIX
from perdure.types import Json

__all__ = ["render", "state_keys"]

_BRACES = re.compile(r"\{+[^{}]*\}+")
_PREFIXES = ("", APP_PREFIX, USER_PREFIX, "temp:")


def render(instruction: str, state: Mapping[str, Json]) -> str:
    """The instruction with the values of the state keys that it names.

    Raises:
        InvalidInstruction: it needs a key that is not set; the message says which, and how
            to make it optional.
    """
    return _BRACES.sub(lambda match: _replacement(match[0], state), instruction)


@lru_cache(maxsize=1_000)
def state_keys(instruction: str) -> tuple[str, ...]:
    """The state keys that an instruction names, each once: all that :func:`render` looks at."""
    found = (_key(match[0]) for match in _BRACES.finditer(instruction))
    return tuple(dict.fromkeys(named[0] for named in found if named is not None))


def _key(braces: str) -> tuple[str, bool] | None:
    """The key in braces, and whether it may be missing; None if there is no key in them."""
    if braces.startswith("{{") or braces.endswith("}}"):
        return None
    name = braces[1:-1].strip()
    key = name.removesuffix("?").rstrip()
    return (key, name.endswith("?")) if _is_key(key) else None


def _replacement(braces: str, state: Mapping[str, Json]) -> str:
    named = _key(braces)
    if named is None:
        return braces
    key, optional = named
    value = state.get(key)
    if value is not None:
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if optional:
        return ""
    raise InvalidInstruction(
        f"the instruction names the state key {key!r}, which is not set; set it, "
        f"or write {{{key}?}} for a key that may be missing"
    )


def _is_key(key: str) -> bool:
    prefix, colon, name = key.rpartition(":")
    return name.isidentifier() and prefix + colon in _PREFIXES
