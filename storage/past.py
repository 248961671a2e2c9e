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

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import InvocationNotFound, InvocationRewound
from perdure.types import Json, SessionKey
from storage import log, projection
from storage.projection import Ranges
from storage.records import owner
from storage.schema import events

__all__ = ["Point", "before", "own_state"]

_UNDOS = (
    select(events.c.state_undo)
    .where(*log.OWNED, events.c.seq >= bindparam("target"), events.c.state_undo.is_not(None))
    .order_by(events.c.seq.desc())
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
        raise InvocationNotFound(f"{key} has no invocation {invocation_id}; look in its log for the right id")
    raise InvocationRewound(
        f"invocation {invocation_id} of {key} was rewound already; rewind before that rewind to redo it"
    )


async def own_state(conn: AsyncConnection, key: SessionKey, seq: int) -> dict[str, Json]:
    """What the session's own keys were before the event ``seq``, of those that were changed since.

    A key that was not there is None.
    """
    was: dict[str, Json] = {}
    for (undo,) in await conn.execute(_UNDOS, {**owner(key), "target": seq}):
        was.update(undo)
    return was
