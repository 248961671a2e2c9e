"""What the prompt builder needs, in one snapshot: one summary and the tail, not the session."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.types import SessionKey
from storage import log, projection, state
from storage.records import Context, session_of
from storage.session_row import must_find

__all__ = ["context"]


async def context(conn: AsyncConnection, key: SessionKey) -> Context:
    """See :meth:`storage.sessions.SessionStore.context`."""
    row = await must_find(conn, key)
    values = await state.load(conn, key)
    summary = await log.newest_summary(conn, key, row.projection, row.head)
    tail = 1
    if summary is not None and summary.compaction is not None:
        tail = summary.compaction.get("tail", summary.compaction["end"] + 1)
    spans = projection.clip(row.projection, tail, row.head + 1)
    events = await log.in_spans(conn, key, spans, summaries=False)
    return Context(session=session_of(row, values), summary=summary, events=events)
