"""The ordinary append on SQLite, without SQLAlchemy's care for each statement.

An append waits for the disk once, and that takes a quarter of a millisecond; six statements
that SQLAlchemy builds and whose rows it reads take twice as long again. Here they are written
out. It is the counterpart of :mod:`storage.append_function`, with the same split: what is
plainly right is written, and in any other case nothing is, so that :mod:`storage.append`,
in the same transaction, finds out what is the matter. It is simpler in one thing: the writer
has the database to itself, so nothing that was looked at can change before it is written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.state import MISSING
from perdure.types import Event, Json, SessionKey
from storage import state
from storage.append_function import is_ordinary
from storage.records import event_values, stored_event
from storage.schema import moment_text
from storage.session_row import now
from storage.spending import spent_on
from storage.storable import dumps, loads

__all__ = ["append_plainly", "is_plain"]

_SESSION = "app = ? AND user_id = ? AND session_id = ?"
_FIND = (
    "SELECT s.epoch, s.head, s.ended_at, k.key, k.value FROM sessions s LEFT JOIN state k "
    "ON k.app = s.app AND k.user_id = s.user_id AND k.session_id = s.id AND k.key IN ({keys}) "
    "WHERE s.app = ? AND s.user_id = ? AND s.id = ?"
)
_BEGUN = f"SELECT 1 FROM events WHERE {_SESSION} AND invocation_id = ? AND compaction IS NULL LIMIT 1"
_JSON = ("content", "state_delta", "state_undo", "usage", "error", "meta")
_PLAIN = ("app", "user_id", "session_id", "seq", "event_id", "invocation_id", "author", "branch")
_INSERT = (
    f"INSERT INTO events ({', '.join((*_PLAIN, *_JSON, 'created_at'))}) "
    f"VALUES ({', '.join('?' * (len(_PLAIN) + len(_JSON) + 1))}) "
    "ON CONFLICT (app, user_id, session_id, event_id) DO NOTHING"
)
_SET = (
    "INSERT INTO state (app, user_id, session_id, key, value) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (app, user_id, session_id, key) DO UPDATE SET value = excluded.value"
)
_REMOVE = f"DELETE FROM state WHERE {_SESSION} AND key = ?"
_MOVE = (
    "UPDATE sessions SET version = version + 1, epoch = ?, head = ?, updated_at = ?, ended_at = NULL, "
    "tokens = tokens + ?, nano_usd = nano_usd + ?, model_calls = model_calls + ? "
    "WHERE app = ? AND user_id = ? AND id = ?"
)
_MOST_KEYS = 100
"""Older SQLite takes 999 parameters. A larger delta goes the ordinary way."""


def is_plain(event: Event) -> bool:
    """Whether such an event can be appended so: it changes the log and few keys of the session's own."""
    few = len(event.state_delta) <= _MOST_KEYS
    return is_ordinary(event) and few and not any(map(state.is_shared, event.state_delta))


async def append_plainly(
    conn: AsyncConnection,
    key: SessionKey,
    event: Event,
    *,
    epoch: int | None,
    expect: Mapping[str, Json],
    begins: bool = False,
    reopen: bool = False,
) -> tuple[Event, int] | None:
    """Append a prepared event that is plain, in a transaction that may write.

    The arguments and the answer are those of :func:`storage.append_function.append_at_once`.
    """
    owner = (key.app, key.user_id, key.session_id)
    names = tuple(event.state_delta)
    # Of an empty list SQLite makes no condition at all: it would walk through the state of all sessions.
    find = _FIND.format(keys=", ".join("?" * len(names)) or "NULL")
    found = await conn.exec_driver_sql(find, (*names, *owner))
    rows: Sequence[Any] = found.all()
    row = rows[0] if rows else None
    if row is None or (epoch is not None and epoch != row[0]) or (row[2] is not None and not reopen):
        return None
    if begins and (await conn.exec_driver_sql(_BEGUN, (*owner, event.invocation_id))).first():
        return None
    before: dict[str, str] = {name: value for *_, name, value in rows if name is not None}
    if not _as_expected(event.state_delta, before, expect):
        return None
    at_epoch = row[0] + 1 if begins and epoch is None else row[0]
    time = now()
    undo = {name: loads(before[name]) if name in before else None for name in event.state_delta}
    stored = replace(stored_event(event, seq=row[1] + 1, created_at=time), state_undo=undo)
    made = await conn.exec_driver_sql(_INSERT, _row(key, stored))
    if not made.rowcount:
        return None
    for name, value in event.state_delta.items():
        if value is None:
            await conn.exec_driver_sql(_REMOVE, (*owner, name))
        else:
            await conn.exec_driver_sql(_SET, (*owner, name, dumps(value)))
    spent = spent_on(stored)
    sums = (spent.tokens, spent.nano_usd, spent.model_calls)
    await conn.exec_driver_sql(_MOVE, (at_epoch, stored.seq, moment_text(time), *sums, *owner))
    return stored, at_epoch


def _as_expected(delta: Mapping[str, Json], before: Mapping[str, str], expect: Mapping[str, Json]) -> bool:
    """Whether each key has the very text that was expected; two texts of one value are for others to tell."""
    return all(
        name not in delta or before.get(name) == (None if value is MISSING else dumps(value))
        for name, value in expect.items()
    )


def _row(key: SessionKey, event: Event) -> tuple[Any, ...]:
    values = event_values(key, event)
    texts = (values[name] if values[name] is None else dumps(values[name]) for name in _JSON)
    assert event.created_at is not None, "a stored event has its time"
    return (*(values[name] for name in _PLAIN), *texts, moment_text(event.created_at))
