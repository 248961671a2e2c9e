"""google-adk's API: turns, event by event."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from sse_starlette import ServerSentEvent

from gateway.access import Look
from gateway.adk_events import event_json, split_artifacts
from gateway.adk_models import Run
from gateway.adk_route import ERRORS, AdkRoute
from gateway.adk_runs import Turn, ended, is_of, prepare
from gateway.adk_waits import Waits
from gateway.runner import Answer
from gateway.services import CallerDep, Services, ServicesDep, WatchDep, names_user
from gateway.sse import event_stream, typed_error
from gateway.streaming import turn_events
from gateway.tail import Partial
from gateway.wire import one_line
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
async def run_sse(
    wanted: Run, services: ServicesDep, caller: CallerDep, look: WatchDep, request: Request
) -> Response:
    """Send a message, and have the turn's events as they come; with ``streaming``, answers piece by piece.

    Comments come every 15 seconds, which google-adk's server does not send and its clients pass over.
    """
    turn = await prepare(services, caller, wanted)
    items = _items(services, turn, look, pieces=wanted.streaming)
    whole = wanted.function_call_event_id is not None
    stream = _stream(items, turn, request.url.path, pieces=wanted.streaming, whole=whole)
    return event_stream(services, stream)


async def _stream(
    found: AsyncGenerator[Event | Partial | Answer], turn: Turn, path: str, *, pieces: bool, whole: bool
) -> AsyncIterator[ServerSentEvent]:
    waits = Waits(turn.asked)
    try:
        async with aclosing(found) as items:
            async for item in items:
                for event in _shown(item, turn, waits, pieces=pieces, whole=whole):
                    yield _message(event)
    except Exception as raised:  # noqa: BLE001 - the status is sent: only the stream itself can tell
        # This is how google-adk's server tells of it, too.
        error = typed_error(raised, path)
        _log.warning("%s to %s: %s", path, turn.key, type(error).__name__)
        yield _message(_error(error))


async def _items(
    services: Services, turn: Turn, look: Look, *, pieces: bool
) -> AsyncGenerator[Event | Partial | Answer]:
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
        look=look,
    )
    async with aclosing(said):
        async for item in said:
            yield item


def _shown(
    item: Event | Partial | Answer, turn: Turn, waits: Waits, *, pieces: bool, whole: bool
) -> list[JsonObject]:
    if isinstance(item, Answer):
        return []
    if isinstance(item, Partial):
        return [event_json(_piece(item))]
    if not is_of(item, turn):
        return []
    events = [event_json(shown, streamed=pieces) for shown in waits.shown(item)]
    return events if whole else [each for event in events for each in split_artifacts(event)]


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


def _message(data: JsonObject) -> ServerSentEvent:
    return ServerSentEvent(one_line(data), sep="\n")
