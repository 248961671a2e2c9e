"""Reads of the log, by id and by ranges of seq."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Select, bindparam, select, union_all
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.types import Event, SessionKey
from storage import projection
from storage.projection import Ranges, Span
from storage.records import event_of, owner
from storage.schema import events

__all__ = [
    "by_ids",
    "first_of_invocation",
    "has_message",
    "in_spans",
    "last_of_invocation",
    "newest_summary",
]

BEHIND_ALL = 2**63 - 1
"""A seq that no event has."""
AT_ONCE = 50
"""Spans read by one statement."""

OWNED = (
    events.c.app == bindparam("app"),
    events.c.user_id == bindparam("user_id"),
    events.c.session_id == bindparam("session_id"),
)
_BY_IDS = select(events).where(*OWNED, events.c.event_id.in_(bindparam("ids", expanding=True)))
_SUMMARY_BEFORE = (
    select(events)
    .where(*OWNED, events.c.compaction.is_not(None), events.c.seq < bindparam("before"))
    .order_by(events.c.seq.desc())
    .limit(1)
)
_OF_INVOCATION = (*OWNED, events.c.invocation_id == bindparam("invocation_id"))
_FIRST_OF_INVOCATION = (
    select(events.c.seq, events.c.rewind)
    .where(*_OF_INVOCATION, events.c.seq >= bindparam("start"))
    .order_by(events.c.seq)
    .limit(1)
)
_LAST_OF_INVOCATION = (
    select(events)
    .where(*_OF_INVOCATION, events.c.seq < bindparam("before"), events.c.compaction.is_(None))
    .order_by(events.c.seq.desc())
    .limit(bindparam("count"))
)
_MESSAGE_WITHIN = (
    select(events.c.seq)
    .where(
        *OWNED,
        events.c.seq >= bindparam("start"),
        events.c.seq < bindparam("stop"),
        events.c.event_id == events.c.invocation_id + ":user",
        events.c.invocation_id != bindparam("but"),
    )
    .limit(1)
)


async def by_ids(
    conn: AsyncConnection, key: SessionKey, ids: Sequence[str], ranges: Ranges
) -> dict[str, Event]:
    """The events of these ids, live or not; ids that are not in the log are left out."""
    rows = await conn.execute(_BY_IDS, {**owner(key), "ids": list(ids)})
    return {row.event_id: event_of(row, ranges) for row in rows}


async def in_spans(
    conn: AsyncConnection,
    key: SessionKey,
    spans: Sequence[Span],
    *,
    summaries: bool = True,
    ranges: Ranges | None = None,
) -> list[Event]:
    """The events within spans, in the order of the log.

    Args:
        conn: the transaction to read in.
        key: the session.
        spans: what to read, in order.
        summaries: False leaves compaction events out.
        ranges: the projection, where the spans are not known to be live.
    """
    found: list[Event] = []
    for start in range(0, len(spans), AT_ONCE):
        rows = await conn.execute(_spans(spans[start : start + AT_ONCE], summaries), owner(key))
        found.extend(event_of(row, ranges) for row in rows)
    return found


async def newest_summary(conn: AsyncConnection, key: SessionKey, ranges: Ranges, head: int) -> Event | None:
    """The live compaction event with the highest seq.

    Rewound ones are leapt over a dead stretch of the log at a time.
    """
    before = head + 1
    while True:
        row = (await conn.execute(_SUMMARY_BEFORE, {**owner(key), "before": before})).one_or_none()
        if row is None:
            return None
        event = event_of(row, ranges)
        if event.live:
            return event
        live_below = projection.clip(ranges, 1, event.seq)
        if not live_below:
            return None
        before = live_below[-1][1]


async def first_of_invocation(
    conn: AsyncConnection, key: SessionKey, invocation_id: str, start: int
) -> Any | None:
    """``seq`` and ``rewind`` of the first event of an invocation from the seq ``start`` on."""
    wanted = {**owner(key), "invocation_id": invocation_id, "start": start}
    return (await conn.execute(_FIRST_OF_INVOCATION, wanted)).one_or_none()


async def last_of_invocation(
    conn: AsyncConnection,
    key: SessionKey,
    invocation_id: str,
    ranges: Ranges,
    *,
    count: int = 1,
    before: int = BEHIND_ALL,
) -> list[Event]:
    """The last events of an invocation, live or not, the newest first, without summaries.

    Args:
        conn: the transaction to read in.
        key: the session.
        invocation_id: which.
        ranges: the session's projection.
        count: how many at most.
        before: only those below this seq.
    """
    wanted = {**owner(key), "invocation_id": invocation_id, "count": count, "before": before}
    return [event_of(row, ranges) for row in await conn.execute(_LAST_OF_INVOCATION, wanted)]


async def has_message(conn: AsyncConnection, key: SessionKey, spans: Sequence[Span], *, but: str) -> bool:
    """Whether spans hold the beginning of a turn, other than that of an invocation."""
    for start, stop in spans:
        wanted = {**owner(key), "start": start, "stop": stop, "but": but}
        if (await conn.execute(_MESSAGE_WITHIN, wanted)).one_or_none() is not None:
            return True
    return False


def _spans(spans: Sequence[Span], summaries: bool) -> Any:
    selects: list[Select[Any]] = []
    for start, stop in spans:
        span = select(events).where(*OWNED, events.c.seq >= start, events.c.seq < stop)
        selects.append(span if summaries else span.where(events.c.compaction.is_(None)))
    if len(selects) == 1:
        return selects[0].order_by(events.c.seq)
    # One scan of the primary key a span; OR would make SQLite walk all that lies between.
    return union_all(*selects).order_by("seq")
