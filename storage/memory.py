"""What a user's memory holds: the live words of sessions, in passages, a record a session.

:mod:`storage.remembering` puts them in. A rewind takes out, in its own transaction, what is live no
more. What was remembered belongs to the user: it stays when the session is deleted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, and_, bindparam, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.types import Passage, SessionKey
from storage.full_text import COUNT_WORDS, FIND, LOOK_UP
from storage.records import Whose, owner
from storage.schema import events, memories, memory_passages
from storage.session_row import LockedSession
from storage.storable import dumps
from storage.words import owner_word, words_of

__all__ = [
    "by_words",
    "forget",
    "forget_user",
    "let_go",
    "passages_of",
    "take_back",
    "take_out_the_dead",
]

AT_ONCE = 500
"""Sessions, or passages, that one statement names."""
MOST_WORDS = 32
"""Of a query; the rest of it is not looked for."""

_COLUMNS = memory_passages.c
_OWNER = ("app", "user_id", "session_id")
RECORD = tuple(memories.c[name] == bindparam(f"b_{name}") for name in _OWNER)
PLACES = tuple(_COLUMNS[name] == bindparam(f"b_{name}") for name in _OWNER)
_OF_USER = (_COLUMNS.app == bindparam("app"), _COLUMNS.user_id == bindparam("user_id"))
_OF_SESSIONS = _COLUMNS.session_id.in_(bindparam("gone", expanding=True))
_ORPHANS = (
    select(_COLUMNS.id, events.c.seq)
    .select_from(memories)
    .join(memory_passages, and_(*(_COLUMNS[name] == memories.c[name] for name in _OWNER)))
    .join(
        events,
        and_(
            *(events.c[name] == _COLUMNS[name] for name in _OWNER),
            events.c.event_id == _COLUMNS.event_id,
            events.c.created_at == _COLUMNS.said_at,
        ),
    )
    .where(*RECORD, memories.c.upto.is_(None))
)


async def take_back(conn: AsyncConnection, row: LockedSession, seq: int) -> None:
    """Forget what a locked session said from ``seq`` on: it is live no more, or was not when it was said."""
    kept = update(memories).where(*RECORD, memories.c.upto >= seq).values(upto=seq - 1)
    if (await conn.execute(kept, named(row.key))).rowcount:
        await conn.execute(delete(memory_passages).where(*PLACES, _COLUMNS.seq >= seq), named(row.key))
    else:
        await take_out_the_dead(conn, row)


async def take_out_the_dead(conn: AsyncConnection, row: LockedSession) -> None:
    """Forget what a locked session has in its log, but not live, and one of its name has remembered.

    That one was deleted; it was the same where an import has brought it back. Their seqs may differ,
    but an event that was copied has its id and its time.
    """
    found = (await conn.execute(_ORPHANS, named(row.key))).all()
    dead = [each.id for each in found if not row.is_live(each.seq)]
    for start in range(0, len(dead), AT_ONCE):
        gone = delete(memory_passages).where(_COLUMNS.id.in_(dead[start : start + AT_ONCE]))
        await conn.execute(gone)


async def let_go(conn: AsyncConnection, key: SessionKey) -> None:
    """The session is deleted: what is remembered of it stays, and none of that name goes on with it."""
    await conn.execute(update(memories).where(*RECORD).values(upto=None), named(key))


async def forget(conn: AsyncConnection, key: SessionKey, seq: int | None) -> bool:
    """See :meth:`storage.memory_store.MemoryStore.forget`."""
    if seq is not None:
        said = delete(memory_passages).where(*PLACES, _COLUMNS.seq == seq)
        return bool((await conn.execute(said, named(key))).rowcount)
    gone = await conn.execute(delete(memories).where(*RECORD), named(key))
    if gone.rowcount:  # else there is nothing, or what somebody remembers at this moment
        await conn.execute(delete(memory_passages).where(*PLACES), named(key))
    return bool(gone.rowcount)


async def forget_user(conn: AsyncConnection, app: str, user_id: str) -> int:
    """See :meth:`storage.memory_store.MemoryStore.forget_user`."""
    whose = {"app": app, "user_id": user_id}
    records = (memories.c.app == bindparam("app"), memories.c.user_id == bindparam("user_id"))
    found = await conn.execute(delete(memories).where(*records).returning(memories.c.session_id), whose)
    gone = sorted(found.scalars())
    # Of those alone: what is remembered of another since has a record that says it is there.
    for start in range(0, len(gone), AT_ONCE):
        theirs = {**whose, "gone": gone[start : start + AT_ONCE]}
        await conn.execute(delete(memory_passages).where(*_OF_USER, _OF_SESSIONS), theirs)
    return len(gone)


async def by_words(conn: AsyncConnection, whose: Whose, query: str, limit: int) -> list[int]:
    """The ids of the passages in which the words of a query weigh most, best first."""
    words = words_of(query, asked=True)[:MOST_WORDS]
    if not words:
        return []
    dialect = conn.dialect.name
    mine = owner_word(whose["app"], whose["user_id"])
    asked = [LOOK_UP[dialect].format(owner=mine, word=word) for word in words]
    counts = await conn.execute(
        COUNT_WORDS[dialect], {**whose, **_weighed(dialect, dict.fromkeys(asked, 1.0))}
    )
    in_passages = {row[0]: row[1] for row in counts}
    if not in_passages:
        return []
    total = select(func.count()).select_from(memory_passages).where(*_OF_USER)
    many: int = (await conn.execute(total, dict(whose))).scalar_one()
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


def named(key: SessionKey) -> dict[str, str]:
    return {f"b_{name}": value for name, value in owner(key).items()}
