"""google-adk's API: apps and sessions, as ``adk api_server`` has them.

``docs/adk.md`` tells where the answers differ from those of google-adk's own server, and why.
``PATCH`` of a session is in ``sessions.py``: it takes more than google-adk's.
"""

from __future__ import annotations

import platform
from typing import Annotated, Any

from fastapi import APIRouter, Body, HTTPException, Query
from fastapi.responses import JSONResponse, Response
from google.genai import types

from gateway import adk_sessions
from gateway.adk_models import (
    AdkSession,
    AppInfo,
    Apps,
    CreateSession,
    Detail,
    FinalizeCredentials,
    UpdateMemory,
    Version,
)
from gateway.adk_route import ERRORS, AdkRoute
from gateway.adk_sessions import session_json
from gateway.services import AppPath, CallerDep, KeyDep, ServicesDep, UserPath, names_user
from perdure import __version__
from perdure.agent import Agent
from perdure.tool import Tool
from perdure.types import JsonObject, SessionKey

__all__ = ["router", "session_json"]

router = APIRouter(tags=["google-adk"], route_class=AdkRoute, responses=ERRORS)
SESSIONS = "/apps/{app}/users/{user}/sessions"


@router.get("/version", summary="Which release answers", operation_id="adkVersion", response_model=Version)
@names_user
async def version() -> Response:
    """Perdure's version, in the form of google-adk's."""
    return JSONResponse(
        {"version": __version__, "language": "python", "language_version": platform.python_version()}
    )


@router.get("/list-apps", summary="The apps", operation_id="adkListApps", response_model=list[str] | Apps)
@names_user
async def list_apps(
    services: ServicesDep,
    caller: CallerDep,
    detailed: Annotated[bool, Query(description="Return detailed app information")] = False,
) -> Response:
    """The agents that are served here and that the token reaches."""
    agents = [agent for name, agent in sorted(services.agents.agents.items()) if caller.reaches(name)]
    if not detailed:
        return JSONResponse([agent.name for agent in agents])
    return JSONResponse({"apps": [{**_about(agent), "agents": None} for agent in agents]})


@router.get(
    "/apps/{app}/app-info", summary="An app's agent", operation_id="adkAppInfo", response_model=AppInfo
)
async def app_info(app: AppPath, services: ServicesDep) -> Response:
    """The agent's description, instruction and tools."""
    if app not in services.agents:
        raise HTTPException(404, f"Agent not found: {app!r}.")
    agent = services.agents.get(app)
    tools = [{"functionDeclarations": [_declared(tool)]} for tool in agent.tools]
    described = {
        "name": agent.name,
        "description": agent.description,
        "instruction": agent.instruction,
        "tools": tools,
        "sub_agents": [],
    }
    return JSONResponse({**_about(agent), "agents": {agent.name: described}})


@router.get(
    SESSIONS, summary="A user's sessions", operation_id="adkListSessions", response_model=list[AdkSession]
)
async def list_sessions(app: AppPath, user: UserPath, services: ServicesDep) -> Response:
    """All of them, oldest update first, with their state and without their events."""
    return JSONResponse(await adk_sessions.read_all(services.store, app, user))


@router.post(SESSIONS, summary="Create a session", operation_id="adkCreateSession", response_model=AdkSession)
async def create_session(
    app: AppPath,
    user: UserPath,
    services: ServicesDep,
    caller: CallerDep,
    wanted: CreateSession | None = None,
) -> Response:
    """Create a session, under an id of its own if none is given."""
    return JSONResponse(await _create(services, caller, app, user, wanted or CreateSession()))


@router.get(
    f"{SESSIONS}/{{session}}", summary="A session", operation_id="adkGetSession", response_model=AdkSession
)
async def get_session(key: KeyDep, services: ServicesDep) -> Response:
    """The session with its state and the live events of its log."""
    return JSONResponse(await adk_sessions.read(services.store, key))


@router.post(
    f"{SESSIONS}/{{session}}",
    summary="Create a session under an id",
    operation_id="adkCreateSessionWithId",
    response_model=AdkSession,
    deprecated=True,
)
async def create_session_with_id(
    key: KeyDep,
    services: ServicesDep,
    caller: CallerDep,
    state: Annotated[dict[str, Any] | None, Body(description="Its initial state.")] = None,
) -> Response:
    """As without the id in the path; the body is the initial state."""
    wanted = CreateSession(session_id=key.session_id, state=state)
    return JSONResponse(await _create(services, caller, key.app, key.user_id, wanted))


@router.delete(
    f"{SESSIONS}/{{session}}",
    summary="Delete a session",
    operation_id="adkDeleteSession",
    response_model=None,
)
async def delete_session(key: KeyDep, services: ServicesDep) -> Response:
    """Delete a session; no error if there is none. A running turn is cancelled."""
    await services.runner.delete(key)
    return JSONResponse(None)


@router.patch(
    "/apps/{app}/users/{user}/memory",
    summary="Add a session to the memory service",
    operation_id="adkUpdateMemory",
    response_model=None,
)
async def update_memory(
    app: AppPath, user: UserPath, services: ServicesDep, wanted: UpdateMemory
) -> Response:
    """Put what is live of a session into the user's memory; again, and it adds what came since."""
    key = SessionKey(app=app, user_id=user, session_id=wanted.session_id)
    await adk_sessions.must_find(services.store, key)
    await services.runner.remember(key)
    return JSONResponse(None)


@router.post(
    "/agent-identity/finalize",
    summary="Finish a connector's consent",
    operation_id="adkFinalizeCredentials",
    response_model=None,
    responses={501: {"model": Detail, "description": "Always: there are no such connectors here."}},
)
@names_user
async def finalize_credentials(wanted: FinalizeCredentials, caller: CallerDep) -> Response:
    """There are no connectors of Google's here, which is what the answer says."""
    raise HTTPException(501, "Agent Identity is not supported.")


async def _create(
    services: ServicesDep, caller: CallerDep, app: str, user: str, wanted: CreateSession
) -> JsonObject:
    caller.check_state(app, wanted.state)
    return await adk_sessions.create(services, app, user, wanted)


def _declared(tool: Tool) -> JsonObject:
    declared = types.FunctionDeclaration.model_validate(tool.declaration)
    return declared.model_dump(mode="json", by_alias=True, exclude_none=True)


def _about(agent: Agent) -> JsonObject:
    return {
        "name": agent.name,
        "rootAgentName": agent.name,
        "description": agent.description,
        "language": "python",
        "isComputerUse": False,
    }
