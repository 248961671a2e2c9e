"""Putting what a session said into its user's memory, a part of its log at a time.

A record knows the seq up to which it holds all that is live, so each part is whole in itself: one that
died is gone on with, and remembered again a session adds what came since.

What is in a part is read, and cut into passages, outside of the session's lock, under which its appends
wait. So it is looked at again there: the epoch moves with every rewind, and is never the same again for
a session made anew under the name. What is out of date is read anew, under the lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.types import Event, SessionKey
from storage import log, projection
from storage.memory import PLACES, RECORD, named
from storage.records import owner
from storage.schema import memories, memory_passages, memory_requests
from storage.session_row import LockedSession, must_find, must_lock, now
from storage.sql import insert_into
from storage.words import owner_word, passages, words_of

__all__ = ["Added", "Part", "Ready", "add", "count", "read_part", "rest"]

AT_ONCE = 200
"""Events, and about as many passages, of one part: what appends wait for is some tenths of a second."""

_COLUMNS = memory_passages.c
_KNOWN = select(memories.c.upto).where(*RECORD)
_COUNT = select(func.count()).select_from(memory_passages).where(*PLACES)

Known = tuple[int | None] | None
"""What a record says it has: of a session of this name before, where that is None; no record at all."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The next part of a session that is to be remembered, as it was read."""

    key: SessionKey
    epoch: int
    ended: bool
    known: Known
    upto: int
    """The last seq of it."""
    head: int
    """The last seq of the session."""
    events: Sequence[Event]

    def prepared(self) -> Ready:
        """The same in passages, or the first of them where these are many. It takes some time."""
        rows: list[dict[str, Any]] = []
        upto = self.upto
        for event in self.events:
            rows += _rows_of(self.key, event)
            if len(rows) > AT_ONCE:
                upto = event.seq
                break
        return Ready(epoch=self.epoch, known=self.known, upto=upto, is_last=upto == self.head, rows=rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A part of a session in passages."""

    epoch: int
    known: Known
    upto: int
    is_last: bool
    """Whether the session had no more when it was read."""
    rows: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Added:
    """What became of a part."""

    upto: int
    """The seq up to which all that is live is in the memory."""
    added: int
    """Passages that were added."""
    whole: bool
    """Whether that is all of the session."""


async def read_part(conn: AsyncConnection, key: SessionKey) -> Part:
    """Read what is live of the next part.

    Raises:
        SessionNotFound: there is no such session.
    """
    return await _read(conn, key, await must_find(conn, key))


async def add(
    conn: AsyncConnection, key: SessionKey, ready: Ready, *, request_id: str | None = None
) -> Added:
    """Remember a part, or, where that is out of date, what is the next one now.

    Args:
        conn: the transaction.
        key: the session.
        ready: the part.
        request_id: whose part it is. What that has put in, and was forgotten since, it does not bring back.

    Raises:
        SessionNotFound: there is no such session.
    """
    row = await must_lock(conn, key)
    if request_id is not None and await _was_forgotten(conn, key, request_id):
        return Added(upto=0, added=0, whole=True)
    return await _add(conn, row, ready)


async def rest(conn: AsyncConnection, row: LockedSession, ready: Ready | None) -> None:
    """Remember all that is left of a locked session.

    Args:
        conn: the transaction.
        row: the session.
        ready: the last part, as far as it is known.
    """
    while not (await _add(conn, row, ready)).whole:
        ready = None


async def count(conn: AsyncConnection, key: SessionKey) -> int:
    """How many passages there are of a session."""
    return int((await conn.execute(_COUNT, named(key))).scalar_one())


async def _was_forgotten(conn: AsyncConnection, key: SessionKey, request_id: str) -> bool:
    """Whether a request has put something of a locked session in, of which there is no record any more.

    Only who forgets a session takes its record. The request is noted, if it was not.
    """
    note = insert_into(conn, memory_requests).values(**owner(key), request_id=request_id)
    if (await conn.execute(note.on_conflict_do_nothing())).rowcount:
        return False
    return await _known(conn, key) is None


async def _add(conn: AsyncConnection, row: LockedSession, ready: Ready | None) -> Added:
    mine = named(row.key)
    known = await _known(conn, row.key)
    if ready is None or (ready.epoch, ready.known) != (row.epoch, known):
        ready = (await _read(conn, row.key, row)).prepared()
    if known == (None,):
        await conn.execute(delete(memory_passages).where(*PLACES), mine)
    if ready.rows:
        await conn.execute(memory_passages.insert(), ready.rows)
    if known != (ready.upto,):
        record = {"upto": ready.upto, "remembered_at": now()}
        made = insert_into(conn, memories).values(**owner(row.key), **record)
        await conn.execute(made.on_conflict_do_update(index_elements=list(owner(row.key)), set_=record))
    return Added(upto=ready.upto, added=len(ready.rows), whole=ready.upto == row.head)


async def _read(conn: AsyncConnection, key: SessionKey, row: Any) -> Part:
    """The part that follows what is known. ``row`` is the session's, locked or not."""
    known = _as_known((await conn.execute(_KNOWN, named(key))).one_or_none())
    start = ((known and known[0]) or 0) + 1
    live = projection.clip(row.projection, start, row.head + 1)
    spans = projection.first(live, AT_ONCE)
    return Part(
        key=key,
        epoch=row.epoch,
        ended=row.ended_at is not None,
        known=known,
        upto=row.head if spans == live else spans[-1][1] - 1,
        head=row.head,
        events=await log.in_spans(conn, key, spans, summaries=False),
    )


async def _known(conn: AsyncConnection, key: SessionKey) -> Known:
    """Locked, so that whoever forgets it at this moment forgets all of it, or nothing."""
    return _as_known((await conn.execute(_KNOWN.with_for_update(), named(key))).one_or_none())


def _as_known(record: Any) -> Known:
    return None if record is None else (record.upto,)


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
