"""What stands before every route: whose page asks, by which name, and how much it sends.

Plain ASGI, so that a body is passed on piece by piece and a response streams.

A page anywhere can have its reader's browser send requests to 127.0.0.1, and can give its own
name that address (DNS rebinding). Where no token is needed, two checks keep it out: the
``Host`` has to be one of ours, and the ``Origin``, if there is one, the same host's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.access import Access
from gateway.problems import HttpProblem, respond
from perdure.errors import Forbidden, PerdureError, RequestTimeout, TooLarge

__all__ = ["Authenticate", "BodyLimit", "HostCheck", "SecurityHeaders"]

_UPLOAD = re.compile(r"/apps/[^/]+/users/[^/]+/sessions/[^/]+/files/")

SLOWEST = 1_000
"""Bytes a second: a body that comes more slowly for long only keeps a connection busy."""

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "cross-origin-resource-policy": "same-site",
    "cache-control": "no-store",
}
"""What every response says, unless the route says otherwise."""


class SecurityHeaders:
    """Adds :data:`HEADERS` where the response has none of that name.

    Args:
        app: what is guarded.
        pages: paths of pages, which have scripts and styles and so no content policy.
    """

    def __init__(self, app: ASGIApp, *, pages: Collection[str] = ()) -> None:
        self._app, self._pages = app, frozenset(pages)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        page = scope["path"] in self._pages

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    if not (page and name == "content-security-policy"):
                        headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)


class HostCheck:
    """Refuses requests to other names than ours, and those of pages of other origins.

    Args:
        app: what is guarded.
        hosts: the values of ``Host`` that are ours, without port; none at all is any.
        origins: origins of pages that may ask all the same.
        check_origin: whether ``Origin`` is looked at.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Collection[str] = (),
        origins: Collection[str] = (),
        check_origin: bool = False,
    ) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in hosts)
        self._origins, self._check_origin = frozenset(origins), check_origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._fault(Headers(scope=scope))) is not None:
            await respond(error, scope["path"])(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _fault(self, headers: Headers) -> PerdureError | None:
        host = headers.get("host", "")
        if self._hosts and _name_of(host) not in self._hosts:
            return Forbidden(
                "this gateway does not answer to the Host of the request; use the URL it printed"
            )
        origin = headers.get("origin")
        if self._check_origin and origin is not None and not self._may_ask(origin, host):
            return Forbidden("pages of that Origin may not ask here; allow it with PERDURE_GATEWAY_ORIGINS")
        return None

    def _may_ask(self, origin: str, host: str) -> bool:
        return "*" in self._origins or origin in self._origins or urlsplit(origin).netloc == host


class Authenticate:
    """Finds out who asks, before anything of the request is read or looked up.

    What the caller may reach is decided by :func:`gateway.services.authorize`.

    Args:
        app: what is guarded.
        access: knows the callers.
        public: paths that anybody may ask for.
    """

    def __init__(self, app: ASGIApp, *, access: Access, public: Collection[str]) -> None:
        self._app, self._access, self._public = app, access, frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._public:
            try:
                address, _ = scope.get("client") or ("", 0)
                caller = await self._access.caller(Headers(scope=scope).get("authorization"), address)
            except (PerdureError, HttpProblem) as error:
                await respond(error, scope["path"])(scope, receive, send)
                return
            scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)


class BodyLimit:
    """Ends a request whose body is larger than it may be, however it is announced, or does not come.

    Args:
        app: what is guarded.
        limit: in bytes.
        upload_limit: in bytes, of uploads of artifacts.
        patience: seconds that it may pause; and at :data:`SLOWEST` it may come no longer than that.
    """

    def __init__(self, app: ASGIApp, *, limit: int, upload_limit: int, patience: float) -> None:
        self._app, self._limit, self._upload_limit = app, limit, upload_limit
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        upload = scope["method"] == "PUT" and _UPLOAD.match(scope["path"])
        limit = self._upload_limit if upload else self._limit
        error = TooLarge(f"the body is larger than the {limit} bytes that are taken here; send less")
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdecimal() and int(announced) > limit:
            await respond(error, scope["path"])(scope, receive, send)
            return
        body, started = _Body(receive, error, limit, self._patience), False

        async def unless_refused(message: Message) -> None:
            nonlocal started
            if body.refused is None or started:
                started = True
                await send(message)

        try:
            await self._app(scope, body.receive, unless_refused)
        except (TooLarge, RequestTimeout) as raised:
            if raised is not body.refused or started:
                raise
        # Whatever the app took the error for, which broke in while it was reading.
        if body.refused is not None and not started:
            await respond(body.refused, scope["path"])(scope, receive, send)


class _Body:
    """A body on its way in."""

    def __init__(self, receive: Receive, too_large: TooLarge, limit: int, patience: float) -> None:
        self.refused: TooLarge | RequestTimeout | None = None
        self._receive, self._too_large, self._limit = receive, too_large, limit
        self._patience = patience
        self._taken, self._waited, self._whole = 0, 0.0, False

    async def receive(self) -> Message:
        """The next piece of it; behind the last one, the end of the connection."""
        if self.refused is not None:
            raise self.refused
        if self._whole:
            return await self._receive()
        message = await self._next()
        self._taken += len(message.get("body", b""))
        self._whole = not message.get("more_body", False)
        if self._taken > self._limit:
            self.refused = self._too_large
            raise self.refused
        return message

    async def _next(self) -> Message:
        """Only waiting for the client counts, not what is done with what it sends."""
        clock = asyncio.get_running_loop().time
        since = clock()
        left = self._patience + self._taken / SLOWEST - self._waited
        try:
            async with asyncio.timeout(min(left, self._patience)):
                return await self._receive()
        except TimeoutError:
            self.refused = RequestTimeout(
                f"the body paused for {self._patience:g} seconds, or came too slowly; send the request again"
            )
            raise self.refused from None
        finally:
            self._waited += clock() - since


def _name_of(host: str) -> str:
    """A ``Host`` without its port."""
    if host.startswith("["):
        return host.partition("]")[0].lstrip("[").lower()
    return host.partition(":")[0].lower()
