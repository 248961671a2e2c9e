"""Messages: a turn of a session, waited for or not."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field, StrictBool
from starlette.responses import JSONResponse, Response

from gateway.requests import IdempotencyKey, Preferences, PreferHeader, chosen_id, path_of
from gateway.runner import Said
from gateway.services import CallerDep, KeyDep, Services, ServicesDep, WatchDep
from gateway.shapes import Body, Record, SpentBody, WaitingBody, answer_json
from gateway.sse import MEDIA_TYPE, TURN_STREAM, turn_stream, wants_stream
from perdure.errors import SessionNotFound
from perdure.types import During, SessionKey

__all__ = ["router"]

router = APIRouter(tags=["messages"])

MESSAGES = "/apps/{app}/users/{user}/sessions/{session}/messages"


class MessageBody(Body):
    """What the user says: ``text``, or ``content`` for more than text."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "Add one."}]})

    text: str | None = None
    content: dict[str, Any] | None = Field(default=None, description="A genai `Content`.")
    message_id: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="Same as the header `Idempotency-Key`."
    )
    state_delta: dict[str, Any] | None = Field(
        default=None, description="State that is set with the message; null removes a key."
    )
    reopen: StrictBool = Field(default=False, description="Open the session again if it was ended.")
    during: During = Field(
        default="queue",
        description="What becomes of it where a turn runs: it waits for its end, joins its next step, or "
        "ends it.",
    )
    wait: StrictBool = Field(default=True, description="False is the same as `Prefer: respond-async`.")


class FailureBody(Record):
    """Why a turn failed."""

    type: str
    message: str


class AnswerBody(Record):
    """How a turn ended, or that it waits."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"invocationId": "m1", "status": "answered", "seq": 4, "text": "That makes 1."}]
        }
    )

    invocation_id: str = Field(description="The turn: of the message, or the one that it has joined.")
    status: str = Field(description="`answered`, `failed`, `cancelled` or `waiting`.")
    seq: int = Field(description="Of the event that ended it; 0 where it waits.")
    text: str
    output: Any = Field(default=None, description="What the text is, where the agent answers in JSON.")
    spent: SpentBody | None = Field(default=None, description="By the turn; not where it waits.")
    failure: FailureBody | None = None
    waiting: list[WaitingBody] | None = Field(default=None, description="The calls that it waits for.")


class AcceptedBody(Record):
    """A message that was taken, and whose turn goes on."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"invocationId": "m1", "status": "accepted"}]})

    invocation_id: str
    status: str


@router.post(
    MESSAGES,
    operation_id="sendMessage",
    summary="Send a message; starts the session if there is none",
    response_model=AnswerBody,
    responses={
        200: {"description": "The answer, or a stream of the turn.", "content": {MEDIA_TYPE: TURN_STREAM}},
        202: {"model": AcceptedBody, "description": "Taken; its turn goes on."},
    },
)
async def send_message(
    key: KeyDep,
    services: ServicesDep,
    caller: CallerDep,
    look: WatchDep,
    request: Request,
    body: MessageBody,
    idempotency_key: IdempotencyKey = None,
    prefer: PreferHeader = None,
) -> Response:
    """One turn. It goes on whatever becomes of the request; sent again under its id, it gives its answer.

    With ``Accept: text/event-stream`` what the turn says is streamed, as by ``/events``: pieces of
    answers, its events, and ``event: answer`` last, with what would have been the body; or ``event:
    problem``, if it fails once the stream has begun.
    """
    services.agents.get(key.app)
    caller.check_state(key.app, body.state_delta)
    preferences = Preferences(prefer)
    message_id = chosen_id(idempotency_key, body.message_id)
    said: Said = {
        "text": body.text,
        "content": body.content,
        "message_id": message_id,
        "reopen": body.reopen,
        "state": body.state_delta,
        "during": body.during,
    }
    if wants_stream(request):
        return await turn_stream(services, key, request.url.path, look, **said)
    no_wait = preferences.respond_async or not body.wait
    head = await _head(services, key) if no_wait or preferences.wait is not None else 0
    if no_wait and preferences.wait is None:
        await services.runner.message(key, **said)
        return _accepted(key, message_id, head)
    asking = services.streams.asking.ask(services.runner, key, said)
    done, _ = await asyncio.wait([asking], timeout=preferences.wait)
    return JSONResponse(answer_json(asking.result())) if done else _accepted(key, message_id, head)


async def _head(services: Services, key: SessionKey) -> int:
    """Where the log ends before the message."""
    try:
        return (await services.store.get(key, max_events=0)).head
    except SessionNotFound:
        return 0


def _accepted(key: SessionKey, message_id: str, head: int) -> Response:
    """Where the events of the turn are going to be."""
    return JSONResponse(
        {"invocationId": message_id, "status": "accepted"},
        status_code=202,
        headers={"location": f"{path_of(key)}/events?after={head}", "preference-applied": "respond-async"},
    )
