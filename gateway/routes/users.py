"""Users: all that an app has of one is deleted."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import ConfigDict, Field
from starlette.responses import JSONResponse, Response

from gateway.services import AppPath, ServicesDep, UserPath
from gateway.shapes import Record

__all__ = ["router"]

router = APIRouter(tags=["users"])


class DeletedUserBody(Record):
    """What there was of the user."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"sessions": 3, "remembered": 2}]})

    sessions: int = Field(description="Sessions that were deleted.")
    remembered: int = Field(description="Sessions of which something was remembered.")


@router.delete(
    "/apps/{app}/users/{user}",
    operation_id="deleteUser",
    summary="Delete all that an app has of a user",
    response_model=DeletedUserBody,
)
async def delete_user(app: AppPath, user: UserPath, services: ServicesDep) -> Response:
    """Sessions, `user:` keys and artifacts, and the memory. Twice is the same as once."""
    done = await services.runner.delete_user(app, user)
    return JSONResponse({"sessions": done.sessions, "remembered": done.remembered})
