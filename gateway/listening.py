"""A small HTTP server inside a process that has other business: a probe, a codec for the Temporal UI."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator

import uvicorn
from starlette.applications import Starlette
from uvicorn.protocols.http.h11_impl import H11Protocol

from perdure.errors import InvalidOption

__all__ = ["HEAD_WITHIN", "address_of", "listening"]

HEAD_WITHIN = 20.0
"""Seconds that a connection has for the head of a request, from when it is made or goes on to the next."""


def address_of(text: str) -> tuple[str, int]:
    """The host and port of ``host:port``.

    Raises:
        InvalidOption: it is not of that form.
    """
    host, found, port = text.rpartition(":")
    if not found or not host or not port.isdecimal() or int(port) > 65535:
        raise InvalidOption(f"{text!r} is no address; write host:port, such as 127.0.0.1:8081")
    return host.strip("[]"), int(port)


@contextlib.asynccontextmanager
async def listening(app: Starlette, host: str, port: int) -> AsyncIterator[int]:
    """Serve an app for as long as the block runs; gives the port, which for 0 is a free one.

    Streams that are open would never end by themselves: an app that has some sets
    ``state.before_exit``, which is awaited while it still answers.

    Raises:
        InvalidOption: the address cannot be listened at; it is taken, say.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
        # asyncio does so only where the socket names its protocol; without, each token waits 40 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise InvalidOption(
            f"{host}:{port} cannot be listened at ({error}); choose another address"
        ) from error
    config = uvicorn.Config(
        app, http=_Patient, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await server.ready.wait()
        yield listener.getsockname()[1]
    finally:
        if before_exit := getattr(app.state, "before_exit", None):
            await before_exit()
        server.should_exit = server.force_exit = True
        await serving
        listener.close()


class _Patient(H11Protocol):
    """Gives up a connection that does not get to a whole head: uvicorn would wait for it for ever.

    Bodies are :class:`gateway.guards.BodyLimit`'s business, and the pause between two requests uvicorn's.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_expecting()
        super().connection_lost(exc)

    def _expect(self) -> None:
        asked = self.cycle is not None  # as before the first request it is
        if asked and not self.cycle.response_complete:
            self._stop_expecting()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEAD_WITHIN, self.transport.abort)

    def _stop_expecting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Told to end before it has begun, it would leave its sockets open; so one waits for this."""
        try:
            await super().startup(sockets)
        finally:
            self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone: they are the business of whoever started us."""
        yield
