"""The log of a session, in pages or as it grows."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from pydantic import Field
from starlette.responses import JSONResponse, Response

from gateway.requests import AfterQuery, LimitQuery
from gateway.services import KeyDep, ServicesDep, WatchDep
from gateway.shapes import EventBody, Record, event_json
from gateway.sse import MEDIA_TYPE, SESSION_STREAM, session_stream, wants_stream

__all__ = ["router"]

router = APIRouter(tags=["events"])

EVENTS = "/apps/{app}/users/{user}/sessions/{session}/events"
LastEventId = Annotated[
    int | None,
    Header(
        alias="Last-Event-ID",
        ge=0,
        le=2**53,
        description="Of a stream: the `id` of the last event that the client has. It goes before `after`.",
        examples=[2],
    ),
]


class EventPage(Record):
    """A page of a log."""

    events: list[EventBody]
    next: int | None = Field(default=None, description="The `after` of the next page; none after the last.")
    head: int = Field(description="The seq at which the log ended when this was read.")


@router.get(
    EVENTS,
    operation_id="listEvents",
    summary="The log by seq; as a stream, with `Accept: text/event-stream`",
    response_model=EventPage,
    responses={
        200: {"description": "A page, or a stream.", "content": {MEDIA_TYPE: SESSION_STREAM}},
        204: {"description": "A stream that was come back to, and has nothing more to say."},
    },
)
async def list_events(
    key: KeyDep,
    services: ServicesDep,
    look: WatchDep,
    request: Request,
    after: AfterQuery = 0,
    limit: LimitQuery = 100,
    live: Annotated[bool, Query(description="Leave out what was rewound.")] = False,
    last_event_id: LastEventId = None,
) -> Response:
    """Every event, also the rewound ones: ``live`` tells. Ordered by seq, which has no gaps.

    With ``Accept: text/event-stream`` it is a stream that does not end: each event is a message
    whose ``id`` is its seq, so ``Last-Event-ID`` goes on behind it. Between them come pieces of
    the answer that the model is giving, ``partial`` and without an id; ``offset`` says where a
    piece belongs. ``event: rewound`` says what is live after a rewind, and ``event: end``, which
    is the last, why nothing more comes: ``ended``, ``deleted``, or ``stopping`` where the server
    stops and another goes on.
    """
    if wants_stream(request):
        seen = after if last_event_id is None else last_event_id
        back = last_event_id is not None
        return await session_stream(
            services, key, request.url.path, look, after=seen, came_back=back, live=live
        )
    session = await services.store.get(key, max_events=0)
    found = await services.store.log(key, after=after, limit=limit)
    last = found[-1].seq if found else after
    page = {
        "events": [event_json(event) for event in found if event.live or not live],
        "head": max(session.head, last if found else 0),
    }
    if len(found) == limit and last < session.head:
        page["next"] = last
    return JSONResponse(page)
