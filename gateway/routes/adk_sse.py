"""google-adk's API: turns, event by event."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime

from fastapi import APIRouter
from fastapi.responses import Response, StreamingResponse

from gateway.adk_events import event_json, split_artifacts
from gateway.adk_models import Run
from gateway.adk_route import ERRORS, AdkRoute
from gateway.adk_runs import Turn, ended, is_of, prepare
from gateway.runner import Answer
from gateway.services import CallerDep, Services, ServicesDep, names_user
from gateway.streaming import turn_events
from gateway.tail import Partial
from perdure.errors import PerdureError
from perdure.types import Event, JsonObject

__all__ = ["router"]

router = APIRouter(tags=["google-adk"], route_class=AdkRoute, responses=ERRORS)

_STREAM = {
    "description": "A stream of events, each in google-adk's JSON, in the order of the turn.",
    "content": {
        "text/event-stream": {
            "schema": {"type": "string"},
            "example": 'data: {"content":{"parts":[{"text":"Do"}],"role":"model"},"partial":true,…}\n\n',
        }
    },
}

_log = logging.getLogger("perdure.gateway")


@router.post(
    "/run_sse",
    summary="One turn, event by event",
    operation_id="adkRunSse",
    response_class=StreamingResponse,
    responses={200: _STREAM},
)
@names_user
async def run_sse(wanted: Run, services: ServicesDep, caller: CallerDep) -> Response:
    """Send a message, and have the turn's events as they come; with ``streaming``, answers piece by piece."""
    turn = await prepare(services, caller, wanted)
    whole = wanted.function_call_event_id is not None
    stream = _stream(services, turn, pieces=wanted.streaming, whole=whole)
    return StreamingResponse(stream, media_type="text/event-stream")


async def _stream(services: Services, turn: Turn, *, pieces: bool, whole: bool) -> AsyncIterator[str]:
    try:
        async with aclosing(_items(services, turn, pieces=pieces)) as items:
            async for item in items:
                for event in _shown(item, turn, pieces=pieces, whole=whole):
                    yield f"data: {_compact(event)}\n\n"
    except PerdureError as error:
        # The response has begun with 200, so this is how google-adk's server tells of it, too.
        _log.warning("/run_sse to %s: %s", turn.key, type(error).__name__)
        yield f"data: {json.dumps(_error(error))}\n\n"


async def _items(services: Services, turn: Turn, *, pieces: bool) -> AsyncGenerator[Event | Partial | Answer]:
    over = await ended(services.store, turn)
    for event in over or ():
        yield event
    if over is not None:
        return
    said = turn_events(
        services,
        turn.key,
        content=turn.content,
        message_id=turn.invocation_id,
        state=turn.state,
        partial=pieces,
    )
    async with aclosing(said):
        async for item in said:
            yield item


def _shown(item: Event | Partial | Answer, turn: Turn, *, pieces: bool, whole: bool) -> list[JsonObject]:
    if isinstance(item, Answer):
        return []
    if isinstance(item, Partial):
        return [event_json(_piece(item))]
    if not is_of(item, turn.invocation_id):
        return []
    event = event_json(item, streamed=pieces)
    return [event] if whole else list(split_artifacts(event))


def _piece(partial: Partial) -> Event:
    answering = partial.answering
    return Event(
        id=answering.event_id,
        invocation_id=answering.invocation_id,
        author=answering.author,
        content=partial.content,
        meta={"step": 0},
        created_at=datetime.now(UTC),
        partial=True,
    )


def _error(error: PerdureError) -> JsonObject:
    kind = type(error).__name__
    details = {"error_type": kind, "error_message": str(error), "timestamp": time.time()}
    return {"error": f"{kind}: {error}", "error_details": details}


def _compact(event: JsonObject) -> str:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))
