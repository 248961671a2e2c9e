"""Users' memory: search it, put a session into it, forget."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import ConfigDict, Field
from starlette.responses import JSONResponse, Response

from gateway.routes.manage import RequestName
from gateway.routes.sessions import SESSION
from gateway.services import AppPath, KeyDep, ServicesDep, UserPath
from gateway.shapes import Record
from perdure.types import JsonObject, Passage

__all__ = ["router"]

router = APIRouter(tags=["memory"])

MEMORY = "/apps/{app}/users/{user}/memory"


class PassageBody(Record):
    """What was said in a session: an event's text, or a piece of it."""

    session_id: str = Field(examples=["s1"])
    seq: int = Field(description="Of the event.")
    event_id: str = Field(examples=["m1:user"])
    invocation_id: str = Field(examples=["m1"])
    author: str = Field(description="`user`, or an agent's name.")
    said_at: datetime
    text: str = Field(description="Up to 2,000 characters.")
    excerpt: str = Field(description="The part that the search was about, up to 300 characters.")


class FoundBody(Record):
    """What a search found, best first."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "passages": [
                        {
                            "sessionId": "s1",
                            "seq": 1,
                            "eventId": "m1:user",
                            "invocationId": "m1",
                            "author": "user",
                            "saidAt": "2026-11-18T10:13:20.500000+00:00",
                            "text": "My cat is called Mia.",
                            "excerpt": "My cat is called Mia.",
                        }
                    ]
                }
            ]
        }
    )

    passages: list[PassageBody]


class RememberedBody(Record):
    """What is in the memory now."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"requestId": "remember-1", "upto": 8, "passages": 5}]}
    )

    request_id: str
    upto: int = Field(description="The seq up to which all that is live is in it.")
    passages: int = Field(description="The pieces of text that it is in.")


class ForgottenBody(Record):
    """What was forgotten."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"sessions": 3}]})

    sessions: int = Field(description="Of how many sessions there was something.")


@router.get(MEMORY, operation_id="searchMemory", summary="Search a user's memory", response_model=FoundBody)
async def search(
    app: AppPath,
    user: UserPath,
    services: ServicesDep,
    query: Annotated[
        str, Query(max_length=4_000, description="Words, or a question.", examples=["what is my cat called?"])
    ],
    limit: Annotated[int, Query(ge=1, le=100, description="How many passages.")] = 10,
) -> Response:
    """What the user's sessions said about it, as far as they were remembered."""
    found = await services.runner.search_memory(app, user, query, limit=limit)
    return JSONResponse({"passages": [_passage_json(passage) for passage in found]})


@router.delete(
    MEMORY, operation_id="forgetUser", summary="Forget all of a user's memory", response_model=ForgottenBody
)
async def forget_user(app: AppPath, user: UserPath, services: ServicesDep) -> Response:
    """The sessions stay as they are. Twice is the same as once."""
    return JSONResponse({"sessions": await services.runner.forget_user(app, user)})


@router.post(
    SESSION + "/remember",
    operation_id="rememberSession",
    summary="Put a session into its user's memory",
    response_model=RememberedBody,
)
async def remember(key: KeyDep, services: ServicesDep, request_id: RequestName) -> Response:
    """What is live now; sent again, what came since. What is rewound later is taken out by the rewind."""
    done = await services.runner.remember(key, request_id=request_id)
    return JSONResponse({"requestId": done.request_id, "upto": done.upto, "passages": done.passages})


@router.delete(
    SESSION + "/memory",
    operation_id="forgetSession",
    summary="Take a session out of its user's memory",
    status_code=204,
)
async def forget(key: KeyDep, services: ServicesDep) -> Response:
    """The session stays as it is, and may be gone already. Twice is the same as once."""
    await services.runner.forget(key)
    return Response(status_code=204)


def _passage_json(passage: Passage) -> JsonObject:
    return {
        "sessionId": passage.session_id,
        "seq": passage.seq,
        "eventId": passage.event_id,
        "invocationId": passage.invocation_id,
        "author": passage.author,
        "saidAt": passage.said_at.isoformat(),
        "text": passage.text,
        "excerpt": passage.excerpt,
    }
