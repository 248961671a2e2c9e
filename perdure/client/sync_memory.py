"""Users' memory, by a client that blocks."""

from __future__ import annotations

from perdure.client import memory as calls
from perdure.client.calls import new_id
from perdure.client.memory import Remembered
from perdure.client.sync_wire import SyncWire
from perdure.types import Passage, SessionKey

__all__ = ["MemoryOfSession", "UserMemory"]


class UserMemory:
    """What sessions left to the memory of their users."""

    def __init__(self, wire: SyncWire) -> None:
        self._wire = wire

    def search(self, app: str, user_id: str, query: str, *, limit: int = 10) -> list[Passage]:
        """What a user's sessions said about something, best first.

        Args:
            app: the agent's name.
            user_id: whose memory; no other's is looked at.
            query: words, or a question.
            limit: how many passages, up to 100.

        Raises:
            InvalidRequest: a limit that makes no sense, or a query of more than 4,000 characters.
        """
        return self._wire.send(calls.search(app, user_id, query, limit))

    def forget(self, app: str, user_id: str) -> int:
        """Forget all that is remembered of a user; the sessions stay as they are.

        Returns:
            Of how many sessions there was something.
        """
        return self._wire.send(calls.forget_user(app, user_id))


class MemoryOfSession:
    """The part of a session's handle that is about its user's memory."""

    key: SessionKey
    _wire: SyncWire

    def remember(self, *, request_id: str | None = None) -> Remembered:
        """Put what is live into the user's memory. Sent again, it adds what came since.

        Under an id that was sent before it adds nothing where the session was forgotten meanwhile.

        Raises:
            SessionNotFound: there is no such session.
        """
        return self._wire.send(calls.remember(self.key, request_id or new_id()))

    def forget(self) -> None:
        """Take it out of the user's memory; the session stays as it is, and may be gone already."""
        self._wire.send(calls.forget(self.key))
