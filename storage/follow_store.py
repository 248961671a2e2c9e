"""A store's reads for those who follow a session: what is new, as one moment saw it.

A hundred readers of one session are woken together and want the same. Those that ask before
the read has begun share it; one that asks later gets another, since it may have been told of
what the first did not see.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.types import Event, Session, SessionKey
from storage import log
from storage.blobs import BlobStore
from storage.engine import Database
from storage.feed import Feed
from storage.records import MAX_ID_BYTES, session_of
from storage.session_row import find, must_find
from storage.storable import check_id, check_key
from storage.store import Store

__all__ = ["FollowStore", "News"]

PAGE = 200
"""Events that one read brings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class News:
    """What is new in a session."""

    session: Session
    """Without state and events."""
    events: list[Event]
    """Behind the seq that was asked for, in order, also what was rewound."""

    @property
    def more(self) -> bool:
        """Whether the log goes on behind these events."""
        return bool(self.events) and self.events[-1].seq < self.session.head


class FollowStore(Store):
    """Reads what is new."""

    def __init__(self, database: Database, blobs: BlobStore, feed: Feed) -> None:
        super().__init__(database, blobs, feed)
        self._asked: dict[tuple[SessionKey, int], asyncio.Task[News]] = {}

    async def news(self, key: SessionKey, *, after: int) -> News:
        """The session's row and the first events behind a seq, as one moment saw them.

        Raises:
            SessionNotFound: there is no such session, or no longer.
        """
        check_key(key)
        asked = self._asked.get((key, after))
        if asked is None:
            asked = self._asked[key, after] = asyncio.create_task(self._news(key, after))
            asked.add_done_callback(_seen)
        # Shielded: a reader that goes must not take it from the others.
        return await asyncio.shield(asked)

    async def place_of(self, key: SessionKey, invocation_id: str) -> int:
        """The seq behind which all events of an invocation are, also those that are still to come.

        Just before its first event, if it has one, or before the message of that id, if that joined another
        invocation; else the head of the log; 0 if there is no session.
        """
        check_id(invocation_id, "the invocation id", max_bytes=MAX_ID_BYTES)
        return await self._read(key, lambda conn: _place_of(conn, key, invocation_id))

    async def _news(self, key: SessionKey, after: int) -> News:
        del self._asked[key, after]
        return await self._db.read(lambda conn: _news(conn, key, after))


async def _news(conn: AsyncConnection, key: SessionKey, after: int) -> News:
    row = await must_find(conn, key)
    stop = min(row.head, after + PAGE) + 1
    spans = [(after + 1, stop)] if after + 1 < stop else []
    events = await log.in_spans(conn, key, spans, ranges=row.projection)
    return News(session=session_of(row), events=events)


async def _place_of(conn: AsyncConnection, key: SessionKey, invocation_id: str) -> int:
    row = await find(conn, key)
    if row is None:
        return 0
    first = await log.first_of_invocation(conn, key, invocation_id, 1)
    if first is not None:
        return int(first.seq) - 1
    joined = (await log.by_ids(conn, key, [f"{invocation_id}:user"], row.projection)).values()
    return min((event.seq - 1 for event in joined), default=row.head)


def _seen(asked: asyncio.Task[News]) -> None:
    """Its error is for those who wait for it, if anybody still does."""
    if not asked.cancelled():
        asked.exception()
