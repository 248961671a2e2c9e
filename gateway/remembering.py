"""What a Runner does for users' memory: sessions are put into it, it is searched, and it is forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeVar

from activities.gemini import Gemini
from activities.memory import Memories
from perdure.registry import Registry
from perdure.settings import Settings
from perdure.types import Passage, SessionKey
from storage.sessions import SessionStore
from workflows.messages import InMemory, RememberRequest, Request

__all__ = ["MemoryOfUsers", "open_memories"]

T = TypeVar("T")


class MemoryOfUsers:
    """The part of a Runner that is about memory."""

    store: SessionStore
    _memories: Memories

    async def remember(self, key: SessionKey, *, request_id: str | None = None) -> InMemory:
        """Put what is live in a session into its user's memory, whatever its agent's policy says.

        Sent again, it adds what came since; under the same id, nothing where the session was forgotten
        meanwhile. It may be done while a turn runs, and to a session that has ended.

        Raises:
            SessionNotFound: there is no such session.
            ModelUnavailable, ModelRefused: the embedding model failed; the words are in the memory.
        """
        await self._must_exist(key)
        request = RememberRequest(**({"request_id": request_id} if request_id else {}))
        return await self._send(key, "remember", request, InMemory)

    async def search_memory(self, app: str, user_id: str, query: str, *, limit: int = 10) -> list[Passage]:
        """What a user's sessions with an agent said about something, best first.

        Args:
            app: the agent's name.
            user_id: whose memory; no other's is looked at.
            query: words, or a question.
            limit: how many passages, up to 100.

        Raises:
            InvalidOption, InvalidContent: a limit or a name that makes no sense.
        """
        return await self._memories.search(app, user_id, query, limit)

    async def forget(self, key: SessionKey) -> bool:
        """Take a session out of its user's memory; the session stays as it is.

        Returns:
            Whether there was anything of it.
        """
        return await self.store.forget(key)

    async def forget_user(self, app: str, user_id: str) -> int:
        """Forget all that an app remembers of a user; the sessions stay as they are.

        Returns:
            Of how many sessions there was something.
        """
        return await self.store.forget_user(app, user_id)

    async def _must_exist(self, key: SessionKey) -> None:
        raise NotImplementedError

    async def _send(self, key: SessionKey, update: str, request: Request, answer: type[T]) -> T:
        raise NotImplementedError


@asynccontextmanager
async def open_memories(settings: Settings, store: SessionStore, agents: Registry) -> AsyncIterator[Memories]:
    """The memory of these agents' users, searched by meaning where an agent has an embedding model."""
    gemini = Gemini.of(settings)
    try:
        yield Memories(store, agents, gemini)
    finally:
        await gemini.close()
