"""``PerdureMemoryService``: google-adk's memory as what Perdure's store remembers of a user.

The sessions are in the store already, so adding one takes what is live there, and not the copy
that the caller holds: what was rewound is in no memory. Adding it again adds what came since.
Deltas of events and memories written by hand are not taken (``NotImplementedError``, as the base class
has it): a record holds all that is live up to a place in the log, and the rest belongs to no session that
a rewind could take it out of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from google.adk.memory.base_memory_service import BaseMemoryService, SearchMemoryResponse
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.sessions import Session
from google.genai import types

from integrations.adk_json.owners import key_of
from integrations.google_adk.connection import Connection
from perdure.errors import InvalidOption
from perdure.types import Passage
from storage.options import StoreOptions
from storage.sessions import SessionStore

__all__ = ["PerdureMemoryService"]

FOUND = 10
"""Memories that a search gives, as many as google-adk's own services."""
SEQ_LENGTH = 18
"""Digits of an event's seq."""


class PerdureMemoryService(BaseMemoryService):
    """Memory in Perdure's store, found by the words of a query, each the more the rarer it is.

    Take it from :attr:`PerdureSessionService.memory`, or make it for the same URLs: it remembers the
    sessions that are there.

    Args:
        database_url, artifacts_url, store, options: as for :class:`PerdureSessionService`.
        connection: a session service's, to share its store.
    """

    def __init__(
        self,
        database_url: str | None = None,
        artifacts_url: str = "file://.perdure/artifacts",
        *,
        store: SessionStore | None = None,
        options: StoreOptions | Mapping[str, Any] | None = None,
        connection: Connection | None = None,
    ) -> None:
        self._connection = connection or Connection(database_url, artifacts_url, store=store, options=options)

    async def add_session_to_memory(self, session: Session) -> None:
        """Put what is live of a session into its user's memory.

        Raises:
            SessionNotFound: the store has no such session; PerdureSessionService keeps them there.
        """
        store = await self._connection.store()
        await store.remember(key_of(session.app_name, session.user_id, session.id))

    async def search_memory(self, *, app_name: str, user_id: str, query: str) -> SearchMemoryResponse:
        """What the user's sessions said about something, best first."""
        store = await self._connection.store()
        found = await store.search_memory(app_name, user_id, query, limit=FOUND)
        return SearchMemoryResponse(memories=[_entry(passage) for passage in found])

    async def delete_memory(self, *, app_name: str, user_id: str, memory_id: str | None = None) -> None:
        """Forget what one event said, by the id of a memory that a search gave.

        Raises:
            InvalidOption: that is the id of no memory, or none at all: no slip forgets everything.
        """
        session_id, _, seq = (memory_id or "").rpartition("/")
        if not session_id or not seq.isdecimal() or len(seq) > SEQ_LENGTH:
            raise InvalidOption(
                f"{memory_id!r} is the id of no memory; give one that a search gave, "
                "or call forget_user() to forget all of a user's"
            )
        store = await self._connection.store()
        await store.forget(key_of(app_name, user_id, unquote(session_id)), seq=int(seq))

    async def forget_user(self, *, app_name: str, user_id: str) -> None:
        """Forget all of a user's. google-adk has no such method; the sessions stay as they are."""
        store = await self._connection.store()
        await store.forget_user(app_name, user_id)

    async def close(self) -> None:
        """Close the store that was opened for this event loop."""
        await self._connection.close()


def _entry(passage: Passage) -> MemoryEntry:
    role = "user" if passage.author == "user" else "model"
    return MemoryEntry(
        id=f"{quote(passage.session_id, safe='')}/{passage.seq}",
        author=passage.author,
        timestamp=passage.said_at.isoformat(),
        content=types.Content(role=role, parts=[types.Part(text=passage.text)]),
        custom_metadata={"session_id": passage.session_id, "event_id": passage.event_id},
    )
