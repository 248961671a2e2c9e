"""Pages of sessions, newest first, by key: page 1,000 costs what page 1 does."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime

from sqlalchemy import Row, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import InvalidOption
from storage.records import SessionPage, session_of
from storage.schema import Key, Moment, sessions

__all__ = ["MAX_LIMIT", "page"]

MAX_LIMIT = 1_000


async def page(
    conn: AsyncConnection, app: str, user_id: str | None, *, limit: int, cursor: str | None
) -> SessionPage:
    """See :meth:`storage.sessions.SessionStore.list_sessions`."""
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidOption(f"limit is {limit!r}; give a number from 1 to {MAX_LIMIT}")
    columns = sessions.c
    order = (columns.updated_at, columns.user_id, columns.id)
    query = select(sessions).where(columns.app == app)
    if user_id is not None:
        query = query.where(columns.user_id == user_id)
    if cursor is not None:
        query = query.where(tuple_(*order) < tuple_(*_read(cursor), types=[Moment(), Key, Key]))
    query = query.order_by(*(column.desc() for column in order)).limit(limit + 1)
    rows = (await conn.execute(query)).all()
    more = len(rows) > limit
    return SessionPage(
        sessions=[session_of(row) for row in rows[:limit]],
        next_cursor=_write(rows[limit - 1]) if more else None,
    )


def _write(last: Row[tuple[object, ...]]) -> str:
    columns = last._mapping
    place = [columns["updated_at"].isoformat(), columns["user_id"], columns["id"]]
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _read(cursor: str) -> tuple[datetime, str, str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        moment, user_id, session_id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        place = datetime.fromisoformat(moment), str(user_id), str(session_id)
    except (ValueError, TypeError, binascii.Error) as error:
        raise InvalidOption("the cursor is not one that list_sessions gave; start without one") from error
    if place[0].utcoffset() is None:
        raise InvalidOption("the cursor is not one that list_sessions gave; start without one")
    return place
