"""State rows: which scope a key belongs to, and the reads and writes of a delta.

A session's own keys are under the lock of its row. The shared ones, ``app:`` and
``user:``, are not: two sessions may write them at once, so each is one upsert, and they
are written in the order of their names, so that no two appends wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache
from typing import Any

from sqlalchemy import bindparam, delete, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import InvalidContent, StateConflict
from perdure.state import APP_PREFIX, MISSING, USER_PREFIX, is_temp
from perdure.types import Json, SessionKey
from storage.records import owner
from storage.schema import state
from storage.sql import insert_into, insert_on
from storage.storable import canonical, check_id

__all__ = [
    "changed",
    "check_expected",
    "current",
    "is_shared",
    "load",
    "load_own",
    "load_some",
    "shared_owner",
    "storable_delta",
    "undo",
    "write_own",
    "write_shared",
    "write_shared_of_many",
]

MAX_KEY_BYTES = 1_800
"""What still fits in an index of PostgreSQL beside the longest ids."""
MANY = 1_000
"""Names asked for in one statement."""

Values = Mapping[str, Json]

_OWNED = (
    state.c.app == bindparam("app"),
    state.c.user_id == bindparam("user_id"),
    state.c.session_id == bindparam("session_id"),
)
_OWN = select(state.c.key, state.c.value).where(*_OWNED)
_SCOPES = union_all(
    _OWN,
    select(state.c.key, state.c.value).where(*_OWNED[:2], state.c.session_id == ""),
    select(state.c.key, state.c.value).where(_OWNED[0], state.c.user_id == "", state.c.session_id == ""),
)
_SOME = select(state.c.key, state.c.value).where(*_OWNED, state.c.key.in_(bindparam("names", expanding=True)))
_LOCKED = select(state.c.value).where(*_OWNED, state.c.key == bindparam("key")).with_for_update()
_REMOVE = delete(state).where(*_OWNED, state.c.key == bindparam("key"))


def is_shared(name: str) -> bool:
    """Whether a key is seen by other sessions too: such keys are not rewound."""
    return name.startswith((APP_PREFIX, USER_PREFIX))


def storable_delta(delta: Values) -> dict[str, Json]:
    """The part of a delta that is stored: all but the ``temp:`` keys.

    Raises:
        InvalidContent: a key that is empty or too long.
    """
    for name in delta:
        check_id(name, "a state key", max_bytes=MAX_KEY_BYTES)
        if name in (APP_PREFIX, USER_PREFIX):
            raise InvalidContent(f"state key {name!r} names nothing; put a name behind the prefix")
    return {name: value for name, value in delta.items() if not is_temp(name)}


async def load(conn: AsyncConnection, key: SessionKey) -> dict[str, Json]:
    """All of the state that a session sees, in the order of the names."""
    rows = await conn.execute(_SCOPES, owner(key))
    return dict(sorted((row.key, row.value) for row in rows))


async def load_own(conn: AsyncConnection, key: SessionKey) -> dict[str, Json]:
    """The session's own keys, without what it shares with others."""
    return {row.key: row.value for row in await conn.execute(_OWN, owner(key))}


async def load_some(conn: AsyncConnection, key: SessionKey, names: Collection[str]) -> dict[str, Json]:
    """What the session sees of these keys, of all scopes, in the order of the names.

    Nothing else is read, however large the state is, and without names not even this is asked.
    """
    found: dict[str, Json] = {}
    wanted = sorted(set(names))
    for start in range(0, len(wanted), MANY):
        for scope, part in _by_scope(key, wanted[start : start + MANY]):
            rows = await conn.execute(_SOME, {**scope, "names": part})
            found.update((row.key, row.value) for row in rows)
    return {name: found[name] for name in wanted if name in found}


def changed(values: Values, delta: Values) -> dict[str, Json]:
    """Values after a delta, in the order of the names; None removes a key."""
    merged = {**values, **delta}
    return {name: merged[name] for name in sorted(merged) if merged[name] is not None}


async def current(conn: AsyncConnection, key: SessionKey, names: Iterable[str]) -> dict[str, Json]:
    """The values that the session's own keys have now; keys without one are left out."""
    wanted = [name for name in names if not is_shared(name)]
    found: dict[str, Json] = {}
    for start in range(0, len(wanted), MANY):
        rows = await conn.execute(_SOME, {**owner(key), "names": wanted[start : start + MANY]})
        found.update((row.key, row.value) for row in rows)
    return found


def undo(delta: Values, before: Values) -> dict[str, Json]:
    """What takes a delta back: the prior value of each own key in it, None where there was none."""
    return {name: before.get(name) for name in delta if not is_shared(name)}


def check_expected(key: SessionKey, expected: Values, actual: Values) -> None:
    """Refuse a write that was decided on values which changed since they were read.

    Raises:
        StateConflict: a value is no longer the one expected.
    """
    for name, value in expected.items():
        now = actual.get(name, MISSING)
        same = value is now if MISSING in (value, now) else canonical(value) == canonical(now)
        if not same:
            raise StateConflict(f"state key {name!r} of {key} changed since it was read; run the call again")


async def write_own(conn: AsyncConnection, key: SessionKey, delta: Values) -> None:
    """Apply the part of a delta that belongs to the session alone. The session's row must be locked."""
    mine = {name: value for name, value in delta.items() if not is_shared(name)}
    rows = [{**owner(key), "key": name, "value": value} for name, value in mine.items() if value is not None]
    if rows:
        await conn.execute(_upsert(conn.dialect.name), rows)
    if gone := [{**owner(key), "key": name} for name, value in mine.items() if value is None]:
        await conn.execute(_REMOVE, gone)


async def write_shared(conn: AsyncConnection, key: SessionKey, delta: Values, expected: Values) -> None:
    """Apply the ``app:`` and ``user:`` keys of a delta, one by one in the order of their names.

    Raises:
        StateConflict: one of them is no longer what ``expected`` says.
    """
    for name in sorted(filter(is_shared, delta)):
        row = {**shared_owner(key, name), "key": name}
        if name in expected:
            await _check_shared(conn, key, row, expected[name], will_set=delta[name] is not None)
        await _set(conn, row, delta[name])


async def write_shared_of_many(conn: AsyncConnection, deltas: Iterable[tuple[SessionKey, Values]]) -> None:
    """Apply the ``app:`` and ``user:`` keys of several sessions' deltas, of which a later one wins.

    They are written in the order of their names, too, and only then of their owners: so
    nobody who holds one of them can wait for another one that is held here.
    """
    wanted: dict[tuple[str, str, str], tuple[dict[str, str], Json]] = {}
    for key, delta in deltas:
        for name in filter(is_shared, delta):
            row = {**shared_owner(key, name), "key": name}
            wanted[name, row["app"], row["user_id"]] = row, delta[name]
    for place in sorted(wanted):
        await _set(conn, *wanted[place])


async def _set(conn: AsyncConnection, row: dict[str, str], value: Json) -> None:
    if value is None:
        await conn.execute(_REMOVE, row)
    else:
        await conn.execute(_upsert(conn.dialect.name), {**row, "value": value})


async def _check_shared(
    conn: AsyncConnection, key: SessionKey, row: dict[str, str], expected: Json, *, will_set: bool
) -> None:
    """Compare under a lock. A row that is not there cannot be locked; so it is first made, if it may be."""
    name = row["key"]
    if expected is MISSING and will_set:
        placeholder = insert_into(conn, state).on_conflict_do_nothing()
        made = await conn.execute(placeholder, {**row, "value": False})
        actual = {} if made.rowcount else {name: None}
    else:
        found = (await conn.execute(_LOCKED, row)).all()
        actual = {name: found[0].value} if found else {}
    check_expected(key, {name: expected}, actual)


def shared_owner(key: SessionKey, name: str) -> dict[str, str]:
    """The columns that say whose an ``app:`` or ``user:`` key is."""
    user = key.user_id if name.startswith(USER_PREFIX) else ""
    return {"app": key.app, "user_id": user, "session_id": ""}


def _by_scope(key: SessionKey, names: Iterable[str]) -> list[tuple[dict[str, str], list[str]]]:
    """Names with the owner of their rows: the session's, the user's, the app's."""
    scopes: dict[tuple[str, str], list[str]] = {}
    for name in names:
        at = shared_owner(key, name) if is_shared(name) else owner(key)
        scopes.setdefault((at["user_id"], at["session_id"]), []).append(name)
    return [
        ({"app": key.app, "user_id": user_id, "session_id": session_id}, part)
        for (user_id, session_id), part in scopes.items()
    ]


@cache
def _upsert(dialect: str) -> Any:
    insert = insert_on(dialect, state)
    return insert.on_conflict_do_update(
        index_elements=["app", "user_id", "session_id", "key"], set_={"value": insert.excluded.value}
    )
