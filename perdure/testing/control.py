"""The stand-in's remote control: what a test says to it in Python, another process says over HTTP.

=========  ==========================  ========================================================
POST       ``/_control/faults``        one fault or a list: ``{"fault": "delay", "seconds": 30}``
POST       ``/_control/script``        ``{"answers": [[part, …], …]}``
GET        ``/_control/requests``      what was recorded after number ``since``
GET        ``/_control/wait``          until ``in_flight`` are open, ``requests`` came, or ``idle``
POST       ``/_control/release``       let hanging and slow requests go on
POST       ``/_control/clear``         forget what was queued
=========  ==========================  ========================================================

``wait`` is a long poll: it answers when it is true, or 408 after ``timeout`` seconds.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse
from starlette.routing import Route

from perdure.errors import InvalidOption
from perdure.testing.faults import faults_from, script_from

if TYPE_CHECKING:
    from perdure.testing.standin import StandIn

__all__ = ["control_routes"]

Endpoint = Callable[[HttpRequest], Awaitable[JSONResponse]]


def control_routes(stand_in: StandIn) -> list[Route]:
    """The routes that control a stand-in."""

    async def faults(http: HttpRequest) -> JSONResponse:
        told = await _body(http)
        for one in told if isinstance(told, list) else [told]:
            stand_in.add(faults_from(one))
        return JSONResponse({})

    async def script(http: HttpRequest) -> JSONResponse:
        stand_in.add(script_from(await _body(http)))
        return JSONResponse({})

    async def requests(http: HttpRequest) -> JSONResponse:
        since = _number(http, "since", 0)
        return JSONResponse([request.to_json() for request in stand_in.requests[since:]])

    async def wait(http: HttpRequest) -> JSONResponse:
        in_flight, count = _number(http, "in_flight", 0), _number(http, "requests", 0)
        kind = http.query_params.get("kind")
        idle = "idle" in http.query_params

        def true() -> bool:
            came = [request for request in stand_in.requests if kind in (None, request.kind)]
            open_ = len(stand_in.in_flight)
            return open_ >= in_flight and len(came) >= count and not (idle and open_)

        try:
            await stand_in.wait(true, str(http.query_params), float(_number(http, "timeout", 30)))
        except TimeoutError as error:
            return JSONResponse({"error": str(error)}, status_code=408)
        return JSONResponse({"in_flight": len(stand_in.in_flight), "requests": len(stand_in.requests)})

    async def release(http: HttpRequest) -> JSONResponse:
        stand_in.release()
        return JSONResponse({})

    async def clear(http: HttpRequest) -> JSONResponse:
        stand_in.clear()
        return JSONResponse({})

    posts = {"faults": faults, "script": script, "release": release, "clear": clear}
    gets = {"requests": requests, "wait": wait}
    return [
        *(Route(f"/_control/{name}", _told(endpoint), methods=["POST"]) for name, endpoint in posts.items()),
        *(Route(f"/_control/{name}", _told(endpoint), methods=["GET"]) for name, endpoint in gets.items()),
    ]


def _told(endpoint: Endpoint) -> Endpoint:
    """Answer 400 to what makes no sense, with the reason."""

    async def checked(http: HttpRequest) -> JSONResponse:
        try:
            return await endpoint(http)
        except InvalidOption as error:
            return JSONResponse({"error": str(error)}, status_code=400)

    return checked


async def _body(http: HttpRequest) -> Any:
    try:
        told = json.loads(await http.body())
    except ValueError as error:
        raise InvalidOption(f"{http.url.path}: the body is not JSON ({error})") from error
    if not isinstance(told, dict | list):
        raise InvalidOption(f"{http.url.path}: the body is not a JSON object")
    return told


def _number(http: HttpRequest, name: str, default: int) -> int:
    try:
        return int(http.query_params.get(name, default))
    except ValueError as error:
        raise InvalidOption(f"{name}={http.query_params[name]!r} is not a whole number") from error
