"""Decrypts payloads for the Temporal UI and CLI: their "remote codec server".

Whoever can reach it can read. So it is bound to this machine unless told otherwise, and a
browser's request is answered only if it comes from a page of the UI's own origin: CORS
alone would keep a foreign page from reading the answer, not from asking.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from google.protobuf import json_format
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from temporalio.api.common.v1 import Payload, Payloads
from temporalio.converter import PayloadCodec

from perdure.errors import Unreadable

__all__ = ["codec_app"]

_HEADERS = ["authorization", "content-type", "x-namespace"]

Work = Callable[[Sequence[Payload]], Awaitable[list[Payload]]]


def codec_app(codec: PayloadCodec, origins: Sequence[str]) -> Starlette:
    """``POST /decode`` and ``POST /encode``, as Temporal's codec protocol has them.

    Args:
        codec: what decrypts and encrypts.
        origins: of the pages that may ask, such as ``http://localhost:8233``.
    """

    def endpoint(work: Work) -> Callable[[Request], Awaitable[JSONResponse]]:
        async def answer(request: Request) -> JSONResponse:
            origin = request.headers.get("origin")
            if origin is not None and origin not in origins:
                return _refuse(403, f"pages of {origin} may not ask here")
            try:
                payloads = json_format.Parse(await request.body(), Payloads())
            except json_format.ParseError:
                return _refuse(400, "the body is not the JSON of temporal.api.common.v1.Payloads")
            try:
                done = Payloads(payloads=await work(payloads.payloads))
            except Unreadable as error:
                return _refuse(400, f"{type(error).__name__}: {error}")
            return JSONResponse(json_format.MessageToDict(done))

        return answer

    cors = Middleware(
        CORSMiddleware, allow_origins=list(origins), allow_methods=["POST"], allow_headers=_HEADERS
    )
    return Starlette(
        routes=[
            Route("/decode", endpoint(codec.decode), methods=["POST"]),
            Route("/encode", endpoint(codec.encode), methods=["POST"]),
        ],
        middleware=[cors],
    )


def _refuse(status: int, message: str) -> JSONResponse:
    return JSONResponse({"message": message}, status_code=status)
