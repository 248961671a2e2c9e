"""Sessions of the store as google-adk sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from integrations.adk_json.events import is_shown, time_of
from integrations.adk_json.owners import is_stand_in
from perdure.errors import InvalidContent
from perdure.types import Event, Session, SessionKey
from storage.sessions import SessionStore

__all__ = ["AT_ONCE", "keys", "last_update", "recent"]

AT_ONCE = 5
"""Sessions of a list that are read at the same time: no more than an ordinary pool has connections."""
PAGE = 1_000


async def recent(store: SessionStore, key: SessionKey, count: int | None) -> tuple[Session, list[Event]]:
    """A session, and at least the last ``count`` of the events that google-adk sees.

    At least one event if there is any; all of them for None. The session may be a stand-in.

    Raises:
        SessionNotFound: there is none.
        InvalidContent: a key that no session can have.
    """
    wanted = None if count is None else max(count, 1)
    limit = wanted
    while True:
        stored = await store.get(key, max_events=limit)
        shown = [event for event in stored.events if is_shown(event)]
        if limit is None or wanted is None or len(shown) >= wanted or len(stored.events) < limit:
            return stored, shown
        limit *= 2


async def keys(store: SessionStore, app_name: str, user_id: str | None) -> AsyncIterator[SessionKey]:
    """The sessions of a user or, with None, of the app; the one changed last first. No stand-ins."""
    cursor = None
    while True:
        try:
            page = await store.list_sessions(app_name, user_id, limit=PAGE, cursor=cursor)
        except InvalidContent:  # a name that no app or user can have
            return
        for session in page.sessions:
            if not is_stand_in(session):
                yield session.key
        cursor = page.next_cursor
        if cursor is None:
            return


def last_update(stored: Session, shown: Sequence[Event]) -> float:
    """When google-adk would say that a session was last updated, in seconds since 1970."""
    return time_of(shown[-1]) if shown else stored.created_at.timestamp()
