"""The state of a session as one tool call sees it, and what the call changed.

Values are handed out as copies. Changing a list or dict that was read changes nothing
until it is set again::

    counters = context.state.get("counters", {})
    counters["visits"] = 1              # the session does not know of this yet
    context.state["counters"] = counters

That is what lets the runtime know exactly which keys a call wrote (:attr:`State.delta`)
and which it had read before (:attr:`State.reads`), and so refuse a write that is based
on a value which has changed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping
from copy import deepcopy
from typing import Final, final

from perdure.errors import InvalidContent
from perdure.jsonvalues import json_copy
from perdure.types import Json

__all__ = ["APP_PREFIX", "MISSING", "TEMP_PREFIXES", "USER_PREFIX", "Missing", "State", "is_temp"]

APP_PREFIX: Final = "app:"
"""Begins the keys that every session of the app shares."""
USER_PREFIX: Final = "user:"
"""Begins the keys that every session of the user in the app shares."""
TEMP_PREFIXES: Final = ("temp:", "temp_")
"""Begin the keys that live as long as the invocation and are never stored."""


@final
class Missing:
    """The type of :data:`MISSING`. Copies and pickles of it are the same object."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False

    def __copy__(self) -> Missing:
        return self

    def __deepcopy__(self, memo: object) -> Missing:
        return self

    def __reduce__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()
"""In :attr:`State.reads`: the key was looked for and was not there. Compare with ``is``."""


def is_temp(key: str) -> bool:
    """Whether a state key is of the kind that is never stored."""
    return key.startswith(TEMP_PREFIXES)


class State(MutableMapping[str, Json]):
    """A dict of JSON values that records what is read and written.

    Keys beginning with ``app:`` belong to the app, ``user:`` to the user, ``temp:`` (or
    ``temp_``) to the running invocation only; all others to the session. Setting a key
    to None removes it, so no key ever has the value None.

    Args:
        values: the state as it was when the call began.
        temp: the ``temp:`` keys that earlier steps of the invocation left.

    Raises:
        InvalidContent: on reading or setting, a key that is not a non-empty string, or a
            value that JSON cannot hold. Nothing is changed then.
    """

    __slots__ = ("_base", "_changes", "_listed", "_seen")

    def __init__(
        self, values: Mapping[str, Json] | None = None, *, temp: Mapping[str, Json] | None = None
    ) -> None:
        given = {**(values or {}), **(temp or {})}
        self._base = {key: value for key, value in given.items() if value is not None}
        self._changes: dict[str, Json] = {}
        self._seen: set[str] = set()
        self._listed = False

    @property
    def delta(self) -> dict[str, Json]:
        """The keys that were set, with their new values; None where one was removed. No ``temp:`` keys."""
        return {key: deepcopy(value) for key, value in self._changes.items() if not is_temp(key)}

    @property
    def temp(self) -> dict[str, Json]:
        """The ``temp:`` keys as they are now, for the next step of the invocation."""
        return {key: deepcopy(value) for key, value in self._now().items() if is_temp(key)}

    @property
    def reads(self) -> dict[str, Json | Missing]:
        """The keys that were read before this call set them: the value found, or :data:`MISSING`.

        Whoever lists the keys learns of each other key that it is not there: so after a
        listing every key of the delta counts as read.
        """
        seen = self._seen | set(self._changes) if self._listed else self._seen
        return {key: deepcopy(self._base.get(key, MISSING)) for key in sorted(seen) if not is_temp(key)}

    def __getitem__(self, key: str) -> Json:
        value = self._read(_checked(key))
        if value is None:
            raise KeyError(key)
        return deepcopy(value)

    def __setitem__(self, key: str, value: Json) -> None:
        key = _checked(key)
        self._changes[key] = json_copy(value, f"state[{key!r}]")

    def __delitem__(self, key: str) -> None:
        key = _checked(key)
        if self._read(key) is None:
            raise KeyError(key)
        self._changes[key] = None

    def setdefault(self, key: str, default: Json = None) -> Json:
        """The value of ``key``, which is set to ``default`` first if it is not there.

        What is returned is a copy, as always: ``state.setdefault("names", []).append(1)``
        changes nothing.
        """
        if key not in self and default is not None:
            self[key] = default
        return self.get(key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self._read(_checked(key)) is not None

    def __iter__(self) -> Iterator[str]:
        self._listed = True
        self._seen.update(self._base.keys() - self._changes.keys())
        return iter(list(self._now()))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        # Past the mapping: looking at a state in a debugger must not count as reading it.
        return f"State({self._now()!r})"

    def to_dict(self) -> dict[str, Json]:
        """All of it as a plain dict of copies. Counts as reading every key."""
        return {key: self[key] for key in self}

    def _now(self) -> dict[str, Json]:
        merged = {**self._base, **self._changes}
        return {key: value for key, value in merged.items() if value is not None}

    def _read(self, key: str) -> Json:
        if key in self._changes:
            return self._changes[key]
        self._seen.add(key)
        return self._base.get(key)


def _checked(key: object) -> str:
    if not isinstance(key, str):
        raise InvalidContent(f"state key {key!r} is a {type(key).__name__}; keys are non-empty strings")
    if not key or key in (APP_PREFIX, USER_PREFIX, *TEMP_PREFIXES):
        raise InvalidContent(f"state key {key!r} names nothing; keys are non-empty strings")
    checked: str = json_copy(key, f"state key {key!r}")
    return checked
