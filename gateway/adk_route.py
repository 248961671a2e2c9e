"""Errors as google-adk's server says them: FastAPI's ``{"detail": …}`` in place of a problem.

Its clients read ``detail``; a typed error's message stands there, under the status that it has
everywhere in the gateway. What is Temporal's or nobody foresaw stays a problem, which has a
``detail`` as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from gateway.adk_models import Detail, InvalidDetail
from gateway.problems import problem_of
from perdure.errors import PerdureError

__all__ = ["ERRORS", "AdkRoute"]

_WORDS = {
    400: "The request makes no sense here.",
    401: "There is no good token.",
    403: "The token does not reach that.",
    404: "There is no such thing.",
    409: "It is there already, or not as the request takes it to be.",
    413: "The body is too large.",
    429: "Too many requests, or too many messages wait.",
    500: "The gateway failed; its log says why.",
    502: "The model failed.",
    503: "Temporal or the database does not answer now.",
}
ERRORS: dict[int | str, dict[str, Any]] = {
    **{status: {"model": Detail, "description": words} for status, words in _WORDS.items()},
    422: {"model": InvalidDetail, "description": "The request cannot be read."},
}
"""For the OpenAPI document: what any of these routes may answer."""


class AdkRoute(APIRoute):
    """A route that answers errors as google-adk's server does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with errors turned into responses."""
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                return _told(jsonable_encoder(error.errors()), 422)
            except HTTPException as error:
                return _told(error.detail, error.status_code, error.headers)
            except PerdureError as error:
                problem, headers = problem_of(error, request.url.path)
                return _told(problem["detail"], problem["status"], headers)

        return handled


def _told(detail: Any, status: int, headers: Mapping[str, str] | None = None) -> Response:
    try:
        return JSONResponse({"detail": detail}, status, headers)
    except ValueError:
        # It quotes what a request may have and no answer can: NaN, or half of a surrogate pair.
        brief = [_without_quotes(item) for item in detail] if isinstance(detail, list) else detail
        return Response(json.dumps({"detail": brief}), status, headers, "application/json")


def _without_quotes(error: Mapping[str, Any]) -> dict[str, Any]:
    return {name: error[name] for name in ("type", "loc", "msg")}
