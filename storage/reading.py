"""The reads of a session, each in one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.types import Event, Session, SessionKey
from storage import log, past, projection, state
from storage.records import Context, session_of
from storage.session_row import find, must_find

__all__ = ["context", "event", "session", "snapshot", "whole_log"]


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


async def context(conn: AsyncConnection, key: SessionKey) -> Context:
    """See :meth:`storage.sessions.SessionStore.context`. It reads one summary and the tail."""
    row = await must_find(conn, key)
    values = await state.load(conn, key)
    summary = await log.newest_summary(conn, key, row.projection, row.head)
    tail = summary.compaction["tail"] if summary is not None and summary.compaction is not None else 1
    spans = projection.clip(row.projection, tail, row.head + 1)
    events = await log.in_spans(conn, key, spans, summaries=False)
    return Context(session=session_of(row, values), summary=summary, events=events)
