"""Which sessions retention may take: nothing happened in them since the cutoff, and nothing is to come.

``updated_at < cutoff`` is the whole rule of age. A session is never taken while a turn is
under way, which the log tells: its last live event that belongs to a turn does not end one.
So a question that waits for its answer, a call that waits for its result and a turn whose
workflow is gone all keep their session, until the turn is answered, cancelled or rewound,
or the session is ended: nothing can be under way in one that was.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import InvalidContent, InvalidOption
from perdure.types import Event, SessionKey
from storage import log, projection
from storage.projection import Ranges
from storage.records import event_of, owner
from storage.schema import Key, Moment, events, sessions, utc_of
from storage.storable import check_json
from storage.turns import is_final

__all__ = ["ExpiredPage", "is_active", "page"]

MAX_LIMIT = 1_000
_AT_ONCE = 20
_ORDER = (sessions.c.app, sessions.c.updated_at, sessions.c.user_id, sessions.c.id)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExpiredPage:
    """Sessions that may go, and where to look on; a page can be empty and not the last."""

    keys: Sequence[SessionKey]
    next_cursor: str | None


async def page(
    conn: AsyncConnection, app: str | None, before: datetime, *, limit: int, cursor: str | None
) -> ExpiredPage:
    """See :meth:`storage.retention_store.RetentionStore.expired`."""
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidOption(f"limit is {limit!r}; give a number from 1 to {MAX_LIMIT}")
    query = select(sessions).where(sessions.c.updated_at < before)
    if app is not None:
        query = query.where(sessions.c.app == app)
    if cursor is not None:
        query = query.where(tuple_(*_ORDER) > tuple_(*_read(cursor), types=[Key, Moment(), Key, Key]))
    rows = (await conn.execute(query.order_by(*_ORDER).limit(limit + 1))).all()
    keys: list[SessionKey] = []
    for row in rows[:limit]:
        key = SessionKey(app=row.app, user_id=row.user_id, session_id=row.id)
        if row.ended_at is not None or not await is_active(conn, key, row.projection, row.head):
            keys.append(key)
    return ExpiredPage(keys=keys, next_cursor=_write(rows[limit - 1]) if len(rows) > limit else None)


async def is_active(conn: AsyncConnection, key: SessionKey, ranges: Ranges, head: int) -> bool:
    """Whether the last live turn has no end. Summaries, markers and changes from outside are no turns."""
    for start, stop in reversed(projection.clip(ranges, 1, head + 1)):
        while stop > start:
            query = (
                select(events)
                .where(*log.OWNED, events.c.seq >= start, events.c.seq < stop)
                .order_by(events.c.seq.desc())
                .limit(_AT_ONCE)
            )
            found = [event_of(row, None) for row in await conn.execute(query, owner(key))]
            for event in found:
                if _is_of_turn(event):
                    return not is_final(event)
            stop = found[-1].seq if found else start
    return False


def _is_of_turn(event: Event) -> bool:
    if event.compaction is not None or event.rewind is not None:
        return False
    return event.content is not None or "final" in event.meta


def _write(last: Any) -> str:
    place = [last.app, last.updated_at.isoformat(), last.user_id, last.id]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _read(cursor: str) -> tuple[str, datetime, str, str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        app, moment, user_id, session_id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        check_json([app, user_id, session_id], "the cursor")
        return str(app), utc_of(datetime.fromisoformat(moment)), str(user_id), str(session_id)
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error, InvalidContent) as error:
        raise InvalidOption("the cursor is not one that expired() gave; start without one") from error
