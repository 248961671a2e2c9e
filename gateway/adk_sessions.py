"""Sessions as google-adk's server gives and takes them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

from fastapi import HTTPException

from gateway.adk_events import event_json, state_json
from gateway.adk_models import CreateSession, RestoredEvent
from gateway.adk_waits import Waits
from gateway.services import Services
from integrations.adk_json.events import META, NOBODY, is_shown, state_to_store
from integrations.adk_json.owners import USERS_OWN, is_stand_in, key_of
from integrations.adk_json.reading import AT_ONCE, keys, last_update, recent
from perdure.errors import InvalidContent, SessionExists, SessionNotFound
from perdure.types import Event, JsonObject, Session, SessionKey
from storage.sessions import SessionStore

__all__ = ["create", "must_find", "read", "read_all", "session_json"]

_EVALUATIONS = ("adk-eval-session-", "___eval___session___")
"""Begin the ids of sessions that google-adk's evaluation makes; no list shows them."""
_RESERVED = frozenset({"adk_request_credential", "adk_request_confirmation", "adk_request_input"})
"""Calls that google-adk makes itself."""
_PLAIN_ACTIONS = frozenset(
    {"stateDelta", "artifactDelta", "requestedAuthConfigs", "requestedToolConfirmations"}
)


def session_json(session: Session) -> JsonObject:
    """The session in google-adk's JSON, with the events that it was read with."""
    shown = [event for event in session.events if is_shown(event)]
    return _json(session, shown, shown)


async def read(store: SessionStore, key: SessionKey) -> JsonObject:
    """A session with its events.

    Raises:
        HTTPException: 404, there is none.
    """
    return session_json(await must_find(store, key, events=True))


async def must_find(store: SessionStore, key: SessionKey, *, events: bool = False) -> Session:
    """The session in the store.

    Raises:
        HTTPException: 404, there is none, or only a stand-in for files.
    """
    try:
        found = await store.get(key, max_events=None if events else 0)
    except (SessionNotFound, InvalidContent):
        raise HTTPException(404, "Session not found") from None
    if is_stand_in(found):
        raise HTTPException(404, "Session not found")
    return found


async def read_all(store: SessionStore, app: str, user: str) -> list[JsonObject]:
    """A user's sessions with their state and without events, oldest update first."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(key: SessionKey) -> JsonObject | None:
        async with gate:
            try:
                stored, shown = await recent(store, key, 1)
            except SessionNotFound:  # deleted since it was listed
                return None
            return None if is_stand_in(stored) else _json(stored, shown, ())

    wanted = [key async for key in keys(store, app, user) if not key.session_id.startswith(_EVALUATIONS)]
    found = [session for session in await asyncio.gather(*map(one, wanted)) if session is not None]
    return sorted(found, key=lambda session: (session["lastUpdateTime"], session["id"]))


async def create(services: Services, app: str, user: str, wanted: CreateSession) -> JsonObject:
    """Create a session, with the state and the events that it begins with.

    Raises:
        HTTPException: 409, the id is taken; 400, an event or an option that is not taken.
        UnknownAgent, InvalidContent: nothing was written.
    """
    _refuse_options(wanted)
    events = wanted.events or []
    for index, event in enumerate(events):
        _check(index, event)
    services.agents.get(app)
    key = key_of(app, user, (wanted.session_id or "").strip() or str(uuid.uuid4()))
    if key.session_id == USERS_OWN:
        raise HTTPException(409, f"Session already exists: {wanted.session_id}")
    try:
        session = await services.store.create(key, state=state_to_store(wanted.state or {}))
    except SessionExists:
        raise HTTPException(409, f"Session already exists: {wanted.session_id}") from None
    for event in events:
        if not event.partial:
            await services.store.append(key, _logged(event))
    return session_json(session if not events else await services.store.get(key))


def _json(stored: Session, shown: Sequence[Event], events: Sequence[Event]) -> JsonObject:
    waits = Waits()
    return {
        "id": stored.key.session_id,
        "appName": stored.key.app,
        "userId": stored.key.user_id,
        "state": state_json(stored.state),
        "events": [event_json(one) for event in events for one in waits.shown(event)],
        "lastUpdateTime": last_update(stored, shown),
    }


def _refuse_options(wanted: CreateSession) -> None:
    bound = sorted({"app_name", "user_id", "state", "session_id"} & (wanted.options or {}).keys())
    if bound:
        raise HTTPException(
            400, f"Session options cannot contain keys already bound by the endpoint: {', '.join(bound)}"
        )
    if wanted.options:
        raise HTTPException(400, "Session options are not supported by the configured session service.")


def _check(index: int, event: RestoredEvent) -> None:
    """Refuse what only google-adk or a tool may say."""
    said = next(
        (
            words
            for words, is_said in (
                ("long-running tool IDs", bool(event.long_running_tool_ids)),
                ("event actions", any(event.actions.values()) or not event.actions.keys() <= _PLAIN_ACTIONS),
                ("ADK protocol function calls", not _names(event).isdisjoint(_RESERVED)),
            )
            if is_said
        ),
        None,
    )
    if said is not None:
        raise HTTPException(400, f"Session initialization event {index} cannot include {said}.")


def _names(event: RestoredEvent) -> set[str | None]:
    parts = (event.content.parts if event.content else None) or []
    named = [part.function_call or part.function_response for part in parts]
    return {found.name for found in named if found is not None}


def _logged(event: RestoredEvent) -> Event:
    """The event for the log; what has no column stays google-adk's JSON, as its session service has it."""
    wire = event.model_dump(mode="json", by_alias=True, exclude_none=True)
    columns = {"id", "author", "invocationId", "branch", "content", "usageMetadata"}
    said = {name: value for name, value in wire.items() if name not in columns}
    for name in ("author", "invocationId"):
        if not wire[name]:
            said[name] = ""
    error = {"type": event.error_code or "", "message": event.error_message or ""}
    return Event(
        id=event.id,
        invocation_id=event.invocation_id or NOBODY,
        author=event.author or NOBODY,
        branch=event.branch,
        content=wire.get("content"),
        usage=wire.get("usageMetadata"),
        error=error if event.error_code or event.error_message else None,
        meta={META: {**said, "actions": {}}},
        created_at=_moment(event.timestamp),
    )


def _moment(timestamp: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(timestamp, UTC)
    except (OverflowError, ValueError, OSError):
        return None
