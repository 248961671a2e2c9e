"""Looking at a session: its status, its prompt, its past."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import JSONResponse, Response

from activities.model_request import body_of, full_request
from activities.prompt import pieces_of
from gateway.held_up import Work
from gateway.routes.schedules import ScheduledBody, schedule_json
from gateway.routes.sessions import SESSION
from gateway.services import KeyDep, ServicesDep
from gateway.shapes import (
    ArtifactBody,
    Record,
    SessionBody,
    WaitingBody,
    artifact_json,
    session_json,
    waiting_json,
)
from perdure.errors import PerdureError, SessionNotFound, code_of
from perdure.transfer import acting, keys_of
from perdure.types import JsonObject, given
from workflows.wait_messages import AskedAgent

__all__ = ["router"]

router = APIRouter(tags=["looking"])


class AgentBody(Record):
    """An agent that a call has asked, in a session of its own."""

    session: str = Field(description="Its id; the app and the user are the same.")
    call_id: str = Field(examples=["m1:t1.0"])
    tool: str
    since: datetime
    waiting: list[WaitingBody] = Field(description="What it waits for; empty while it works.")
    ending: bool = Field(description="Its call was cancelled, and it is being seen to its end.")


class WorkBody(Record):
    """What the session's workflow is doing."""

    status: str = Field(examples=["open"])
    doing: str | None = Field(default=None, description="What it waits for, in words.")
    invocation_id: str | None = Field(default=None, description="The turn that runs.")
    queued: int = Field(description="Messages that wait for their turn.")
    turns: int
    model_calls: int
    tool_calls: int
    tokens: int
    usd: float = Field(description="What they cost, where prices are known.")
    turn_tokens: int = Field(description="Of the turn that runs, so far.")
    turn_usd: float
    warning: str | None = Field(default=None, description="What of the agent's budget is nearly spent.")
    budget: dict[str, float] | None = Field(
        default=None,
        description="What that allows: `tokens`, `money` and `steps` of the session, `turn_money`.",
    )
    rewinds: int
    compacting: bool
    agents: list[AgentBody] = Field(description="The agents that it has asked, and that are not over.")
    last_error: dict[str, Any] | None = None
    held_up: dict[str, Any] | None = Field(
        default=None, description="What the last try of the running step met; it is tried again by itself."
    )


class StatusBody(Record):
    """A session with its state, and what it is doing."""

    session: SessionBody
    work: WorkBody | None = Field(default=None, description="None where no workflow is open: it rests.")
    schedules: list[ScheduledBody] = Field(description="What it is sent by the clock.")


class ContextBody(Record):
    """What the model would get now, but for the message that will be at its end."""

    head: int
    summary_seq: int | None = Field(default=None, description="The seq of the summary it begins with.")
    request: dict[str, Any] | None = Field(
        default=None, description="The request to the model as it goes out."
    )
    contents: list[dict[str, Any]] = Field(description="The conversation in it.")
    problem: dict[str, Any] | None = Field(
        default=None, description="`code` and `detail` of why there is no request."
    )
    left_out: list[str] | None = Field(
        default=None,
        description="The MCP servers whose tools are left out: nobody in the gateway's process knows them.",
    )


class MomentBody(Record):
    """A session as it was."""

    session: SessionBody
    artifacts: list[ArtifactBody]


@router.get(
    SESSION + "/status",
    operation_id="sessionStatus",
    summary="The session with its state, what it is doing now, and its schedules",
    response_model=StatusBody,
)
async def status(key: KeyDep, services: ServicesDep) -> Response:
    """The session is read from the database; what it is doing is asked of its workflow."""
    session = await services.store.get(key, max_events=0)
    scheduled = await services.runner.schedules(key)
    told: JsonObject = {
        "session": session_json(session),
        "schedules": [schedule_json(each) for each in scheduled],
    }
    with suppress(SessionNotFound):  # no workflow is open
        told["work"] = _work(await services.runner.status(key))
    return JSONResponse(told)


@router.get(
    SESSION + "/snapshot",
    operation_id="sessionSnapshot",
    summary="The session with its state, and the last of its live events if they are asked for",
    response_model=SessionBody,
)
async def snapshot(
    key: KeyDep,
    services: ServicesDep,
    max_events: Annotated[
        int, Query(alias="maxEvents", ge=0, le=2**53, description="How many of its last live events.")
    ] = 0,
) -> Response:
    """As one moment saw it, from the database alone: also while Temporal is away."""
    session = await services.store.get(key, max_events=max_events)
    return JSONResponse(session_json(session, events=session.events if max_events else None))


@router.get(
    SESSION + "/context",
    operation_id="sessionContext",
    summary="What the model would get now",
    response_model=ContextBody,
)
async def context(key: KeyDep, services: ServicesDep) -> Response:
    """Made by the code that the worker makes it with."""
    agent = services.agents.of(key)
    found = await services.store.context(key, state_keys=keys_of(agent))
    told: JsonObject = {"head": found.session.head}
    if found.summary is not None:
        told["summarySeq"] = found.summary.seq
    try:
        equipped, left_out = services.servers.known(acting(agent, found.session.state, begins=True))
        if left_out:
            told["leftOut"] = left_out
        request = await full_request(services.store, key, equipped, found)
        told |= {"contents": list(request.contents), "request": await body_of(request)}
    except PerdureError as error:
        contents = [piece.content for piece in pieces_of(found.summary, found.events)]
        told |= {"contents": contents, "problem": {"code": code_of(type(error)), "detail": str(error)}}
    return JSONResponse(told)


@router.get(
    SESSION + "/at/{invocation:path}",
    operation_id="sessionAt",
    summary="The session as it was just before an invocation",
    response_model=MomentBody,
)
async def at(
    key: KeyDep,
    services: ServicesDep,
    invocation: Annotated[str, Path(description="A live invocation.", examples=["m1"])],
    max_events: Annotated[
        int | None, Query(alias="maxEvents", ge=0, le=2**53, description="Only the last so many.")
    ] = None,
) -> Response:
    """What a rewind to it would bring back; nothing is changed."""
    session = await services.store.get(key, before=invocation, max_events=max_events)
    artifacts = await services.store.list_artifacts(key, before=invocation)
    return JSONResponse(
        {
            "session": session_json(session, events=session.events),
            "artifacts": [artifact_json(artifact) for artifact in artifacts],
        }
    )


def _agent(agent: AskedAgent) -> JsonObject:
    return {
        "session": agent.session,
        "callId": agent.call_id,
        "tool": agent.tool,
        "since": agent.since.isoformat(),
        "waiting": [waiting_json(each) for each in agent.waiting],
        "ending": agent.ending,
    }


def _work(status: Work) -> JsonObject:
    told: JsonObject = {
        "status": status.status,
        "doing": status.doing,
        "invocationId": status.invocation_id,
        "queued": status.queued,
        "turns": status.turns,
        "modelCalls": status.model_calls,
        "toolCalls": status.tool_calls,
        "tokens": status.tokens,
        "usd": status.usd,
        "turnTokens": status.turn_tokens,
        "turnUsd": status.turn_usd,
        "warning": status.warning,
        "budget": status.budget,
        "rewinds": status.rewinds,
        "compacting": status.compacting,
        "agents": [_agent(each) for each in status.agents],
    }
    if status.last_error is not None:
        told["lastError"] = status.last_error.model_dump()
    if status.held_up is not None:
        told["heldUp"] = status.held_up.model_dump()
    return given(**told)
