"""Calls that wait for a person or the world: what waits, and what came of it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field, StrictStr
from starlette.responses import JSONResponse, Response

from gateway.callers import Caller
from gateway.requests import IdempotencyKey, chosen_id
from gateway.routes.sessions import SESSION
from gateway.services import CallerDep, KeyDep, ServicesDep, names_user
from gateway.shapes import WHOLE, Body, Record, WaitingBody, waiting_json
from perdure.errors import SessionNotFound
from perdure.tasktoken import read_task_token
from perdure.types import JsonObject, SessionKey, given
from workflows.wait_messages import Settled

__all__ = ["router"]

router = APIRouter(tags=["waiting"])

CallId = Annotated[str, Field(min_length=1, max_length=192, examples=["m1:t1.0"])]
TaskToken = Annotated[
    str,
    Field(
        min_length=1, max_length=8_000, description="The tool's `context.task_token`.", examples=["pt1_2Hk…"]
    ),
]
Words = Annotated[StrictStr, Field(max_length=4_000)]


class WaitsBody(Record):
    """What waits in a session."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "waiting": [
                        {
                            "callId": "m1:t1.0",
                            "tool": "transfer",
                            "kind": "approval",
                            "since": "2026-11-18T10:13:20+00:00",
                        }
                    ]
                }
            ]
        }
    )

    waiting: list[WaitingBody]


class WaitingHereBody(WaitingBody):
    """A call that waits, and in which session."""

    app_name: str = Field(examples=["clerk"])
    user_id: str = Field(examples=["ann"])
    session_id: str = Field(examples=["s1"])


class WaitingPageBody(Record):
    """What waits in some of the sessions."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "waiting": [
                        {
                            "appName": "clerk",
                            "userId": "ann",
                            "sessionId": "s1",
                            "callId": "m1:t1.0",
                            "tool": "transfer",
                            "kind": "approval",
                            "since": "2026-11-18T10:13:20+00:00",
                        }
                    ]
                }
            ]
        }
    )

    waiting: list[WaitingHereBody]
    next_cursor: str | None = Field(default=None, description="None after the last page.")


class ApproveBody(Body):
    """A yes."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"callId": "m1:t1.0", "by": "boss"}]})

    call_id: CallId
    arguments: dict[str, Any] | None = Field(
        default=None, description="Call it with these instead of the model's."
    )
    by: Words | None = Field(default=None, description="Who says so; the log keeps it.")


class DeclineBody(Body):
    """A no."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"callId": "m1:t1.0", "reason": "Too much."}]})

    call_id: CallId
    reason: Words | None = Field(default=None, description="What the model is told.")
    by: Words | None = Field(default=None, description="Who says so; the log keeps it.")


class ResultBody(Body):
    """The outcome of a long-running tool: a result or an error."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"callId": "m1:t1.0", "result": {"url": "https://example.com/sea.png"}}]
        }
    )

    call_id: CallId
    result: Any = None
    error: Words | None = Field(default=None, description="What it failed by, instead of a result.")
    by: Words | None = Field(default=None, description="Who says so; the log keeps it.")


class ProgressBody(Body):
    """How far a long-running tool has come."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"callId": "m1:t1.0", "text": "half", "percent": 50}]}
    )

    call_id: CallId
    text: Words | None = None
    percent: Annotated[float, Field(ge=0, le=100), WHOLE] | None = None


class NotifyBody(Body):
    """Something has happened."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "payment:17", "payload": {"amount": 5}}]}
    )

    name: str = Field(min_length=1, max_length=128, description="Of the event.", examples=["payment:17"])
    payload: Any = Field(default=None, description="What the model is to know of it.")
    notification_id: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="Same as the header `Idempotency-Key`."
    )


class CompleteBody(Body):
    """The outcome of a long-running tool, by its task token."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"taskToken": "pt1_2Hk…", "result": {"url": "https://example.com/sea.png"}}]
        }
    )

    task_token: TaskToken
    result: Any = None
    error: Words | None = Field(default=None, description="What it failed by, instead of a result.")
    by: Words | None = Field(default=None, description="Who says so; the log keeps it.")


class TaskProgressBody(Body):
    """How far a long-running tool has come, by its task token."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"taskToken": "pt1_2Hk…", "text": "half", "percent": 50}]}
    )

    task_token: TaskToken
    text: Words | None = None
    percent: Annotated[float, Field(ge=0, le=100), WHOLE] | None = None


class SettledBody(Record):
    """It was taken."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"callId": "m1:t1.0", "decision": "yes"}]})

    call_id: str
    decision: str = Field(description="`yes`, `no`, `changed`, `result`, `failed` or `progress`.")


class NotifiedBody(Record):
    """It was sent."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"notificationId": "n1"}]})

    notification_id: str


@router.get(
    "/waiting",
    operation_id="listAllWaiting",
    summary="The calls that wait, across sessions",
    response_model=WaitingPageBody,
)
@names_user
async def all_waiting(
    services: ServicesDep,
    caller: CallerDep,
    app: Annotated[str | None, Query(description="Only sessions with this agent.", min_length=1)] = None,
    user: Annotated[str | None, Query(description="Only this user's.", min_length=1)] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="How many sessions a page is of, at most.")] = 50,
    cursor: Annotated[str | None, Query(description="The `nextCursor` of the page before.")] = None,
) -> Response:
    """Those that the token reaches. What begins to wait is found within seconds; a page may be empty."""
    apps, users = caller.within(app, user)
    page = await services.runner.waiting_page(apps, users, limit=limit, cursor=cursor)
    told = [{**waiting_json(call), **_place(call.key)} for call in page.calls]
    return JSONResponse({"waiting": told, **given(nextCursor=page.next_cursor)})


@router.get(
    SESSION + "/waiting",
    operation_id="listWaiting",
    summary="The calls that wait for a person or the world",
    response_model=WaitsBody,
)
async def waiting(key: KeyDep, services: ServicesDep) -> Response:
    """With their arguments, and the tickets of long-running tools."""
    try:
        calls = await services.runner.waiting(key)
    except SessionNotFound:
        await services.store.get(key, max_events=0)  # there is one, and it rests
        calls = []
    return JSONResponse({"waiting": [waiting_json(call) for call in calls]})


@router.post(
    SESSION + "/approve", operation_id="approveCall", summary="Say yes to a call", response_model=SettledBody
)
async def approve(
    key: KeyDep, services: ServicesDep, body: ApproveBody, idempotency_key: IdempotencyKey = None
) -> Response:
    """It runs once. Send the message again under its id to wait for the answer."""
    done = await services.runner.approve(
        key, body.call_id, arguments=body.arguments, by=body.by, request_id=idempotency_key
    )
    return _settled(done)


@router.post(
    SESSION + "/decline", operation_id="declineCall", summary="Say no to a call", response_model=SettledBody
)
async def decline(
    key: KeyDep, services: ServicesDep, body: DeclineBody, idempotency_key: IdempotencyKey = None
) -> Response:
    """The model is told, and the turn goes on."""
    return _settled(
        await services.runner.decline(
            key, body.call_id, reason=body.reason, by=body.by, request_id=idempotency_key
        )
    )


@router.post(
    SESSION + "/tool-result",
    operation_id="sendToolResult",
    summary="Give the result of a long-running tool",
    response_model=SettledBody,
)
async def tool_result(
    key: KeyDep, services: ServicesDep, body: ResultBody, idempotency_key: IdempotencyKey = None
) -> Response:
    """The first one counts."""
    done = await services.runner.tool_result(
        key, body.call_id, body.result, error=body.error, by=body.by, request_id=idempotency_key
    )
    return _settled(done)


@router.post(
    SESSION + "/tool-progress",
    operation_id="sendToolProgress",
    summary="Tell how far a long-running tool has come",
    response_model=SettledBody,
)
async def tool_progress(
    key: KeyDep, services: ServicesDep, body: ProgressBody, idempotency_key: IdempotencyKey = None
) -> Response:
    """It is an event of the log, and no prompt shows it."""
    return _settled(
        await services.runner.tool_progress(
            key, body.call_id, body.text, percent=body.percent, request_id=idempotency_key
        )
    )


@router.post(
    "/tasks/complete",
    operation_id="completeTask",
    summary="Give the result of a long-running tool by its task token",
    response_model=SettledBody,
)
@names_user
async def complete_task(
    services: ServicesDep, caller: CallerDep, body: CompleteBody, idempotency_key: IdempotencyKey = None
) -> Response:
    """As `sendToolResult`, for who knows neither session nor call. The caller has to reach the session."""
    key, call_id = _task(caller, body.task_token)
    done = await services.runner.tool_result(
        key, call_id, body.result, error=body.error, by=body.by, request_id=idempotency_key
    )
    return _settled(done)


@router.post(
    "/tasks/progress",
    operation_id="sendTaskProgress",
    summary="Tell how far a long-running tool has come, by its task token",
    response_model=SettledBody,
)
@names_user
async def task_progress(
    services: ServicesDep, caller: CallerDep, body: TaskProgressBody, idempotency_key: IdempotencyKey = None
) -> Response:
    """As `sendToolProgress`, for who knows neither session nor call."""
    key, call_id = _task(caller, body.task_token)
    done = await services.runner.tool_progress(
        key, call_id, body.text, percent=body.percent, request_id=idempotency_key
    )
    return _settled(done)


@router.post(
    SESSION + "/notify", operation_id="notifySession", summary="Tell of an event", response_model=NotifiedBody
)
async def notify(
    key: KeyDep, services: ServicesDep, body: NotifyBody, idempotency_key: IdempotencyKey = None
) -> Response:
    """It wakes the call that waits for it, or is kept until one does."""
    name = chosen_id(idempotency_key, body.notification_id)
    sent = await services.runner.notify(key, body.name, body.payload, notification_id=name)
    return JSONResponse({"notificationId": sent})


def _task(caller: Caller, task_token: str) -> tuple[SessionKey, str]:
    """The call that a task token stands for: the caller has to reach its session as by its path."""
    key, call_id = read_task_token(task_token)
    caller.check(key.app, key.user_id)
    return key, call_id


def _place(key: SessionKey) -> JsonObject:
    return {"appName": key.app, "userId": key.user_id, "sessionId": key.session_id}


def _settled(done: Settled) -> Response:
    return JSONResponse({"callId": done.call_id, "decision": done.decision})
