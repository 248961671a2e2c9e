"""Reads of sessions, as google-adk wants them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from google.adk.events import Event
from google.adk.sessions import Session
from google.adk.sessions.base_session_service import GetSessionConfig

from integrations.adk_json.events import state_from_store, time_of
from integrations.adk_json.owners import is_stand_in
from integrations.adk_json.reading import AT_ONCE, keys, last_update, recent
from integrations.google_adk import revision
from integrations.google_adk.events import to_adk
from perdure.errors import SessionNotFound
from perdure.types import Event as LogEvent
from perdure.types import Session as Stored
from perdure.types import SessionKey
from storage.sessions import SessionStore

__all__ = ["read", "read_all", "session_of"]


async def read(store: SessionStore, key: SessionKey, config: GetSessionConfig | None) -> Session:
    """The session, with the events that ``config`` asks for.

    Raises:
        SessionNotFound: there is none, or only a stand-in.
        InvalidContent: a key that no session can have.
    """
    count = config.num_recent_events if config else None
    since = config.after_timestamp if config else None
    stored, shown = await recent(store, key, None if since is not None and count != 0 else count)
    if is_stand_in(stored):
        raise SessionNotFound(f"{key} (app/user/session) has artifacts, but there is no such session")
    events = [event for event in shown if since is None or time_of(event) >= since]
    if count is not None:
        events = events[len(events) - min(count, len(events)) :]
    return session_of(stored, shown, [to_adk(event) for event in events])


async def read_all(store: SessionStore, app_name: str, user_id: str | None) -> list[Session]:
    """All sessions of a user or, with None, of the app, without events: oldest update first."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(key: SessionKey) -> Session | None:
        async with gate:
            try:
                return await read(store, key, GetSessionConfig(num_recent_events=0))
            except SessionNotFound:  # deleted since it was listed
                return None

    found_keys = [key async for key in keys(store, app_name, user_id)]
    found = [session for session in await asyncio.gather(*map(one, found_keys)) if session is not None]
    return sorted(found, key=lambda session: (session.last_update_time, session.user_id, session.id))


def session_of(stored: Stored, shown: Sequence[LogEvent], events: Sequence[Event] = ()) -> Session:
    """google-adk's Session.

    Args:
        stored: the session in the store.
        shown: its newest events, of which the last one gives the time of its last update.
        events: what it is to have as its events.
    """
    session = Session(
        app_name=stored.key.app,
        user_id=stored.key.user_id,
        id=stored.key.session_id,
        state=state_from_store(stored.state),
        events=list(events),
        last_update_time=last_update(stored, shown),
    )
    revision.note(session, revision.Revision(epoch=stored.epoch, seq=stored.head))
    return session
