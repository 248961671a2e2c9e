"""A store's memory of users: what their sessions said, to be searched by other sessions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace

from perdure.errors import InvalidOption
from perdure.types import Passage, SessionKey
from storage import memory, vectors
from storage.records import Remembered
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

_log = logging.getLogger("perdure.storage")


class MemoryStore(Store):
    """Remembers sessions, and searches what was remembered."""

    async def remember(self, key: SessionKey, *, confirm: Confirm | None = None) -> Remembered:
        """Put what is live in a session into its user's memory: what was said, without thoughts and calls.

        There is one record a session. Done again it adds what came since; what is rewound later is
        taken out by the rewind. It stays when the session is deleted: then a session that is made
        anew under the name has it replaced, once that is remembered.

        Args:
            key: the session; it may have ended.
            confirm: as for :meth:`storage.sessions.SessionStore.create`.

        Raises:
            SessionNotFound: there is none.
        """
        done = await self._write("remember", key, lambda conn: memory.remember(conn, key), confirm=confirm)
        _log.info("remembered session %s: %d passages, %d of them new", key, done.passages, done.added)
        return done

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

        Raises:
            InvalidOption: a limit that makes no sense.
        """
        _check_user(app, user_id)
        if not 0 < limit <= MOST_FOUND:
            raise InvalidOption(f"limit is {limit}; a search gives 1 to {MOST_FOUND} passages")
        if model is None or near is None:
            ids = await self._db.read(lambda conn: memory.by_words(conn, app, user_id, query, limit))
        else:
            count = max(limit, CANDIDATES)
            worded = await self._db.read(lambda conn: memory.by_words(conn, app, user_id, query, count))
            ids = _fused(worded, await self._nearest(app, user_id, model, near, count))[:limit]
        if not ids:
            return []
        found = await self._db.read(lambda conn: memory.passages_of(conn, app, user_id, ids))
        words = words_of(query)
        return [
            replace(found[number], excerpt=excerpt(found[number].text, words))
            for number in ids
            if number in found
        ]

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

    async def _nearest(
        self, app: str, user_id: str, model: str, near: Sequence[float], limit: int
    ) -> list[int]:
        found = await self._db.read(lambda conn: vectors.by_pgvector(conn, app, user_id, model, near, limit))
        if found is not None:
            return found
        stored = await self._db.read(lambda conn: vectors.stored(conn, app, user_id, model))
        return await asyncio.to_thread(vectors.nearest, stored, near, limit)


def _fused(*ranked: Sequence[int]) -> list[int]:
    """Several rankings as one: by the sum of the reciprocals of the ranks."""
    scores: dict[int, float] = {}
    for ids in ranked:
        for rank, number in enumerate(ids, 1):
            scores[number] = scores.get(number, 0.0) + 1 / (RANK_OFFSET + rank)
    return sorted(scores, key=lambda number: (-scores[number], -number))


def _check_user(app: str, user_id: str) -> None:
    check_id(app, "the app")
    check_id(user_id, "the user_id")
