"""What google-adk's clients answer calls that wait by: ``functionResponse`` parts of a message.

That of a long-running call is its result, that of an ``adk_request_confirmation`` a person's yes or no.
Such a message is no turn of its own: the turn that waits goes on, and what it says then is the run's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import HTTPException
from google.genai import types
from pydantic import BaseModel, ConfigDict, StrictBool

from activities.prompt import calls_of, model_event_id
from activities.waits import approval_id_of, parts_of_call_id
from gateway.adk_events import call_id
from gateway.adk_models import Run
from gateway.adk_waits import CONFIRMATION, confirmation_id
from gateway.services import Services
from gateway.waiting_lists import WaitingCall
from perdure.errors import SessionNotFound
from perdure.types import Event, Json, JsonObject, SessionKey
from storage.sessions import SessionStore

__all__ = ["Answered", "responses_of", "settle"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """The turn that goes on."""

    invocation_id: str
    after: int
    """The seq of the last event before that."""
    asked: Sequence[Event]
    """The events of the model that asked for what was answered."""


class _Confirmation(BaseModel):
    """google-adk's ``ToolConfirmation``."""

    model_config = ConfigDict(extra="forbid")

    hint: str = ""
    confirmed: StrictBool = False
    payload: Json = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Open:
    """A call that waits, and the ids by which those clients know it."""

    call: WaitingCall
    asked: Event
    own_id: str
    """The model's call's."""
    asking_id: str
    """That of the call by which a person is asked of it."""


def responses_of(run: Run) -> list[types.FunctionResponse]:
    """The responses in a message.

    Raises:
        HTTPException: 400, there is something beside them, or one without an id.
    """
    parts = (run.new_message.parts if run.new_message else None) or []
    found = [part.function_response for part in parts if part.function_response]
    if not found:
        return []
    if len(found) < len(parts):
        raise HTTPException(
            400,
            "Message cannot contain both function responses and other parts. "
            "Function responses resume an existing invocation while text starts a new one.",
        )
    if run.state_delta:
        raise HTTPException(400, "A message of function responses takes no stateDelta; send it with another.")
    ids = [response.id for response in found]
    if not all(ids) or len(set(ids)) < len(ids):
        raise HTTPException(400, "Function response id is required to resume an invocation, each one once.")
    return found


async def settle(
    services: Services, key: SessionKey, responses: Sequence[types.FunctionResponse], by: str
) -> Answered:
    """Hand the responses to the calls that wait for them: all of them, or none where one makes no sense.

    Raises:
        HTTPException: 400, a response to no call, or none that its call could have.
        AlreadySettled: the call has had its answer.
    """
    there = await _open_calls(services, key)
    taken = [(response, _match(there, response)) for response in responses]
    checked = [(found, _answer(found, response)) for response, found in taken]
    session = await services.store.get(key, max_events=0)
    for found, answer in checked:
        call = found.call.call_id
        if not isinstance(answer, _Confirmation):
            await services.runner.tool_result(key, call, answer, by=by)
        elif answer.confirmed:
            await services.runner.approve(key, call, by=by)
        else:
            await services.runner.decline(key, call, by=by)
    [(first, _), *_] = checked
    return Answered(
        invocation_id=first.asked.invocation_id,
        after=session.head,
        asked=[found.asked for found, _ in checked],
    )


async def _open_calls(services: Services, key: SessionKey) -> list[_Open]:
    try:
        waiting = await services.runner.waiting(key)
    except SessionNotFound:  # it rests
        return []
    found = [await _known(services.store, key, call) for call in waiting]
    return [each for each in found if each is not None]


async def _known(store: SessionStore, key: SessionKey, call: WaitingCall) -> _Open | None:
    invocation_id, step, index = parts_of_call_id(call.call_id)
    asked = await store.event(key, model_event_id(invocation_id, step))
    if asked is None:
        return None
    return _Open(
        call=call,
        asked=asked,
        own_id=call_id(asked, index, calls_of(asked)[index]),
        asking_id=confirmation_id(approval_id_of(invocation_id, step, index)),
    )


def _match(there: Sequence[_Open], response: types.FunctionResponse) -> _Open:
    """What waits for the response.

    Raises:
        HTTPException: 400, nothing does, or it takes an answer of another kind.
    """
    for each in there:
        if each.call.kind == "approval" and response.id == each.asking_id:
            return each
        if response.id == each.own_id:
            if each.call.kind == "result":
                return each
            how = (
                f"it is for a person to approve of: answer {CONFIRMATION} {each.asking_id!r}"
                if each.call.kind == "approval"
                else "a notification or its time ends that, and no function response"
            )
            raise HTTPException(400, f"The call {response.id!r} of {each.call.tool} waits, and {how}.")
    waits = ", ".join(_expected(each) for each in there) or "nothing waits in this session"
    raise HTTPException(
        400, f"Function call not found for function response ids: {[response.id]}. What waits: {waits}."
    )


def _expected(each: _Open) -> str:
    return each.asking_id if each.call.kind == "approval" else each.own_id


def _answer(found: _Open, response: types.FunctionResponse) -> JsonObject | _Confirmation:
    """What the response says.

    Raises:
        HTTPException: 400, it cannot be taken.
    """
    if response.parts:
        raise HTTPException(
            400, "A function response with parts is not taken; save what is large as an artifact."
        )
    said: JsonObject = response.response or {}
    if found.call.kind == "result":
        return said
    try:
        # How some of google-adk's clients wrap it.
        plain = json.loads(said["response"]) if said.keys() == {"response"} else said
        confirmation = _Confirmation.model_validate(plain)
    except (TypeError, ValueError, RecursionError):  # pydantic's own errors are such, too
        raise HTTPException(
            400, f'The response to {CONFIRMATION} is no {{"confirmed": true}} or {{"confirmed": false}}.'
        ) from None
    if confirmation.payload is not None:
        raise HTTPException(
            400, "A confirmation takes no payload here; say yes with other arguments by POST …/approve."
        )
    return confirmation
