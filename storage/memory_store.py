"""A store's memory of users: what their sessions said, to be searched by other sessions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import InvalidOption
from perdure.types import Passage, SessionKey
from storage import memory, remembering, vectors
from storage.records import Remembered, Whose
from storage.remembering import Added, Part, Ready
from storage.storable import check_id, check_key
from storage.store import Confirm, Store
from storage.words import excerpt, words_of

__all__ = ["MOST_FOUND", "MemoryStore"]

MOST_FOUND = 100
"""Passages that one search gives at most."""
CANDIDATES = 50
"""Passages that each way of searching brings, where there are two, or what is asked for if that is more."""
RANK_OFFSET = 60
"""What makes two middling ranks worth more than one good one; the number that everybody uses."""

Said = tuple[str, datetime, str]
"""An event's id, its time, and a passage: a fork has what its source said, and it is one thing."""

_log = logging.getLogger("perdure.storage")


class MemoryStore(Store):
    """Remembers sessions, and searches what was remembered."""

    async def remember(
        self, key: SessionKey, *, request_id: str | None = None, confirm: Confirm | None = None
    ) -> Remembered:
        """Put what is live in a session into its user's memory: what was said, without thoughts and calls.

        There is one record a session. Done again it adds what came since; what is rewound later is
        taken out by the rewind. It stays when the session is deleted: then a session that is made
        anew under the name has it replaced, once that is remembered.

        Args:
            key: the session; it may have ended.
            request_id: names the request. Done again under it, after the session was forgotten, it brings
                nothing back.
            confirm: as for :meth:`storage.sessions.SessionStore.create`.

        Raises:
            SessionNotFound: there is none.
            InvalidContent: an id that none can have.
        """
        if request_id is not None:
            check_id(request_id, "the request_id")
        added = 0
        while True:
            ready = await asyncio.to_thread((await self._next_part(key)).prepared)
            done, passages = await self._remember_part(key, ready, confirm, request_id)
            added += done.added
            if done.whole:
                break
        _log.info("remembered session %s: %d passages, %d of them new", key, passages, added)
        return Remembered(upto=done.upto, added=added, passages=passages)

    async def forget(self, key: SessionKey, *, seq: int | None = None) -> bool:
        """Take a session out of its user's memory, whether there is such a session or not.

        Remembering it again brings it back.

        Args:
            key: the session.
            seq: only what this event said, which stays out.

        Returns:
            Whether there was anything of it.
        """
        check_key(key)
        gone = await self._db.write(lambda conn: memory.forget(conn, key, seq))
        _log.info("forgot session %s", key)
        return gone

    async def forget_user(self, app: str, user_id: str) -> int:
        """Forget all that an app remembers of a user.

        Returns:
            Of how many sessions there was something.
        """
        _check_user(app, user_id)
        gone = await self._db.write(lambda conn: memory.forget_user(conn, app, user_id))
        _log.info("forgot %d sessions of a user of app %s", gone, app)
        return gone

    async def search_memory(
        self,
        app: str,
        user_id: str,
        query: str,
        *,
        limit: int = 10,
        model: str | None = None,
        near: Sequence[float] | None = None,
        but: str | None = None,
    ) -> list[Passage]:
        """What a user's sessions said about something, best first. No other user's memory is looked at.

        A passage need not have all words of the query: each counts, the more the rarer it is.

        Args:
            app: the app.
            user_id: the user.
            query: words, or a question; no sign in it means anything.
            limit: how many passages, up to 100.
            model: the embedding model of ``near``; then passages also are found by their vectors of
                that model, and those found both ways come first.
            near: the query's vector.
            but: the id of a session that is left out.

        Raises:
            InvalidOption: a limit that makes no sense.
        """
        _check_user(app, user_id)
        whose = Whose(app=app, user_id=user_id, but=but or "")
        if not 0 < limit <= MOST_FOUND:
            raise InvalidOption(f"limit is {limit}; a search gives 1 to {MOST_FOUND} passages")
        both = model is not None and near is not None
        count = max(limit, CANDIDATES) if both else limit
        ranked = [await self._db.read(lambda conn: memory.by_words(conn, whose, query, count))]
        if model is not None and near is not None:
            ranked.append(await self._nearest(whose, model, near, count))
        ids = {number for each in ranked for number in each}
        if not ids:
            return []
        found = await self._db.read(lambda conn: memory.passages_of(conn, app, user_id, sorted(ids)))
        words = words_of(query)
        best = _fused(found, ranked)[:limit]
        return [replace(each, excerpt=excerpt(each.text, words)) for each in best]

    async def lacking_vectors(self, key: SessionKey, model: str, limit: int) -> list[tuple[int, str]]:
        """The first passages of a session that have no vector of this model: their numbers and texts."""
        return await self._read(key, lambda conn: vectors.lacking(conn, key, model, limit))

    async def keep_vectors(
        self, key: SessionKey, model: str, found: Sequence[tuple[int, Sequence[float]]]
    ) -> None:
        """Store the vectors of passages, by their numbers, in place of those of another model.

        Args:
            key: the session.
            model: whose vectors they are; only vectors of one name are compared.
            found: numbers from :meth:`lacking_vectors`, and vectors, all of one dimension.
        """
        check_key(key)
        await self._db.write(lambda conn: vectors.keep(conn, key, model, found))

    async def _remember_ahead(self, key: SessionKey, confirm: Confirm | None) -> Ready | None:
        """Remember all but the last part of a session that is to end, and give that; None if it has ended."""
        while not (part := await self._next_part(key)).ended:
            ready = await asyncio.to_thread(part.prepared)
            if ready.is_last:
                return ready
            await self._remember_part(key, ready, confirm)
        return None

    async def _next_part(self, key: SessionKey) -> Part:
        return await self._read(key, lambda conn: remembering.read_part(conn, key))

    async def _remember_part(
        self, key: SessionKey, ready: Ready, confirm: Confirm | None, request_id: str | None = None
    ) -> tuple[Added, int]:
        """Also how many passages there are of the session, once that is all of it."""

        async def work(conn: AsyncConnection) -> tuple[Added, int]:
            done = await remembering.add(conn, key, ready, request_id=request_id)
            return done, await remembering.count(conn, key) if done.whole else 0

        return await self._write("remember", key, work, confirm=confirm)

    async def _nearest(self, whose: Whose, model: str, near: Sequence[float], limit: int) -> list[int]:
        found = await self._db.read(lambda conn: vectors.by_pgvector(conn, whose, model, near, limit))
        if found is not None:
            return found
        stored = await self._db.read(lambda conn: vectors.stored(conn, whose, model))
        return await asyncio.to_thread(vectors.nearest, stored, near, limit)


def _fused(found: Mapping[int, Passage], ranked: Sequence[Sequence[int]]) -> list[Passage]:
    """Several rankings as one: by the sum of the reciprocals of the ranks.

    One may have found a fork's copy of what the other has found in its source.
    """
    scores: dict[Said, float] = {}
    of: dict[Said, int] = {}
    for ids in ranked:
        for rank, number in enumerate(ids, 1):
            if (passage := found.get(number)) is not None:  # else it was forgotten, or rewound, meanwhile
                said = (passage.event_id, passage.said_at, passage.text)
                scores[said] = scores.get(said, 0.0) + 1 / (RANK_OFFSET + rank)
                of[said] = max(number, of.get(said, number))
    best = sorted(scores, key=lambda said: (-scores[said], -of[said]))
    return [found[of[said]] for said in best]


def _check_user(app: str, user_id: str) -> None:
    check_id(app, "the app")
    check_id(user_id, "the user_id")
