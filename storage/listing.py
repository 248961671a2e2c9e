"""Pages of sessions, newest first, by key: page 1,000 costs what page 1 does.

What is asked of metadata is decided here, by one rule for every store; the database only
narrows it down. PostgreSQL has an index for that (``@>``, which takes an object for equal
to a larger one). SQLite has none for keys that nobody knows beforehand: it walks the index
of the app's sessions, newest first, looking at each one's metadata until the page is full.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.types import TypeEngine

from perdure.agenttool import is_child_of
from perdure.errors import InvalidContent, InvalidOption
from perdure.types import Json, Session, SessionKey
from storage.records import SessionPage, session_of
from storage.schema import Key, Moment, sessions, utc_of
from storage.storable import check_json

__all__ = ["MAX_LIMIT", "children", "page"]

MAX_LIMIT = 1_000
EXACT = 2**53
"""Integers up to here are the same number in every reader."""
_AFTER_TILDE = "\x7f"
"""The character after the one that stands between a session's id and what it has called."""

Place = tuple[datetime, str, str]
"""Of a session in the order of pages: when it was last changed, its user, its id."""

_ORDER = (sessions.c.updated_at, sessions.c.user_id, sessions.c.id)
_TYPES: list[TypeEngine[Any]] = [Moment(), Key, Key]


async def page(
    conn: AsyncConnection,
    app: str,
    user_id: str | None,
    *,
    limit: int,
    cursor: str | None,
    metadata: Mapping[str, Json] | None = None,
) -> SessionPage:
    """See :meth:`storage.sessions.SessionStore.list_sessions` and ``find_sessions``."""
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidOption(f"limit is {limit!r}; give a number from 1 to {MAX_LIMIT}")
    query = _newest_first(conn, app, user_id, metadata or {}).limit(limit + 1)
    place = None if cursor is None else _read(cursor)
    found: list[Row[Any]] = []
    while len(found) <= limit:
        after = query if place is None else query.where(tuple_(*_ORDER) < tuple_(*place, types=_TYPES))
        rows = (await conn.execute(after)).all()
        found += [row for row in rows if _has(row._mapping["metadata"], metadata or {})]
        if len(rows) <= limit:
            break
        place = _place(rows[-1])
    more = len(found) > limit
    return SessionPage(
        sessions=[session_of(row) for row in found[:limit]],
        next_cursor=_write(_place(found[limit - 1])) if more else None,
    )


async def children(conn: AsyncConnection, key: SessionKey) -> list[Session]:
    """See :meth:`storage.sessions.SessionStore.children`."""
    named = (sessions.c.app == key.app, sessions.c.user_id == key.user_id)
    # A range of the key, in the order of its bytes. LIKE is none where its pattern comes as a parameter.
    begins = (sessions.c.id >= f"{key.session_id}~", sessions.c.id < f"{key.session_id}{_AFTER_TILDE}")
    rows = await conn.execute(select(sessions).where(*named, *begins).order_by(sessions.c.id))
    return [session_of(row) for row in rows if is_child_of(row._mapping["id"], key.session_id)]


def _newest_first(
    conn: AsyncConnection, app: str, user_id: str | None, metadata: Mapping[str, Json]
) -> Select[Any]:
    query = select(sessions).where(sessions.c.app == app)
    if user_id is not None:
        query = query.where(sessions.c.user_id == user_id)
    if metadata and conn.dialect.name == "postgresql":
        query = query.where(sessions.c.metadata.op("@>")(literal(dict(metadata), sessions.c.metadata.type)))
    elif metadata:
        query = query.where(*(_may_have(name, value) for name, value in metadata.items()))
    return query.order_by(*(column.desc() for column in _ORDER))


def _may_have(name: str, value: Json) -> ColumnElement[bool]:
    """What SQLite can tell of a key at little cost: it lets too many through, never too few."""
    entry = func.json_each(sessions.c.metadata).table_valued("key", "type", "atom")
    told: list[ColumnElement[bool]] = [entry.c.type.in_(_kinds(value))]
    if name.isprintable() and not set(name) & set('"\\'):  # older SQLite gives escaped keys as they stand
        told.append(entry.c.key == name)
    if isinstance(value, str) or (isinstance(value, int) and abs(value) <= EXACT):
        told.append(entry.c.atom == literal(value))
    return select(1).select_from(entry).where(*told).exists()


def _kinds(value: Json) -> list[str]:
    """What SQLite calls values that may be equal to this one."""
    if value is None or isinstance(value, bool):
        return [{None: "null", True: "true", False: "false"}[value]]
    if isinstance(value, (int, float)):
        return ["integer", "real"]
    return ["text" if isinstance(value, str) else "object" if isinstance(value, dict) else "array"]


def _has(actual: Mapping[str, Json], wanted: Mapping[str, Json]) -> bool:
    return all(name in actual and _equal(actual[name], value) for name, value in wanted.items())


def _equal(one: Json, other: Json) -> bool:
    """Whether two values are the same JSON; numbers count by their value, so 1 is 1.0, but not true."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and _has(one, other)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _place(row: Row[Any]) -> Place:
    columns = row._mapping
    return columns["updated_at"], columns["user_id"], columns["id"]


def _write(place: Place) -> str:
    told = json.dumps([place[0].isoformat(), *place[1:]])
    return base64.urlsafe_b64encode(told.encode()).decode().rstrip("=")


def _read(cursor: str) -> Place:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        moment, user_id, session_id = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        check_json([user_id, session_id], "the cursor")
        return utc_of(datetime.fromisoformat(moment)), str(user_id), str(session_id)
    except (ValueError, TypeError, OverflowError, RecursionError, binascii.Error, InvalidContent) as error:
        raise InvalidOption("the cursor is not one that a page gave; start without one") from error
