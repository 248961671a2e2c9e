"""A session as it was just before an invocation: where that is in the log, and the state there.

The log is a tree: an event's parent is what was live when it was appended, and the live
part is the path from the tip to the root. Just before an ordinary event, what was live is
the current projection cut at its seq; just before a marker, whose parent is the tip it
left behind, it is the projection that the marker keeps, cut at its seq.

State is different: whatever the branch, the rows went through every delta in the order of
seq, rewinds included. So the undos of all events from the target on, live or not, take it
back; for each key the one with the lowest seq is what it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, any_, bindparam, func, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import InvocationNotFound, InvocationRewound
from perdure.types import Json, SessionKey
from storage import log, projection
from storage.projection import Ranges
from storage.records import owner
from storage.schema import events

__all__ = ["Point", "before", "own_state"]

_UNDOS = select(events.c.state_undo).where(*log.OWNED).order_by(events.c.seq.desc())
_UNDOING = events.alias("undoing")
_UNDOABLE = (
    *(_UNDOING.c[name] == bindparam(name) for name in ("app", "user_id", "session_id")),
    _UNDOING.c.seq >= bindparam("target"),
    _UNDOING.c.state_undo.is_not(None),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A place in a log: just before an event was appended."""

    seq: int
    """The event's."""
    projection: Ranges
    """What was live then: cut at ``seq``, it is what the session consisted of."""


async def before(conn: AsyncConnection, key: SessionKey, ranges: Ranges, invocation_id: str) -> Point:
    """The point just before the first live event of an invocation.

    Args:
        conn: the transaction to read in.
        key: the session.
        ranges: its projection.
        invocation_id: a message's id, or the request id of a rewind.

    Raises:
        InvocationNotFound: the log has no such invocation.
        InvocationRewound: it has, but it is not live.
    """
    start: int | None = 1
    entry = None
    while start is not None:
        found = await log.first_of_invocation(conn, key, invocation_id, start)
        if found is None:
            break
        entry = found
        if projection.contains(ranges, entry.seq):
            left = ranges if entry.rewind is None else entry.rewind["projection"]
            return Point(seq=entry.seq, projection=projection.before(left, entry.seq))
        start = projection.next_live(ranges, entry.seq)
    if entry is None:
        raise await _not_found(conn, key, ranges, invocation_id)
    raise InvocationRewound(
        f"invocation {invocation_id} of {key} was rewound already; rewind before that rewind to redo it"
    )


async def _not_found(
    conn: AsyncConnection, key: SessionKey, ranges: Ranges, invocation_id: str
) -> InvocationNotFound:
    said = (await log.by_ids(conn, key, [f"{invocation_id}:user"], ranges)).get(f"{invocation_id}:user")
    if said is None:
        return InvocationNotFound(
            f"{key} has no invocation {invocation_id}; look in its log for the right id"
        )
    return InvocationNotFound(
        f"message {invocation_id} of {key} joined invocation {said.invocation_id} and has none of its own; "
        "name that one"
    )


async def own_state(conn: AsyncConnection, key: SessionKey, seq: int) -> dict[str, Json]:
    """What the session's own keys were before the event ``seq``, of those that were changed since.

    A key that was not there is None. The database looks through all undos, for the lowest seq of
    each key, and sends those few: ten thousand changes of one key are one undo here.
    """
    query = _FIRST_UNDOS[conn.dialect.name]
    was: dict[str, Json] = {}
    for (undo,) in await conn.execute(query, {**owner(key), "target": seq}):
        was.update(undo)
    return was


def _first_of_each_key_on_postgres() -> Select[Any]:
    # Among the columns, not in FROM, the keys are not put into a table of their own for each event.
    keys = select(_UNDOING.c.seq, func.json_object_keys(_UNDOING.c.state_undo).label("key"))
    # A function that no parallel worker may run: to start some takes longer than all the work.
    each = keys.where(*_UNDOABLE, func.pg_backend_pid() > 0).subquery()
    first = select(func.min(each.c.seq)).group_by(each.c.key).scalar_subquery()
    # As an array they are looked up one by one; of IN the planner makes a join with the whole log.
    return _UNDOS.where(events.c.seq == any_(func.array(first)))


def _first_of_each_key_on_sqlite() -> Select[Any]:
    keys = func.json_each(_UNDOING.c.state_undo).table_valued("key")
    first = select(func.min(_UNDOING.c.seq)).select_from(_UNDOING.join(keys, true())).where(*_UNDOABLE)
    return _UNDOS.where(events.c.seq.in_(first.group_by(keys.c.key)))


_FIRST_UNDOS = {"postgresql": _first_of_each_key_on_postgres(), "sqlite": _first_of_each_key_on_sqlite()}
