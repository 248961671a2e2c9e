"""A TCP proxy that breaks what passes through it, as told: between a worker and its database, say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

__all__ = ["Proxy"]

CHUNK = 65_536


@dataclass(eq=False)
class _Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    left: int | None = None
    """How many more bytes of answers pass before it is cut; None: all."""
    seen: int = 0
    """How many of the markers that the proxy watches for have come in on it, in their order."""
    pumps: list[asyncio.Task[None]] = field(default_factory=list)

    def cut(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


class Proxy:
    """Stands before a server of this machine, on a port of its own.

    Args:
        port: the server's.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listening: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._markers: tuple[bytes, ...] = ()
        self._on_answer: Callable[[_Link, bytes], None] | None = None
        self._refusing = False
        self._passing = asyncio.Event()
        self._passing.set()
        self._reply: bytes | None = None
        self.port = 0
        self.happened = asyncio.Event()
        """What was last told has happened."""
        self.refused = 0
        """How many connections found nobody behind the proxy."""
        self.pieces = 0
        """How many pieces of requests and answers have come in."""

    def url(self, url: str) -> str:
        """The same URL, by way of this proxy."""
        parts = urlsplit(url)
        host = parts.netloc.rpartition(":")[0]
        return urlunsplit(parts._replace(netloc=f"{host}:{self.port}"))

    async def __aenter__(self) -> Proxy:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._listening is not None, "it was entered"
        self._listening.close()
        self.let_pass()
        self.cut()
        await asyncio.gather(*(pump for link in self._links for pump in link.pumps))

    def down(self) -> None:
        """Cut every connection, also those that are made from now on."""
        self._refusing = True
        self.cut()

    def up(self) -> None:
        """Let connections in again."""
        self._refusing = False

    def cut(self) -> None:
        """Cut every open connection."""
        for link in list(self._links):
            link.cut()

    def hold(self) -> None:
        """Let nothing pass any more, and keep every connection open."""
        self._passing.clear()

    def let_pass(self) -> None:
        """Let things pass again, what was held first."""
        self._passing.set()

    def answer(self, reply: bytes | None) -> None:
        """From now on answer everything with these bytes, in the server's place; None: no longer."""
        self._reply = reply
        self.cut()

    def cut_the_answer_to(self, *markers: bytes, after: int = 0) -> None:
        """Pass so many bytes of an answer, and cut its connection.

        Args:
            markers: what requests have in them, one after the other on one connection; the
                answer is that to the last of them. It has come from the server by then.
            after: how many bytes of it pass.
        """

        def cut(link: _Link, answer: bytes) -> None:
            link.left = after

        self._watch(markers, cut)

    def go_down_after_the_answer_to(self, *markers: bytes) -> None:
        """Pass the answer to the last of these requests, then :meth:`down`."""

        def go(link: _Link, answer: bytes) -> None:
            link.left = len(answer)
            self._refusing = True
            for other in self._links - {link}:
                other.cut()

        self._watch(markers, go)

    def _watch(self, markers: tuple[bytes, ...], on_answer: Callable[[_Link, bytes], None]) -> None:
        self.happened.clear()
        self._markers, self._on_answer = markers, on_answer
        for link in self._links:
            link.seen = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            self.refused += 1
            writer.transport.abort()
            return
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            self.refused += 1
            writer.transport.abort()
            return
        link = _Link(writer, to_server)
        self._links.add(link)
        link.pumps = [
            asyncio.create_task(self._pump(link, reader, self._request)),
            asyncio.create_task(self._pump(link, from_server, self._answer)),
        ]
        await asyncio.wait(link.pumps)
        self._links.discard(link)

    async def _pump(
        self, link: _Link, reader: asyncio.StreamReader, take: Callable[[_Link, bytes], None]
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                self.pieces += 1
                await self._passing.wait()
                take(link, data)
        link.client.close()
        link.server.close()

    def _request(self, link: _Link, data: bytes) -> None:
        if self._reply is not None:
            link.client.write(self._reply)
            link.client.close()
            return
        if link.seen < len(self._markers) and self._markers[link.seen] in data:
            link.seen += 1
        link.server.write(data)

    def _answer(self, link: _Link, data: bytes) -> None:
        if self._markers and link.seen == len(self._markers) and self._on_answer is not None:
            self._markers = ()
            self._on_answer(link, data)
            self.happened.set()
        if link.left is not None:
            passed, link.left = data[: link.left], max(link.left - len(data), 0)
            link.client.write(passed)
            if not link.left:
                # What was written goes out first: an abort would drop it.
                link.client.close()
                link.server.transport.abort()
            return
        link.client.write(data)
