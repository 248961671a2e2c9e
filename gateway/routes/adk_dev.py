"""What google-adk's web UI asks ``adk web`` for besides: tracing, evaluations, graphs, the builder.

It asks for some of it at its start and with each session. Where there is nothing to show, that
is what it is told. What changes files of an agent, or evaluates one, is not done here: 501.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Match, Route

from gateway.adk_route import ERRORS, AdkRoute
from gateway.services import AppPath, ServicesDep, SessionPath, UserPath, names_user

__all__ = ["router"]

router = APIRouter(tags=["google-adk's web UI"], route_class=AdkRoute, responses=ERRORS)
DEV = "/dev/apps/{app}"

EventPath = Annotated[str, Path(description="The event's id.", examples=["e1"])]


@router.get(
    "/config/telemetry",
    summary="Whether the web UI tells Google how it is used",
    operation_id="adkTelemetry",
    response_model=dict[str, bool],
)
@names_user
async def telemetry() -> Response:
    """It does not. Without an answer it would ask at each start."""
    return JSONResponse({"telemetry": False})


@router.get(
    f"{DEV}/debug/trace/session/{{session}}",
    summary="A session's spans",
    operation_id="adkSessionTrace",
    response_model=list[dict[str, Any]],
)
@names_user
async def session_trace(app: AppPath, session: SessionPath) -> Response:
    """None: spans go to the collector of OpenTelemetry, and Temporal's UI shows a session's steps."""
    return JSONResponse([])


@router.get(
    f"{DEV}/debug/trace/{{event}}",
    summary="An event's span",
    operation_id="adkEventTrace",
    response_model=None,
)
@names_user
async def event_trace(app: AppPath, event: EventPath) -> Response:
    """None, as above."""
    raise HTTPException(404, "Trace not found")


@router.get(
    f"{DEV}/users/{{user}}/sessions/{{session}}/events/{{event}}/graph",
    summary="The agents that took part in an event",
    operation_id="adkEventGraph",
    response_model=dict[str, Any],
)
async def event_graph(app: AppPath, user: UserPath, session: SessionPath, event: EventPath) -> Response:
    """No graph."""
    return JSONResponse({})


@router.get(
    f"{DEV}/build_graph",
    summary="An app's structure",
    operation_id="adkBuildGraph",
    response_model=dict[str, Any],
)
@names_user
async def build_graph(app: AppPath, services: ServicesDep) -> Response:
    """The agent and its tools by name."""
    if app not in services.agents:
        raise HTTPException(404, f"Agent not found: {app!r}.")
    agent = services.agents.get(app)
    root = {
        "name": agent.name,
        "description": agent.description,
        "sub_agents": [],
        "model": agent.model,
        "tools": [{"name": tool.name, "type": "tool"} for tool in agent.tools],
        "type": "agent",
    }
    return JSONResponse({"name": agent.name, "root_agent": root})


@router.get(
    f"{DEV}/build_graph_image",
    summary="An app's graph",
    operation_id="adkBuildGraphImage",
    response_model=dict[str, Any],
)
@names_user
async def build_graph_image(app: AppPath) -> Response:
    """No graph."""
    return JSONResponse({})


@router.get(
    f"{DEV}/graph", summary="An app's graph, in DOT", operation_id="adkGraph", response_model=dict[str, Any]
)
@names_user
async def graph(app: AppPath) -> Response:
    """No graph."""
    return JSONResponse({})


@router.get(
    f"{DEV}/builder",
    summary="An app's YAML",
    operation_id="adkBuilder",
    response_class=PlainTextResponse,
)
@names_user
async def builder(app: AppPath) -> Response:
    """Empty, as for every agent that is written in Python."""
    return PlainTextResponse("")


def _lists(path: str, name: str | None, operation: str, summary: str) -> None:
    """A list that is always empty, bare or under a name."""
    empty: Any = [] if name is None else {name: []}

    @router.get(
        f"{DEV}/{path}",
        summary=summary,
        operation_id=operation,
        response_model=list[Any] if name is None else dict[str, list[Any]],
    )
    @names_user
    async def nothing(app: AppPath) -> Response:
        """There are none."""
        return JSONResponse(empty)


_lists("eval_sets", None, "adkEvalSets", "Evaluation sets")
_lists("eval-sets", "evalSetIds", "adkEvalSetIds", "Evaluation sets")
_lists("eval_results", None, "adkEvalResults", "Results of evaluations")
_lists("eval-results", "evalResultIds", "adkEvalResultIds", "Results of evaluations")
_lists("metrics-info", "metricsInfo", "adkMetricsInfo", "Metrics of evaluations")
_lists("tests", None, "adkTests", "Recorded tests")


@router.api_route(
    f"{DEV}/{{rest:path}}",
    methods=["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"],
    include_in_schema=False,
)
@names_user
async def not_here(app: AppPath, rest: str, request: Request) -> Response:
    """Whatever else there is of ``adk web``; what is only read here cannot be changed."""
    there = [route for route in router.routes if isinstance(route, Route) and route.endpoint is not not_here]
    allowed = {
        method
        for route in there
        if route.matches(request.scope)[0] is not Match.NONE
        for method in route.methods or ()
    }
    if allowed:
        raise HTTPException(405, headers={"allow": ", ".join(sorted(allowed))})
    raise HTTPException(501, f"{rest} of `adk web` is not served by Perdure's gateway.")
