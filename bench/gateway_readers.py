"""Readers of sessions' streams, for the gateway's bench: many, cheap, and strict about what they get.

They speak HTTP by hand: a hundred clients of a library would take more of the machine than
the gateway that is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

__all__ = ["Reader", "Target"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a reader follows."""

    host: str
    port: int
    path: str
    token: str


class Reader:
    """One client of a session's stream, from the session's first event on."""

    def __init__(self, target: Target) -> None:
        self.events = 0
        """Stored events that came."""
        self.pieces = 0
        """Partial events that came."""
        self.missed = 0
        """Stored events that were left out."""
        self.twice = 0
        """Stored events that came again."""
        self.seq = 0
        """Of the last stored event."""
        self._target = target
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Connect, and read until :meth:`stop`."""
        self._task = asyncio.create_task(self._read())

    async def stop(self) -> None:
        """Go away. What went wrong meanwhile is raised."""
        assert self._task is not None, "it was started"
        self._task.cancel()
        [ended] = await asyncio.gather(self._task, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended

    async def until(self, seq: int, *, within: float) -> None:
        """Wait for an event, for so many seconds; what has not come by then counts as missed."""
        try:
            async with asyncio.timeout(within):
                while self.seq < seq:
                    assert self._task is not None, "it was started"
                    if self._task.done():
                        self._task.result()
                        raise ConnectionError(f"the stream {self._target.path} ended at seq {self.seq}")
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            self.missed += seq - self.seq

    async def _read(self) -> None:
        try:
            connection, writer = await asyncio.open_connection(self._target.host, self._target.port)
            try:
                writer.write(self._request())
                head = await connection.readuntil(b"\r\n\r\n")
                if b" 200 " not in head.partition(b"\r\n")[0]:
                    raise ConnectionError(f"no stream at {self._target.path}: {head.decode()}")
                async for message in _messages(connection):
                    self._take(message)
            finally:
                writer.close()
        finally:
            self._moved.set()

    def _request(self) -> bytes:
        target = self._target
        return (
            f"GET {target.path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\n"
            f"Accept: text/event-stream\r\nAuthorization: Bearer {target.token}\r\n\r\n"
        ).encode()

    def _take(self, message: bytes) -> None:
        if message.startswith(b"id: "):
            seq = int(message[4 : message.index(b"\n")])
            if seq <= self.seq:
                self.twice += 1
            else:
                self.missed += seq - self.seq - 1
                self.seq = seq
            self.events += 1
            self._moved.set()
        elif message.startswith(b"data: "):
            self.pieces += 1
        elif not message.startswith(b":"):  # a comment says that the stream is still there
            raise ConnectionError(f"on the stream {self._target.path} came {message[:200]!r}")


async def _messages(connection: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The messages of a response in chunks, their lines parted by line feeds, however they came."""
    rest = b""
    while size := int(await connection.readline() or b"0", 16):
        chunk = await connection.readexactly(size + 2)
        *whole, rest = (rest + chunk[:-2]).replace(b"\r\n", b"\n").split(b"\n\n")
        for message in whole:
            yield message
