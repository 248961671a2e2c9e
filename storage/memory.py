"""What a user's memory holds: the live words of sessions, in passages, a record a session.

A record knows the seq up to which it holds all that is live, so remembering again adds only what
came since, and done twice it is done once. A rewind takes out, in its own transaction, what is
live no more. What was remembered belongs to the user: it stays when the session is deleted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.types import Event, Passage, SessionKey
from storage import log, projection
from storage.full_text import COUNT_WORDS, FIND, LOOK_UP
from storage.records import Remembered, owner
from storage.schema import memories, memory_passages
from storage.session_row import LockedSession, must_lock, now
from storage.sql import insert_into
from storage.storable import dumps
from storage.words import owner_word, passages, words_of

__all__ = [
    "by_words",
    "forget",
    "forget_user",
    "let_go",
    "passages_of",
    "remember",
    "remember_locked",
    "take_back",
]

AT_ONCE = 500
"""Events read, and passages written, by one statement."""
MOST_WORDS = 32
"""Of a query; the rest of it is not looked for."""

_COLUMNS = memory_passages.c
_RECORD = tuple(memories.c[name] == bindparam(f"b_{name}") for name in ("app", "user_id", "session_id"))
_PLACES = tuple(_COLUMNS[name] == bindparam(f"b_{name}") for name in ("app", "user_id", "session_id"))
_OF_USER = (_COLUMNS.app == bindparam("app"), _COLUMNS.user_id == bindparam("user_id"))


async def remember(conn: AsyncConnection, key: SessionKey) -> Remembered:
    """See :meth:`storage.memory_store.MemoryStore.remember`."""
    return await remember_locked(conn, await must_lock(conn, key))


async def remember_locked(conn: AsyncConnection, row: LockedSession) -> Remembered:
    """The same, of a session that is locked."""
    mine = _named(row.key)
    # Locked, so that whoever forgets it at this moment forgets all of it, or nothing.
    found = (
        await conn.execute(select(memories.c.upto).where(*_RECORD).with_for_update(), mine)
    ).one_or_none()
    known = found.upto if found is not None else None
    if found is not None and known is None:
        await conn.execute(delete(memory_passages).where(*_PLACES), mine)  # of a session of this name before
    added = 0
    for start in range((known or 0) + 1, row.head + 1, AT_ONCE):
        spans = projection.clip(row.projection, start, min(start + AT_ONCE, row.head + 1))
        rows = [
            values
            for event in await log.in_spans(conn, row.key, spans, summaries=False)
            for values in _rows_of(row.key, event)
        ]
        if rows:
            await conn.execute(memory_passages.insert(), rows)
        added += len(rows)
    record = {"upto": row.head, "remembered_at": now()}
    made = insert_into(conn, memories).values(**owner(row.key), **record)
    if known != row.head:
        await conn.execute(made.on_conflict_do_update(index_elements=list(owner(row.key)), set_=record))
    total = select(func.count()).select_from(memory_passages).where(*_PLACES)
    return Remembered(upto=row.head, added=added, passages=(await conn.execute(total, mine)).scalar_one())


async def take_back(conn: AsyncConnection, key: SessionKey, seq: int) -> None:
    """Forget what a locked session said from ``seq`` on: it is live no more, or was not when it was said."""
    kept = update(memories).where(*_RECORD, memories.c.upto >= seq).values(upto=seq - 1)
    if (await conn.execute(kept, _named(key))).rowcount:
        await conn.execute(delete(memory_passages).where(*_PLACES, _COLUMNS.seq >= seq), _named(key))


async def let_go(conn: AsyncConnection, key: SessionKey) -> None:
    """The session is deleted: what is remembered of it stays, and none of that name goes on with it."""
    await conn.execute(update(memories).where(*_RECORD).values(upto=None), _named(key))


async def forget(conn: AsyncConnection, key: SessionKey, seq: int | None) -> bool:
    """See :meth:`storage.memory_store.MemoryStore.forget`."""
    if seq is not None:
        said = delete(memory_passages).where(*_PLACES, _COLUMNS.seq == seq)
        return bool((await conn.execute(said, _named(key))).rowcount)
    gone = await conn.execute(delete(memories).where(*_RECORD), _named(key))
    await conn.execute(delete(memory_passages).where(*_PLACES), _named(key))
    return bool(gone.rowcount)


async def forget_user(conn: AsyncConnection, app: str, user_id: str) -> int:
    """See :meth:`storage.memory_store.MemoryStore.forget_user`."""
    whose = {"app": app, "user_id": user_id}
    records = (memories.c.app == bindparam("app"), memories.c.user_id == bindparam("user_id"))
    gone = await conn.execute(delete(memories).where(*records), whose)
    await conn.execute(delete(memory_passages).where(*_OF_USER), whose)
    return int(gone.rowcount)


async def by_words(conn: AsyncConnection, app: str, user_id: str, query: str, limit: int) -> list[int]:
    """The ids of the passages in which the words of a query weigh most, best first."""
    words = words_of(query, asked=True)[:MOST_WORDS]
    if not words:
        return []
    dialect = conn.dialect.name
    mine = owner_word(app, user_id)
    asked = [LOOK_UP[dialect].format(owner=mine, word=word) for word in words]
    whose = {"app": app, "user_id": user_id}
    counts = await conn.execute(
        COUNT_WORDS[dialect], {**whose, **_weighed(dialect, dict.fromkeys(asked, 1.0))}
    )
    in_passages = {row[0]: row[1] for row in counts}
    if not in_passages:
        return []
    total = select(func.count()).select_from(memory_passages).where(*_OF_USER)
    many: int = (await conn.execute(total, whose)).scalar_one()
    weights = {word: math.log(1 + many / count) for word, count in in_passages.items()}
    found = await conn.execute(FIND[dialect], {**whose, **_weighed(dialect, weights), "limit": limit})
    return [row.id for row in found]


async def passages_of(
    conn: AsyncConnection, app: str, user_id: str, ids: Sequence[int]
) -> dict[int, Passage]:
    """The passages of these ids, of this user."""
    some = select(memory_passages).where(*_OF_USER, _COLUMNS.id.in_(bindparam("ids", expanding=True)))
    rows = await conn.execute(some, {"app": app, "user_id": user_id, "ids": list(ids)})
    return {row.id: _passage_of(row) for row in rows}


def _weighed(dialect: str, weights: Mapping[str, float]) -> dict[str, Any]:
    if dialect == "postgresql":
        return {"words": list(weights), "weights": list(weights.values())}
    return {"words": dumps([list(pair) for pair in weights.items()])}


def _rows_of(key: SessionKey, event: Event) -> list[dict[str, Any]]:
    """What is remembered of an event: what a user or an agent said, and nothing that the runtime noted."""
    if event.author == "perdure" or event.content is None:
        return []
    mine = owner_word(key.app, key.user_id)
    return [
        {
            **owner(key),
            "seq": event.seq,
            "part": part,
            "event_id": event.id,
            "invocation_id": event.invocation_id,
            "author": event.author,
            "said_at": event.created_at,
            "text": passage,
            "words": " ".join([mine, *words_of(passage)]),
        }
        for part, passage in enumerate(passages(_said(event)))
    ]


def _said(event: Event) -> str:
    """The words of an event; what others put into the log may hold anything."""
    parts = (event.content or {}).get("parts")
    texts = [
        part["text"]
        for part in (parts if isinstance(parts, list) else ())
        if isinstance(part, dict) and isinstance(part.get("text"), str) and not part.get("thought")
    ]
    return "".join(texts)


def _passage_of(row: Row[Any]) -> Passage:
    return Passage(
        session_id=row.session_id,
        seq=row.seq,
        event_id=row.event_id,
        invocation_id=row.invocation_id,
        author=row.author,
        said_at=row.said_at,
        text=row.text,
    )


def _named(key: SessionKey) -> dict[str, str]:
    return {f"b_{name}": value for name, value in owner(key).items()}
