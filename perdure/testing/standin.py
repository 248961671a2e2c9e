"""The stand-in as a server in this process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Scope

from perdure.testing.control import control_routes
from perdure.testing.faults import Controls, Fault, Script
from perdure.testing.request import Kind, Request
from perdure.testing.service import ModelService

__all__ = ["StandIn"]

PATIENCE = 60.0
"""Seconds that a wait takes at most, unless told otherwise."""


class StandIn(Controls):
    """A local server that speaks Gemini's REST protocol and answers by rule. It is no model.

    It listens on 127.0.0.1 only, and needs no key.

    Args:
        port: 0 for a free one.
        signatures: whether calls must come back with their thought signatures, as with Gemini 3.
        call_ids: whether calls carry ids; None: every other answer that calls something, since
            a runtime must do with and without.
        input_limit: of how many tokens, at four characters each, a prompt may be; None: any.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        signatures: bool = True,
        call_ids: bool | None = None,
        input_limit: int | None = None,
    ) -> None:
        self._port = port
        self._service = ModelService(
            self._hang_up, signatures=signatures, call_ids=call_ids, input_limit=input_limit
        )
        self._server: _Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self.url = ""
        """Where it is, once started, such as ``http://127.0.0.1:43210``."""

    async def __aenter__(self) -> StandIn:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen.

        Raises:
            OSError: the port is taken.
        """
        listener = _listener(self._port)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        routes = [
            *control_routes(self),
            Route("/{version}/{target:path}", self._service, methods=["POST"]),
        ]
        self._server = _Server(Starlette(routes=routes))
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        await self._server.ready.wait()

    async def stop(self) -> None:
        """Stop at once, also with requests hanging: their clients see a closed connection."""
        if self._server is not None and self._serving is not None:
            self._server.stopping.set()
            self._service.tell()
            await self._serving
        self._server = self._serving = None

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in order of arrival."""
        return self._service.requests

    @property
    def in_flight(self) -> list[Request]:
        """The requests whose response has not ended yet."""
        return [request for request in self.requests if request.in_flight]

    def model_calls(self, kind: Kind = "generate") -> list[Request]:
        """The requests of one kind."""
        return [request for request in self.requests if request.kind == kind]

    def add(self, items: Sequence[Fault | Script]) -> None:
        """Queue faults and scripted answers."""
        self._service.add(items)

    def release(self) -> None:
        """Let hanging and slow requests go on now."""
        self._service.release()

    def clear(self) -> None:
        """Forget faults and scripted answers that were not used yet."""
        self._service.faults.clear()
        self._service.scripts.clear()

    async def wait_for_requests(
        self,
        count: int,
        *,
        kind: Kind | None = None,
        timeout: float = PATIENCE,  # noqa: ASYNC109 - see wait
    ) -> list[Request]:
        """Wait until so many requests have come, and return them.

        Raises:
            TimeoutError: they did not come within ``timeout`` seconds.
        """

        def found() -> list[Request]:
            return [request for request in self.requests if kind in (None, request.kind)]

        await self.wait(lambda: len(found()) >= count, f"{count} requests", timeout)
        return found()

    async def wait_in_flight(
        self,
        count: int = 1,
        *,
        timeout: float = PATIENCE,  # noqa: ASYNC109 - see wait
    ) -> list[Request]:
        """Wait until so many requests are unanswered at once, and return them.

        Raises:
            TimeoutError: they were not within ``timeout`` seconds.
        """
        await self.wait(lambda: len(self.in_flight) >= count, f"{count} requests in flight", timeout)
        return self.in_flight

    async def wait_idle(self, *, timeout: float = PATIENCE) -> None:  # noqa: ASYNC109 - see wait
        """Wait until no request is in flight.

        Raises:
            TimeoutError: there still was one after ``timeout`` seconds.
        """
        await self.wait(lambda: not self.in_flight, "no request in flight", timeout)

    async def wait(
        self,
        true: Callable[[], bool],
        what: str,
        timeout: float = PATIENCE,  # noqa: ASYNC109 - in the message
    ) -> None:
        """Wait until something is true of the requests.

        Raises:
            TimeoutError: it was not within ``timeout`` seconds, or the stand-in stopped.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not true() and not self._stopping:
                    await self._service.changed.wait()
        if not true():
            count = len(self.requests)
            raise TimeoutError(
                f"waited {timeout:g} s for {what}; there were {count} requests, {self.in_flight} open"
            )

    @property
    def _stopping(self) -> bool:
        return self._server is None or self._server.stopping.is_set()

    def _hang_up(self, scope: Scope) -> None:
        if self._server is not None:
            self._server.hang_up(scope["client"])


def _listener(port: int) -> socket.socket:
    # With the protocol named, asyncio turns Nagle's algorithm off; without, each answer costs 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(socket.SOMAXCONN)
    except OSError:
        listener.close()
        raise
    return listener


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, and without its waiting: it starts and stops at once."""

    def __init__(self, app: Starlette) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="h11",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
            )
        )
        self.ready = asyncio.Event()
        self.stopping = asyncio.Event()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to stop; signals are the business of whoever started us."""
        try:
            await self._serve(sockets)
        finally:
            self.ready.set()

    async def main_loop(self) -> None:
        """Wait for the end; the clock of the Date header stands still."""
        await self.on_tick(0)
        self.ready.set()
        await self.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close everything. A request that still hangs is told that its client has gone, and ends."""
        for server in self.servers:
            server.close()
        await asyncio.sleep(0)  # A connection that was being accepted shows up only now.
        while self.server_state.connections or self.server_state.tasks:
            for connection in list(self.server_state.connections):
                connection.transport.abort()
            if self.server_state.tasks:
                await asyncio.wait(self.server_state.tasks)
            await asyncio.sleep(0)
        for server in self.servers:
            await server.wait_closed()

    def hang_up(self, client: tuple[str, int]) -> None:
        """Close a client's connection, once what was written to it is out."""
        for connection in list(self.server_state.connections):
            if getattr(connection, "client", None) == client:
                connection.transport.close()
