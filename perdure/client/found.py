"""What both faces of the client know of a session that was read."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from perdure.types import Json, Session, SessionKey

__all__ = ["Found", "Named"]


class Named:
    """A session by its names."""

    def __init__(self, key: SessionKey) -> None:
        self.key = key

    @property
    def id(self) -> str:
        """Its id, which is the user's own: the same id under another user is another session."""
        return self.key.session_id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.key)!r})"


class Found:
    """A session as it was when it was read. Nothing of it changes by itself."""

    record: Session
    """All of it; its ``events`` are the live ones, as many as were asked for."""

    @property
    def state(self) -> Mapping[str, Json]:
        """Its state, with the user's keys under ``user:`` and the app's under ``app:``; empty in lists."""
        return self.record.state

    @property
    def metadata(self) -> Mapping[str, Json]:
        """What it is found by."""
        return self.record.metadata

    @property
    def version(self) -> int:
        """Moves by one with every change; what ``expected_version`` means."""
        return self.record.version

    @property
    def ended_at(self) -> datetime | None:
        """When it was ended; None if it was not."""
        return self.record.ended_at
