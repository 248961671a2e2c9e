"""Turns as google-adk's clients start them: ``/run`` and ``/run_sse``.

A run is a message to the session, and its events are those of the turn, the user's own left
out. The turn does not depend on who waits for it: a client that goes away leaves it running,
and one that sends the same message again under its ``invocationId`` gets the same events.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from fastapi import HTTPException

from gateway.adk_answers import responses_of, settle
from gateway.adk_models import Run
from gateway.adk_sessions import must_find
from gateway.callers import Caller
from gateway.services import Services
from integrations.adk_json.events import is_shown, state_to_store
from integrations.adk_json.owners import key_of
from perdure.types import Event, Json, JsonObject, SessionKey
from storage.sessions import SessionStore
from storage.turns import is_final

__all__ = ["Turn", "ended", "events_of", "is_of", "prepare"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """What a run comes down to."""

    key: SessionKey
    invocation_id: str
    content: JsonObject
    state: Mapping[str, Json]
    repeated: bool = False
    """The message is in the log already, and this only asks for its events."""
    after: int = 0
    """With that: only for those behind this seq."""
    asked: Sequence[Event] = ()
    """With that: events of the model before, whose calls those are about."""


async def prepare(services: Services, caller: Caller, run: Run) -> Turn:
    """The turn that a request asks for.

    Raises:
        HTTPException: 400 for a request without sense, 404 where there is no such app or session.
        Forbidden: the caller does not reach the user, or may not set what the app shares.
    """
    if not run.app_name:
        raise HTTPException(400, "app_name is required")
    caller.check(run.app_name, run.user_id)
    caller.check_state(run.app_name, run.state_delta)
    if run.app_name not in services.agents:
        raise HTTPException(404, f"Agent not found: {run.app_name!r}.")
    key = key_of(run.app_name, run.user_id, run.session_id)
    try:
        await must_find(services.store, key)
    except HTTPException:
        raise HTTPException(404, f"Session not found: {run.session_id}") from None
    if responses := responses_of(run):
        answered = await settle(services, key, responses, run.user_id)
        turn = await _again(services.store, key, answered.invocation_id)
        return replace(turn, after=answered.after, asked=answered.asked)
    content = _content(run)
    if content is None:
        if run.invocation_id is None:
            raise HTTPException(
                400,
                "Running an agent requires a new_message, or the invocation_id of a previous invocation.",
            )
        return await _again(services.store, key, run.invocation_id)
    return Turn(
        key=key,
        invocation_id=run.invocation_id or f"e-{uuid.uuid4()}",
        content=content,
        state=state_to_store(run.state_delta or {}),
    )


async def events_of(store: SessionStore, turn: Turn) -> list[Event]:
    """The live events of a turn that google-adk's client is given: all but the user's."""
    said = await store.event(turn.key, f"{turn.invocation_id}:user")
    log = await store.log(turn.key, after=max(said.seq if said else 0, turn.after))
    return [event for event in log if event.live and is_of(event, turn)]


async def ended(store: SessionStore, turn: Turn) -> list[Event] | None:
    """The events of a turn that is only asked for again, if it has ended: nothing is sent then."""
    events = await events_of(store, turn) if turn.repeated else []
    return events if any(is_final(event) for event in events) else None


def is_of(event: Event, turn: Turn) -> bool:
    """Whether an event belongs into the answer to a run."""
    ours = event.invocation_id == turn.invocation_id and event.id != f"{turn.invocation_id}:user"
    return ours and event.seq > turn.after and is_shown(event)


def _content(run: Run) -> JsonObject | None:
    parts = (run.new_message.parts if run.new_message else None) or []
    if any(part.function_call for part in parts):
        raise HTTPException(400, "User message cannot contain function calls.")
    if run.new_message is None or not parts:
        return None
    content = run.new_message.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {**content, "role": "user"}


async def _again(store: SessionStore, key: SessionKey, invocation_id: str) -> Turn:
    said = await store.event(key, f"{invocation_id}:user")
    if said is None or said.content is None:
        raise HTTPException(404, f"Invocation not found: {invocation_id}")
    return Turn(
        key=key,
        invocation_id=invocation_id,
        content=said.content,
        state=said.state_delta,
        repeated=True,
    )
