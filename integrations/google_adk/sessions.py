"""``PerdureSessionService``: google-adk's sessions in Perdure's store.

The hazards, and what is done about them here:

- google-adk rewinds by appending an event with a delta that it worked out from the events.
  It cannot know the state that the session was created with, and would null it. So that
  event is not stored: it becomes a rewind of the store's own, which restores the state from
  its undo log and takes the rewound part out of what is read. See :meth:`append_event`.
- A runner holds a Session for a whole invocation. Where somebody else appended meanwhile,
  what it decided on is outdated, and its next append is refused. See ``revision.py``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from google.adk.errors import InvocationNotFoundError
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events import Event
from google.adk.platform import uuid as adk_uuid
from google.adk.sessions import BaseSessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig, ListSessionsResponse
from google.adk.sessions.state import State

from integrations.adk_json.events import (
    COPIES,
    TAKEN_OVER,
    is_record,
    state_from_store,
    state_to_store,
    time_of,
)
from integrations.adk_json.jsonform import json_of
from integrations.adk_json.owners import MARK, USERS_OWN, is_stand_in, key_of, stand_in
from integrations.google_adk import reading, revision
from integrations.google_adk.artifacts import PerdureArtifactService
from integrations.google_adk.connection import Connection
from integrations.google_adk.events import from_adk, to_adk
from integrations.google_adk.memory import PerdureMemoryService
from integrations.google_adk.queues import Queues
from perdure.errors import (
    InvalidContent,
    InvocationNotFound,
    InvocationRewound,
    SessionExists,
    SessionNotFound,
    VersionMismatch,
)
from perdure.types import Json, SessionKey
from perdure.types import Session as Stored
from storage.options import StoreOptions
from storage.sessions import SessionStore

__all__ = ["PerdureSessionService"]

_log = logging.getLogger("perdure.google_adk")


class PerdureSessionService(BaseSessionService):
    """A session service on SQLite or PostgreSQL, with an append-only log and exact rewinds.

    Errors that google-adk has a class for are of that class; all others are of
    :mod:`perdure.errors`: ``InvalidContent`` for what no database could hold,
    ``EventConflict`` for an event id that is taken by another event, ``SessionEnded``.

    Args:
        database_url: ``sqlite:///path``, ``sqlite://`` (in memory) or
            ``postgresql://user:password@host/database``; the store is opened, and its tables made, on
            first use.
        artifacts_url: any fsspec URL, for :attr:`artifacts`.
        store: a store that is open already, instead of a URL; yours to close.
        options: pool and durability settings.

    Raises:
        InvalidOption: neither or both of a URL and a store, or an option that does not exist.
    """

    def __init__(
        self,
        database_url: str | None = None,
        artifacts_url: str = "file://.perdure/artifacts",
        *,
        store: SessionStore | None = None,
        options: StoreOptions | Mapping[str, Any] | None = None,
    ) -> None:
        self._connection = Connection(database_url, artifacts_url, store=store, options=options)
        self._queues = Queues()
        self.artifacts = PerdureArtifactService(connection=self._connection)
        """An artifact service on the same store: its versions are rewound with the session."""
        self.memory = PerdureMemoryService(connection=self._connection)
        """A memory service on the same store: what is rewound is taken out of it."""

    async def create_session(
        self,
        *,
        app_name: str,
        user_id: str,
        state: dict[str, Any] | None = None,
        session_id: str | None = None,
    ) -> Session:
        """Create a session; its state survives every rewind.

        Raises:
            AlreadyExistsError: the id is taken for this app and user, or reserved.
        """
        chosen = (session_id or "").strip() or adk_uuid.new_uuid()
        if chosen == USERS_OWN:
            raise AlreadyExistsError(f"Session id {chosen} is reserved; choose another.")
        store = await self._connection.store()
        given = state_to_store(json_of(state or {}, f"the initial state of session {chosen}"))
        key = key_of(app_name, user_id, chosen)
        try:
            made = await store.create(key, state=given)
        except SessionExists as error:
            taken_over = await _take_over(store, key, given)
            if taken_over is None:
                raise AlreadyExistsError(f"Session with id {chosen} already exists.") from error
            made = taken_over
        return reading.session_of(made, [])

    async def get_session(
        self, *, app_name: str, user_id: str, session_id: str, config: GetSessionConfig | None = None
    ) -> Session | None:
        """The session with its live events, in the order in which they were appended.

        ``after_timestamp`` and ``num_recent_events`` choose among the events; the state is whole.
        """
        store = await self._connection.store()
        try:
            return await reading.read(store, key_of(app_name, user_id, session_id), config)
        except (SessionNotFound, InvalidContent):
            return None

    async def list_sessions(self, *, app_name: str, user_id: str | None = None) -> ListSessionsResponse:
        """The sessions of a user, or of the app, without events: oldest update first.

        google-adk's order is that of the newest event's timestamp, which takes a short read a session.
        """
        store = await self._connection.store()
        return ListSessionsResponse(sessions=await reading.read_all(store, app_name, user_id))

    async def delete_session(self, *, app_name: str, user_id: str, session_id: str) -> None:
        """Delete the session with its events, its state and its artifacts; no error if there is none."""
        store = await self._connection.store()
        try:
            await store.delete(key_of(app_name, user_id, session_id))
        except InvalidContent:
            _log.debug("no session can have the id %r; nothing to delete", session_id)

    async def get_user_state(self, *, app_name: str, user_id: str) -> dict[str, Any]:
        """The ``user:`` state, without the prefix."""
        store = await self._connection.store()
        page = await store.list_sessions(app_name, user_id, limit=1)
        key = page.sessions[0].key if page.sessions else key_of(app_name, user_id, USERS_OWN)
        if not page.sessions:
            await stand_in(store, key)
        found = await store.get(key, max_events=0)
        state = state_from_store(found.state)
        prefix = State.USER_PREFIX
        return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

    async def append_event(self, session: Session, event: Event) -> Event:
        """Append an event with its changes of state, and bring the given session up to date.

        A partial event is given back as it is. One that was appended before changes nothing.

        An event with ``actions.rewind_before_invocation_id``, as ``Runner.rewind_async`` appends it,
        makes the session what it was just before that invocation: the store works out the changes of
        state and of artifacts, and those of the event are replaced by them. The given session then has
        the events that are live, and the marker at their end. Rewinding before a marker is redo.

        Raises:
            SessionNotFoundError: it was deleted, or never created.
            StaleSessionError: it was changed by somebody else since it was read; read it again.
            InvocationNotFoundError: there is no such invocation to rewind to, or it was rewound already.
        """
        if event.partial:
            return event
        store = await self._connection.store()
        key = key_of(session.app_name, session.user_id, session.id)
        async with self._queues.of(key):
            try:
                if event.actions.rewind_before_invocation_id:
                    return await self._rewind(store, key, session, event)
                return await self._append(store, key, session, event)
            except SessionNotFound as error:
                raise SessionNotFoundError(f"Session {session.id} not found.") from error

    async def close(self) -> None:
        """Close the connections that this event loop opened; a store that was given stays open."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _append(self, store: SessionStore, key: SessionKey, session: Session, event: Event) -> Event:
        seen = None
        while True:
            seen = await revision.check(store, key, session, event.id, seen)
            with revision.refusing_stale(session), suppress(VersionMismatch):
                stored = await store.append(key, from_adk(event), epoch=seen.epoch, expected_head=seen.seq)
                break
        if seen.knows(session, event.id, stored.seq):
            return event
        self._apply_temp_state(session, event)
        event = self._trim_temp_delta_state(event)
        self._commit_event_to_session(session, event)
        for name, value in event.actions.state_delta.items():
            if value is None:
                session.state.pop(name, None)
        session.last_update_time = time_of(stored)
        revision.note(session, seen.after(stored.seq))
        return event

    async def _rewind(self, store: SessionStore, key: SessionKey, session: Session, event: Event) -> Event:
        target = event.actions.rewind_before_invocation_id
        request_id = event.invocation_id or event.id
        seen = None
        try:
            while True:
                seen = await revision.check(store, key, session, f"{request_id}:rewind", seen)
                with suppress(VersionMismatch):
                    head = await _drop_copies(store, key, event, request_id, seen)
                    done = await store.rewind(
                        key, before=target or "", request_id=request_id, expected_head=head
                    )
                    break
        except (InvocationNotFound, InvocationRewound) as error:
            raise InvocationNotFoundError(str(error)) from error
        marker = to_adk(done.event)
        for name in ("id", "invocation_id", "author", "timestamp", "actions"):
            setattr(event, name, getattr(marker, name))
        found = await reading.read(store, key, None)
        temp = {name: value for name, value in session.state.items() if name.startswith(State.TEMP_PREFIX)}
        # In place: contexts of google-adk hold on to the dict and the list.
        session.state.clear()
        session.state.update(found.state | temp)
        session.events[:] = found.events
        session.last_update_time = found.last_update_time
        revision.copy(found, session)
        return event


async def _take_over(store: SessionStore, key: SessionKey, state: dict[str, Json]) -> Stored | None:
    """Make a stand-in the session that it stood for; None if what has the key is a session already.

    The state comes in by an event, before any that google-adk knows to rewind to.
    """
    try:
        found = await store.get(key, max_events=0)
    except SessionNotFound:  # deleted since; it was there when it was to be made
        return None
    if not is_stand_in(found):
        return None
    request_id = f"{adk_uuid.new_uuid()}{TAKEN_OVER}"
    try:
        return await store.update(
            key,
            request_id=request_id,
            state=state,
            metadata={MARK: None},
            expected_version=found.version,
        )
    except VersionMismatch:  # a file was saved meanwhile, or somebody else took it over
        return await _take_over(store, key, state)


async def _drop_copies(
    store: SessionStore, key: SessionKey, event: Event, request_id: str, seen: revision.Revision
) -> int:
    """Rewind the copies of files that google-adk saved for a rewind, before that is carried out.

    They would go with it anyway. But redo brings back what there was just before the rewind, and
    that is not to be the copies.

    Returns:
        Where the log ends after it.

    Raises:
        VersionMismatch: the log has grown since it was seen.
    """
    saved = event.actions.artifact_delta
    for record in seen.newer:
        if is_record(record) and any(saved.get(name) == n - 1 for name, n in record.artifact_delta.items()):
            done = await store.rewind(
                key,
                before=record.invocation_id,
                request_id=f"{request_id}{COPIES}",
                expected_head=seen.seq,
            )
            return done.event.seq
    return seen.seq
