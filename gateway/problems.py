"""Errors as RFC 9457 problems: ``application/problem+json`` with a code that does not change.

The code is the error's class (:func:`perdure.errors.code_of`), so that a client raises the
same class again. What nobody foresaw is ``internal-error``, and says nothing of itself: it may
quote what users said.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match
from temporalio.client import WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode

from perdure import errors
from perdure.errors import (
    InternalError,
    InvalidRequest,
    PerdureError,
    TemporalUnavailable,
    VersionMismatch,
    code_of,
)

__all__ = ["MEDIA_TYPE", "STATUSES", "TYPE_ROOT", "HttpProblem", "install_problems", "problem_of", "respond"]

MEDIA_TYPE = "application/problem+json"
TYPE_ROOT = "urn:perdure:problem:"
"""Begins the ``type`` of each problem; its code ends it."""

STATUSES: Mapping[type[PerdureError], int] = {
    errors.PerdureError: 500,
    errors.NotFound: 404,
    errors.SessionNotFound: 404,
    errors.InvocationNotFound: 404,
    errors.CallNotFound: 404,
    errors.ArtifactNotFound: 404,
    errors.ArtifactDamaged: 500,
    errors.UnknownAgent: 404,
    errors.Conflict: 409,
    errors.SessionExists: 409,
    errors.SessionEnded: 409,
    errors.VersionMismatch: 409,
    errors.EventConflict: 409,
    errors.StaleEpoch: 409,
    errors.StateConflict: 409,
    errors.AlreadySettled: 409,
    errors.InvocationRewound: 409,
    errors.Invalid: 400,
    errors.InvalidMessage: 400,
    errors.InvalidContent: 400,
    errors.InvalidName: 400,
    errors.InvalidArguments: 400,
    errors.InvalidAgent: 500,
    errors.InvalidInstruction: 409,
    errors.InvalidOption: 400,
    errors.InvalidTaskToken: 400,
    errors.InvalidRequest: 422,
    errors.TooLarge: 413,
    errors.Denied: 403,
    errors.Unauthenticated: 401,
    errors.Forbidden: 403,
    errors.RequestTimeout: 408,
    errors.RateLimited: 429,
    errors.Unreadable: 500,
    errors.UnknownKey: 500,
    errors.PayloadDamaged: 500,
    errors.Busy: 429,
    errors.LimitExceeded: 409,
    errors.BudgetExceeded: 409,
    errors.TemporalUnavailable: 503,
    errors.StorageUnavailable: 503,
    errors.McpUnavailable: 503,
    errors.GatewayUnavailable: 503,
    errors.InternalError: 500,
    errors.ModelError: 502,
    errors.ModelUnavailable: 503,
    errors.ModelRefused: 502,
    errors.InvalidAnswer: 502,
    errors.PromptTooLong: 409,
}
"""The status of every class; a test misses one that is not here."""

_AWAY = frozenset(
    {
        RPCStatusCode.UNAVAILABLE,
        RPCStatusCode.DEADLINE_EXCEEDED,
        RPCStatusCode.CANCELLED,
        RPCStatusCode.RESOURCE_EXHAUSTED,
        RPCStatusCode.ABORTED,
    }
)
_log = logging.getLogger("perdure.gateway")


class HttpProblem(Exception):
    """A problem that is HTTP's own and no error of Perdure's: a range that cannot be satisfied.

    Args:
        status: of the response.
        code: kebab-case, and stable.
        detail: what happened and what to do.
        headers: more of the response's.
    """

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail, self.headers = status, code, detail, dict(headers or {})


def problem_of(error: PerdureError, instance: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The problem that stands for an error, and the headers it brings.

    Args:
        error: the error.
        instance: the path that was asked for.
    """
    status = STATUSES.get(type(error), 500)
    problem = _problem(status, code_of(type(error)), str(error), instance)
    headers: dict[str, str] = {}
    if isinstance(error, VersionMismatch) and error.actual is not None:
        problem["actual"] = error.actual
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        problem["retryAfter"] = retry_after
    if status in (429, 503):
        headers["retry-after"] = str(max(1, math.ceil(retry_after or 1)))
    if status == 408:
        headers["connection"] = "close"
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return problem, headers


def respond(error: PerdureError | HttpProblem, instance: str) -> Response:
    """The response to a request that failed with an error of ours."""
    if isinstance(error, HttpProblem):
        return _response(_problem(error.status, error.code, error.detail, instance), error.headers)
    problem, headers = problem_of(error, instance)
    return _response(problem, headers)


def install_problems(app: FastAPI) -> None:
    """Have every error of the app answered by a problem."""

    @app.exception_handler(PerdureError)
    async def ours(request: Request, error: PerdureError) -> Response:
        if STATUSES.get(type(error), 500) >= 500:
            _log.warning("%s %s: %s", request.method, request.url.path, type(error).__name__)
        return respond(error, request.url.path)

    @app.exception_handler(HttpProblem)
    async def http(request: Request, error: HttpProblem) -> Response:
        return respond(error, request.url.path)

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        code = {404: "route-not-found", 405: "method-not-allowed"}.get(error.status_code, "http-error")
        problem = _problem(error.status_code, code, str(error.detail), request.url.path)
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        if error.status_code == 405:
            headers["allow"] = ", ".join(_methods(app, request))
        return _response(problem, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        problem, headers = problem_of(InvalidRequest(_wrong(error.errors())), request.url.path)
        problem["errors"] = [
            {"loc": [str(step) for step in item["loc"]], "msg": item["msg"]} for item in error.errors()
        ]
        return _response(problem, headers)

    @app.exception_handler(RPCError)
    async def temporal(request: Request, error: RPCError) -> Response:
        _log.warning("%s %s: Temporal says %s", request.method, request.url.path, error.status)
        return respond(_of_temporal(error), request.url.path)

    @app.exception_handler(WorkflowUpdateRPCTimeoutOrCancelledError)
    async def timeout(request: Request, error: WorkflowUpdateRPCTimeoutOrCancelledError) -> Response:
        away = TemporalUnavailable("Temporal did not answer in time; send the same again under its id")
        return respond(away, request.url.path)

    @app.exception_handler(WorkflowUpdateFailedError)
    async def failed(request: Request, error: WorkflowUpdateFailedError) -> Response:
        cause = type(error.__cause__).__name__
        _log.error("%s %s: the session's workflow failed it: %s", request.method, request.url.path, cause)
        return respond(
            InternalError("the session could not do it; the worker's log says why"), request.url.path
        )

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return respond(InternalError("the gateway failed; its log says why"), request.url.path)


def _methods(app: FastAPI, request: Request) -> list[str]:
    """What can be done with a path: it may be spread over several routes, of which Starlette asks one."""
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in app.router.routes
        )
    ]


def _of_temporal(error: RPCError) -> PerdureError:
    if error.status in _AWAY:
        return TemporalUnavailable(
            "Temporal does not answer now; send the same again under its id, and it happens once"
        )
    return InternalError(f"Temporal refused the request ({error.status.name}); the gateway's log says more")


def _wrong(found: Sequence[Any]) -> str:
    """What is wrong with a request, in one line that quotes nothing of it."""
    places = (f"{'.'.join(str(step) for step in item['loc'])}: {item['msg']}" for item in found)
    return f"the request cannot be read: {'; '.join(places)}"


def _problem(status: int, code: str, detail: str, instance: str) -> dict[str, Any]:
    title = HTTPStatus(status).phrase
    return {
        "type": f"{TYPE_ROOT}{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "instance": instance,
        "code": code,
    }


def _response(problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    # In ASCII: what is wrong with a request may be that it has half a character in it.
    text = json.dumps(problem)
    return Response(text, status_code=problem["status"], headers=dict(headers), media_type=MEDIA_TYPE)
