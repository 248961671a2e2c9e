"""A store's reading: sessions, now or as they were, their logs, and what a prompt is built from."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from perdure.errors import InvalidOption
from perdure.types import Event, Session, SessionKey
from storage import listing, reading, turns
from storage.records import MAX_ID_BYTES, Context, SessionPage
from storage.storable import check_id, check_json, check_text
from storage.store import Store

__all__ = ["ReadStore"]


class ReadStore(Store):
    """Reads; each method sees one moment of the database, and changes nothing."""

    async def get(
        self,
        key: SessionKey,
        *,
        max_events: int | None = None,
        after: int | None = None,
        before: str | None = None,
    ) -> Session:
        """A session with its whole state and its live events, now or as they were.

        Args:
            key: the session.
            max_events: only the last so many; 0 for none, None for all.
            after: only events behind this seq.
            before: events, own state, ``projection`` and ``head`` just before this live invocation,
                as a rewind would bring them back; nothing is changed. What no rewind touches,
                ``app:`` and ``user:`` keys, metadata and the rest of the row, is as it is now.

        Raises:
            SessionNotFound: there is none.
            InvocationNotFound: the log has no invocation ``before``.
            InvocationRewound: it has, but it is not live.
            InvalidOption: a negative number.
        """
        limit = _natural("max_events", max_events)
        start = _natural("after", after) or 0
        if before is not None:
            check_id(before, "the invocation id", max_bytes=MAX_ID_BYTES)
        return await self._read(
            key, lambda conn: reading.session(conn, key, after=start, limit=limit, before=before)
        )

    async def snapshot(self, key: SessionKey, event_ids: Sequence[str]) -> tuple[Session, dict[str, Event]]:
        """A session with its state, and the events of these ids that are in its log, as one moment saw them.

        Raises:
            SessionNotFound: there is none.
        """
        check_json(list(event_ids), "an event's id")
        return await self._read(key, lambda conn: reading.snapshot(conn, key, event_ids))

    async def children(self, key: SessionKey) -> list[Session]:
        """The sessions of the agents that a session has called, and of those that they have called.

        Without state and events. ``metadata`` has the ``parent``'s id, the ``call`` and, where that was
        rewound, the rewind in ``rewound``.
        """
        return await self._read(key, lambda conn: listing.children(conn, key))

    async def list_sessions(
        self, app: str, user_id: str | None = None, *, limit: int = 50, cursor: str | None = None
    ) -> SessionPage:
        """A page of an app's or a user's sessions, the one changed last first, without state and events.

        Args:
            app: whose sessions.
            user_id: only this user's.
            limit: how many, up to 1,000.
            cursor: the ``next_cursor`` of the page before.

        Raises:
            InvalidOption: a limit or cursor that makes no sense.
        """
        check_id(app, "the app")
        if user_id is not None:
            check_id(user_id, "the user_id")
        return await self._db.read(lambda conn: listing.page(conn, app, user_id, limit=limit, cursor=cursor))

    async def log(self, key: SessionKey, *, after: int = 0, limit: int | None = None) -> list[Event]:
        """The whole log in order, also what was rewound: ``event.live`` tells.

        Args:
            key: the session.
            after: only events behind this seq.
            limit: at most so many.

        Raises:
            SessionNotFound: there is none.
            InvalidOption: a negative number.
        """
        start, count = _natural("after", after) or 0, _natural("limit", limit)
        return await self._read(key, lambda conn: reading.whole_log(conn, key, after=start, limit=count))

    async def event(self, key: SessionKey, event_id: str) -> Event | None:
        """One event of the log, live or not; None if there is no such event or session."""
        check_text(event_id, "the event's id")
        return await self._read(key, lambda conn: reading.event(conn, key, event_id))

    async def ending(self, key: SessionKey, message_id: str) -> tuple[Event, Event] | None:
        """A message and the event that ended its turn, or the turn that it joined.

        None if it has not ended, if any of it was rewound, or if there is no such message or session.
        """
        check_text(message_id, "the message's id")
        return await self._read(key, lambda conn: turns.ending(conn, key, message_id))

    async def context(
        self, key: SessionKey, *, state_keys: Collection[str] | None = None, known: Context | None = None
    ) -> Context:
        """What a prompt is built from: the state, the newest live summary and the live events of its tail.

        Args:
            key: the session.
            state_keys: only these keys of the state, of any scope; None for all of it.
            known: an earlier answer for this session. Where the log has only grown since, no more
                is read than what is new in it. The answer is the same without it.

        Raises:
            SessionNotFound: there is no session.
        """
        return await self._read(
            key, lambda conn: reading.context(conn, key, state_keys=state_keys, known=known)
        )


def _natural(name: str, number: int | None) -> int | None:
    if number is not None and number < 0:
        raise InvalidOption(f"{name} is {number!r}; give a whole number from 0 up, or leave it out")
    return number
