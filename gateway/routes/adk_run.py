"""google-adk's API: turns, waited for."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from gateway.adk_events import event_json
from gateway.adk_models import AdkEvent, Run
from gateway.adk_route import ERRORS, AdkRoute
from gateway.adk_runs import ended, events_of, prepare
from gateway.adk_waits import Waits
from gateway.services import CallerDep, ServicesDep, names_user

__all__ = ["router"]

router = APIRouter(tags=["google-adk"], route_class=AdkRoute, responses=ERRORS)


@router.post("/run", summary="One turn", operation_id="adkRun", response_model=list[AdkEvent])
@names_user
async def run(wanted: Run, services: ServicesDep, caller: CallerDep) -> Response:
    """Send a message, wait for the turn, and have its events."""
    turn = await prepare(services, caller, wanted)
    events = await ended(services.store, turn)
    if events is None:
        await services.runner.ask(
            turn.key, content=turn.content, message_id=turn.invocation_id, state=turn.state
        )
        events = await events_of(services.store, turn)
    waits = Waits(turn.asked)
    return JSONResponse([event_json(shown) for event in events for shown in waits.shown(event)])
