"""Steering a session: rewind, fork, cancel, end, compact."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field
from starlette.responses import JSONResponse, Response

from gateway.requests import IdempotencyKey, chosen_id, path_of
from gateway.routes.sessions import SESSION, SessionId, UserId
from gateway.services import CallerDep, KeyDep, ServicesDep
from gateway.shapes import Body, EventBody, Record, SessionBody, event_json, session_json
from perdure.errors import InvalidOption, SessionExists, SessionNotFound
from perdure.types import JsonObject

__all__ = ["router"]

router = APIRouter(tags=["steering"])

InvocationId = Annotated[str, Field(min_length=1, max_length=128, examples=["m1"])]
RequestId = Annotated[
    str, Field(min_length=1, max_length=128, description="Same as the header `Idempotency-Key`.")
]


class RewindBody(Body):
    """Where to rewind to."""

    before: InvocationId = Field(description="The first invocation to undo; a rewind's own id is redo.")
    request_id: RequestId | None = None


class RewoundBody(Record):
    """A rewind that was done."""

    request_id: str = Field(description="Of the rewind: rewinding to before it is redo.")
    seq: int = Field(description="Of the event that records it.")
    session: SessionBody


class ForkBody(Body):
    """What to copy, and where to."""

    session_id: SessionId | None = Field(
        default=None, description="The fork's id; left out: the `Idempotency-Key`, or a new id."
    )
    user_id: UserId | None = Field(default=None, description="Whose it is; left out: the same user's.")
    before: InvocationId | None = Field(
        default=None, description="Copy what was there before this live invocation."
    )


class CancelBody(Body):
    """What to cancel."""

    invocation_id: InvocationId | None = Field(
        default=None, description="Only this turn, whether it runs, or has not begun: then it does not."
    )


class EndBody(Body):
    """How the request is named."""

    request_id: RequestId | None = None


def _named(body: EndBody | None = None, idempotency_key: IdempotencyKey = None) -> str:
    """How a request that needs no body is named."""
    return chosen_id(idempotency_key, body.request_id if body else None)


RequestName = Annotated[str, Depends(_named)]


class CompactedBody(Record):
    """What came of a request to sum up."""

    seq: int | None = Field(default=None, description="Of the summary; none where there was nothing to do.")
    summary: EventBody | None = None


@router.post(
    SESSION + "/rewind",
    operation_id="rewindSession",
    summary="Make a session what it was before an invocation",
    response_model=RewoundBody,
)
async def rewind(
    key: KeyDep, services: ServicesDep, body: RewindBody, idempotency_key: IdempotencyKey = None
) -> Response:
    """A running turn is cancelled first. Nothing in the log is deleted; rewinding a rewind is redo."""
    request_id = chosen_id(idempotency_key, body.request_id)
    done = await services.runner.rewind(key, body.before, request_id=request_id)
    session = await services.store.get(key, max_events=0)
    return JSONResponse({"requestId": done.request_id, "seq": done.seq, "session": session_json(session)})


@router.post(
    SESSION + "/fork",
    operation_id="forkSession",
    summary="Copy a session, or what it was, into a new one",
    status_code=201,
    response_model=SessionBody,
    responses={200: {"model": SessionBody, "description": "It was forked before, under the same key."}},
)
async def fork(
    key: KeyDep,
    services: ServicesDep,
    caller: CallerDep,
    body: ForkBody,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The source stays as it is. The fork's `forkedFrom` says what it came from."""
    user = body.user_id or key.user_id
    caller.check(key.app, user)
    new = replace(key, user_id=user, session_id=body.session_id or chosen_id(idempotency_key, None))
    if "/" in new.session_id:
        raise InvalidOption("a session's id has a slash in it, and no path could name it; leave it out")
    headers = {"location": path_of(new)}
    try:
        session = await services.store.fork(key, new, before=body.before)
    except SessionExists:
        if idempotency_key is None:
            raise
        there = await services.store.get(new, max_events=0)
        origin = there.forked_from or {}
        if (origin.get("session"), origin.get("before")) != (str(key), body.before):
            raise
        return JSONResponse(session_json(there), headers=headers)
    return JSONResponse(session_json(session), status_code=201, headers=headers)


@router.post(
    SESSION + "/cancel",
    operation_id="cancelTurn",
    summary="End the running turn",
    status_code=204,
)
async def cancel(key: KeyDep, services: ServicesDep, body: CancelBody | None = None) -> Response:
    """What was committed stays, marked as interrupted. Where no turn runs, nothing happens."""
    try:
        await services.runner.cancel(key, body.invocation_id if body else None)
    except SessionNotFound:
        await services.store.get(key, max_events=0)  # there is one, and it rests
    return Response(status_code=204)


@router.post(
    SESSION + "/end",
    operation_id="endSession",
    summary="Close a session; gives its final state",
    response_model=SessionBody,
)
async def end(key: KeyDep, services: ServicesDep, request_id: RequestName) -> Response:
    """Messages before it are done first. Ending it twice is the same as once."""
    return JSONResponse(session_json(await services.runner.end(key, request_id=request_id)))


@router.post(
    SESSION + "/compact",
    operation_id="compactSession",
    summary="Sum up what has ended so far",
    response_model=CompactedBody,
)
async def compact(key: KeyDep, services: ServicesDep, request_id: RequestName) -> Response:
    """Also where the agent's policy would not yet. The events stay in the log; prompts get the summary."""
    seq = await services.runner.compact(key, request_id=request_id)
    told: JsonObject = {}
    if seq is not None:
        [summary] = await services.store.log(key, after=seq - 1, limit=1)
        told = {"seq": seq, "summary": event_json(summary)}
    return JSONResponse(told)
