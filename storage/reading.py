"""The reads of a session, each in one snapshot."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.types import Event, Session, SessionKey
from storage import log, past, projection, state
from storage.records import Context, session_of
from storage.session_row import find, must_find

__all__ = ["context", "event", "session", "snapshot", "whole_log"]

FEW = 50
"""New events up to which it is not worth a statement to ask whether a summary made them short."""


async def session(
    conn: AsyncConnection, key: SessionKey, *, after: int, limit: int | None, before: str | None = None
) -> Session:
    """See :meth:`storage.sessions.SessionStore.get`."""
    row = await must_find(conn, key)
    values = await state.load(conn, key)
    ranges, head = row.projection, row.head
    if before is not None:
        point = await past.before(conn, key, ranges, before)
        ranges, head = point.projection, point.seq - 1
        values = state.changed(values, await past.own_state(conn, key, point.seq))
    spans = projection.clip(ranges, after + 1, head + 1)
    if limit is not None:
        spans = projection.last(spans, limit)
    found = session_of(row, values, await log.in_spans(conn, key, spans))
    return found if before is None else replace(found, projection=ranges, head=head)


async def snapshot(
    conn: AsyncConnection, key: SessionKey, event_ids: Sequence[str]
) -> tuple[Session, dict[str, Event]]:
    """See :meth:`storage.sessions.SessionStore.snapshot`."""
    row = await must_find(conn, key)
    found = await log.by_ids(conn, key, event_ids, row.projection)
    return session_of(row, await state.load(conn, key)), found


async def whole_log(conn: AsyncConnection, key: SessionKey, *, after: int, limit: int | None) -> list[Event]:
    """See :meth:`storage.sessions.SessionStore.log`."""
    row = await must_find(conn, key)
    stop = row.head + 1 if limit is None else min(row.head, after + limit) + 1
    spans = [(after + 1, stop)] if after + 1 < stop else []
    return await log.in_spans(conn, key, spans, ranges=row.projection)


async def event(conn: AsyncConnection, key: SessionKey, event_id: str) -> Event | None:
    """See :meth:`storage.sessions.SessionStore.event`."""
    row = await find(conn, key)
    return None if row is None else (await log.by_ids(conn, key, [event_id], row.projection)).get(event_id)


async def context(
    conn: AsyncConnection, key: SessionKey, *, state_keys: Collection[str] | None, known: Context | None
) -> Context:
    """See :meth:`storage.sessions.SessionStore.context`. It reads one summary and the tail, or less."""
    row = await must_find(conn, key)
    if state_keys is None:
        values = await state.load(conn, key)
    else:
        values = await state.load_some(conn, key, state_keys)
    now = session_of(row, values)
    more = await _more(conn, now, known) if known is not None and _goes_on(now, known.session) else None
    return more or await _whole(conn, now)


def _goes_on(now: Session, then: Session) -> bool:
    """Whether what was live then is live now, and all else that is came after it.

    The epoch moves with every rewind, and a session that was deleted begins above it when it is
    made again; so within an epoch the log has only grown. The rest costs nothing to look at.
    """
    return (
        now.key == then.key
        and now.epoch == then.epoch
        and now.head >= then.head
        and list(now.projection) == list(then.projection)
    )


async def _more(conn: AsyncConnection, now: Session, known: Context) -> Context | None:
    """What is known and what came after it; None if that is not enough, or not worth it."""
    then = known.session.head
    if now.head == then:
        return replace(known, session=now)
    if now.head - then > FEW:
        newest = await log.newest_summary(conn, now.key, now.projection, now.head)
        if newest is not None and newest.seq > then:
            return None
    new = await log.in_spans(conn, now.key, projection.clip(now.projection, then + 1, now.head + 1))
    summary = next((event for event in reversed(new) if event.compaction is not None), known.summary)
    if _tail(summary) < _tail(known.summary):
        return None
    events = [*known.events, *(event for event in new if event.compaction is None)]
    if summary is not known.summary:
        events = [event for event in events if event.seq >= _tail(summary)]
    return Context(session=now, summary=summary, events=events)


async def _whole(conn: AsyncConnection, now: Session) -> Context:
    summary = await log.newest_summary(conn, now.key, now.projection, now.head)
    spans = projection.clip(now.projection, _tail(summary), now.head + 1)
    return Context(
        session=now, summary=summary, events=await log.in_spans(conn, now.key, spans, summaries=False)
    )


def _tail(summary: Event | None) -> int:
    """The seq from which on a prompt is raw."""
    return summary.compaction["tail"] if summary is not None and summary.compaction is not None else 1
