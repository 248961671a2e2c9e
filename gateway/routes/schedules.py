"""Messages by the clock: what a session is sent again and again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import ConfigDict, Field
from starlette.responses import JSONResponse, Response

from gateway.requests import IdempotencyKey, chosen_id
from gateway.routes.sessions import SESSION
from gateway.schedules import Scheduled
from gateway.services import KeyDep, ServicesDep
from gateway.shapes import Body, Record
from perdure.types import During, JsonObject

__all__ = ["ScheduledBody", "router", "schedule_json"]

router = APIRouter(tags=["schedules"])

SCHEDULES = SESSION + "/schedules"
_EXAMPLE: JsonObject = {
    "cron": "0 9 * * 1-5",
    "timezone": "Europe/Berlin",
    "text": "Report on the open orders.",
}


class ScheduleBody(Body):
    """A message, and when it is sent."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    cron: str = Field(
        min_length=1, max_length=200, description="Five fields, or `@daily`, `@every 30m` and the like."
    )
    text: str = Field(description="What is said each time; 32 KiB at most.")
    schedule_id: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        default=None,
        description="Under one that is there, that is changed. Same as the header `Idempotency-Key`.",
    )
    timezone: str = Field(default="UTC", max_length=100, description="Of the fields.")
    during: During = Field(default="queue", description="As for a message.")


class ScheduleNameBody(Record):
    """It is scheduled."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"scheduleId": "daily"}]})

    schedule_id: str


class ScheduledBody(Record):
    """A message that is sent again and again."""

    schedule_id: str
    cron: str
    timezone: str
    text: str
    during: str
    paused: bool = Field(description="Somebody has paused it in Temporal.")
    next_times: list[str] = Field(description="When it is sent next, a few times.")
    sent: int = Field(description="How often its time has come.")


class SchedulesBody(Record):
    """The schedules of a session."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "schedules": [
                        {
                            "scheduleId": "daily",
                            **_EXAMPLE,
                            "during": "queue",
                            "paused": False,
                            "nextTimes": ["2026-11-23T08:00:00+00:00"],
                            "sent": 3,
                        }
                    ]
                }
            ]
        }
    )

    schedules: list[ScheduledBody]


@router.post(
    SCHEDULES,
    operation_id="scheduleMessage",
    summary="Send a message whenever the clock says so; makes the session if there is none",
    response_model=ScheduleNameBody,
)
async def schedule(
    key: KeyDep,
    services: ServicesDep,
    body: ScheduleBody,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """It goes on until it is removed, or the session is deleted."""
    services.agents.get(key.app)
    name = await services.runner.schedule(
        key,
        body.cron,
        body.text,
        schedule_id=chosen_id(idempotency_key, body.schedule_id),
        timezone=body.timezone,
        during=body.during,
    )
    return JSONResponse({"scheduleId": name})


@router.get(
    SCHEDULES,
    operation_id="listSchedules",
    summary="The messages that are sent by the clock",
    response_model=SchedulesBody,
)
async def schedules(key: KeyDep, services: ServicesDep) -> Response:
    """By id. A new one is found within seconds."""
    found = await services.runner.schedules(key)
    return JSONResponse({"schedules": [schedule_json(each) for each in found]})


@router.delete(
    SCHEDULES + "/{schedule}",
    operation_id="unscheduleMessage",
    summary="Send it no more; twice is the same as once",
    status_code=204,
    response_class=Response,
)
async def unschedule(
    key: KeyDep, services: ServicesDep, schedule: Annotated[str, Path(description="The schedule's id.")]
) -> Response:
    """What it has sent stays sent."""
    await services.runner.unschedule(key, schedule)
    return Response(status_code=204)


def schedule_json(scheduled: Scheduled) -> JsonObject:
    """A schedule as our routes give it."""
    return {
        "scheduleId": scheduled.schedule_id,
        "cron": scheduled.cron,
        "timezone": scheduled.timezone,
        "text": scheduled.text,
        "during": scheduled.during,
        "paused": scheduled.paused,
        "nextTimes": [when.isoformat() for when in scheduled.next_times],
        "sent": scheduled.sent,
    }
