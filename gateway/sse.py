"""Streams over HTTP, as server-sent events.

Each stored event is a message with its seq as the ``id``, so that a client that comes back
with ``Last-Event-ID`` gets what it missed, and then the rest. A partial has no id. It has
``partial`` set, the ``id`` field of the event that it previews, and an ``offset``: what the
client has of that answer is cut there, and this put behind it. So 0 begins an answer, also
again, when an attempt failed. The event replaces it all, or never comes if the turn is
cancelled.

=============  ===========================================================================
``event:``     ``data:``
=============  ===========================================================================
(none)         an event, stored or partial
``rewound``    ``{"projection": [[1, 4], [9, null]], "epoch": 3}``: what is live from now on
``end``        ``{"reason": "ended" | "deleted" | "stopping"}``; the last of a session's
``answer``     how a turn ended; the last of a turn's
``problem``    a problem (RFC 9457); the last of a stream that failed
=============  ===========================================================================

A stream ends as ``stopping`` when its server goes: come back. To a client that comes back to
a session that has nothing more to say the answer is 204, at which a browser's
``EventSource`` stops coming.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Unpack

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response
from temporalio.client import WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError

from gateway.access import Look
from gateway.problems import problem_of
from gateway.runner import Answer, Said
from gateway.shapes import answer_json, event_json
from gateway.streaming import Closed, Item, Partial, Rewound, follow, turn_events
from gateway.wire import one_line
from perdure.errors import InternalError, InvalidRequest, PerdureError, TemporalUnavailable
from perdure.types import Event, JsonObject, SessionKey

if TYPE_CHECKING:
    from gateway.services import Services

__all__ = [
    "MEDIA_TYPE",
    "SESSION_STREAM",
    "TURN_STREAM",
    "event_stream",
    "message_of",
    "partial_json",
    "session_stream",
    "turn_stream",
    "typed_error",
    "wants_stream",
]

_PARTIAL = (
    'data: {"id":"m1:m1","invocationId":"m1","author":"counter","content":{"role":"model",'
    '"parts":[{"text":"That ma"}]},"partial":true,"offset":0}\n\n'
)
_EVENT = (
    'id: 2\ndata: {"id":"m1:m1","invocationId":"m1","author":"counter","content":{"role":"model",'
    '"parts":[{"text":"That makes 1."}]},"actions":{"stateDelta":{}},"timestamp":1795000000.5,'
    '"createdAt":"2026-11-18T10:13:20.500000+00:00","seq":2,"live":true}\n\n'
)
_ANSWER = 'event: answer\ndata: {"invocationId":"m1","status":"answered","seq":2,"text":"That makes 1."}\n\n'
SESSION_STREAM: JsonObject = {"schema": {"type": "string"}, "example": _PARTIAL + _EVENT}
"""What OpenAPI says of a session's stream."""
TURN_STREAM: JsonObject = {"schema": {"type": "string"}, "example": _PARTIAL + _EVENT + _ANSWER}
"""What OpenAPI says of a turn's stream."""

Heard = Event | Partial | Answer
_log = logging.getLogger("perdure.gateway")

MEDIA_TYPE = "text/event-stream"
FIRST_WITHIN = 5.0
"""Seconds in which a message that is refused is answered with a status, not within a stream."""


def wants_stream(request: Request) -> bool:
    """Whether a client asks for server-sent events: it names them, and not JSON before them."""
    accepted = (
        part.partition(";")[0].strip() for part in request.headers.get("accept", "").lower().split(",")
    )
    known = [kind for kind in accepted if kind in (MEDIA_TYPE, "application/json")]
    return known[:1] == [MEDIA_TYPE]


async def session_stream(
    services: Services,
    key: SessionKey,
    path: str,
    look: Look,
    *,
    after: int,
    came_back: bool,
    live: bool = False,
) -> Response:
    """A session as a stream.

    Args:
        services: the gateway's.
        key: the session.
        path: what was asked for.
        look: tells whether the client may still listen.
        after: the seq of the last event that the client has.
        came_back: it says so by ``Last-Event-ID``.
        live: leave out events that were rewound when they were read.

    Raises:
        SessionNotFound: there is no such session.
        InvalidRequest: the log does not reach that seq.
    """
    session = await services.store.get(key, max_events=0)
    if came_back and (after > session.head or (after == session.head and session.ended_at is not None)):
        return Response(status_code=204)
    if after > session.head:
        raise InvalidRequest(f"the log of session {key} ends at seq {session.head}, before {after}")
    items = follow(services, key, after=after, look=look)
    return event_stream(services, _session(items, path, live=live))


async def turn_stream(
    services: Services,
    key: SessionKey,
    path: str,
    look: Look,
    **said: Unpack[Said],
) -> Response:
    """A message is sent, and its turn is the stream.

    Args:
        services: the gateway's.
        key: the session.
        path: what was asked for.
        look: tells whether the client may still listen.
        said: the message, as :meth:`gateway.runner.Runner.ask` takes it.

    Raises:
        PerdureError: the message was refused.
    """
    items = turn_events(services, key, look=look, **said)
    first = asyncio.ensure_future(anext(items))
    try:
        await asyncio.wait([first], timeout=FIRST_WITHIN)
        if first.done():
            first.result()
    except BaseException:
        await _drop(first, items)
        raise
    return event_stream(services, _turn(first, items, path))


async def _session(found: AsyncGenerator[Item], path: str, *, live: bool) -> AsyncIterator[ServerSentEvent]:
    try:
        async with aclosing(found) as items:
            async for item in items:
                if not live or not isinstance(item, Event) or item.live:
                    yield message_of(item)
    except Exception as error:  # noqa: BLE001 - the status is sent: only the stream itself can tell
        yield _problem(error, path)


async def _turn(
    first: asyncio.Future[Heard], items: AsyncGenerator[Heard], path: str
) -> AsyncIterator[ServerSentEvent]:
    try:
        item: Heard | None = await first
        while item is not None:
            yield message_of(item)
            if isinstance(item, Answer):
                return
            item = await anext(items, None)
        yield message_of(Closed(reason="stopping"))
    except Exception as error:  # noqa: BLE001 - the status is sent: only the stream itself can tell
        yield _problem(error, path)
    finally:
        await _drop(first, items)


async def _drop(first: asyncio.Future[Heard], items: AsyncGenerator[Heard]) -> None:
    """Stop listening to a turn."""
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await items.aclose()


def event_stream(services: Services, messages: AsyncIterator[ServerSentEvent]) -> Response:
    """The response that says these messages, and that it is there where it has nothing to say."""
    return EventSourceResponse(
        messages,
        ping=services.streams.heartbeat,
        ping_message_factory=lambda: ServerSentEvent(comment="still here", sep="\n"),
        sep="\n",
    )


def message_of(item: Item | Answer) -> ServerSentEvent:
    """An item of a stream as a server-sent event."""
    if isinstance(item, Event):
        return _message(event_json(item), seq=item.seq)
    if isinstance(item, Partial):
        return _message(partial_json(item))
    if isinstance(item, Answer):
        return _message(answer_json(item), event="answer")
    if isinstance(item, Rewound):
        live = [list(span) for span in item.session.projection]
        return _message({"projection": live, "epoch": item.session.epoch}, event="rewound")
    return _message({"reason": item.reason}, event="end")


def partial_json(partial: Partial) -> JsonObject:
    """A partial in the form of the event that it previews."""
    answering = partial.answering
    return {
        "id": answering.event_id,
        "invocationId": answering.invocation_id,
        "author": answering.author,
        "content": partial.content,
        "partial": True,
        "offset": partial.offset,
    }


def _problem(error: Exception, path: str) -> ServerSentEvent:
    return _message(problem_of(typed_error(error, path), path)[0], event="problem")


def typed_error(error: Exception, path: str) -> PerdureError:
    """The error of ours that stands for what ended a stream."""
    if isinstance(error, PerdureError):
        return error
    if isinstance(error, RPCError | WorkflowUpdateRPCTimeoutOrCancelledError):
        _log.warning("%s: Temporal says %s", path, error)
        return TemporalUnavailable(
            "Temporal does not answer now; send the same again under its id, and it happens once"
        )
    _log.error("%s: the stream failed", path, exc_info=error)
    return InternalError("the gateway failed; its log says why")


def _message(data: JsonObject, *, event: str | None = None, seq: int | None = None) -> ServerSentEvent:
    return ServerSentEvent(one_line(data), event=event, id=None if seq is None else str(seq), sep="\n")
