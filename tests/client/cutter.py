"""A connection that can be cut at will: a proxy between a client and a gateway, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

__all__ = ["Cutter", "cutter"]


class Cutter:
    """What a test holds of it."""

    def __init__(self, upstream: str | None) -> None:
        self.url = ""
        self.upstream = upstream
        """Where it leads; None: whoever connects is cut off."""
        self.replies_to_cut = 0
        """So many replies are cut off before their first byte: the gateway has done what was asked."""
        self.requests: list[str] = []
        """The first lines of the requests that came by."""
        self.bytes_until_cut: int | None = None
        """Once so many bytes of a reply came by, everything is cut."""
        self._open: set[asyncio.StreamWriter] = set()
        self._stalled: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Cut every connection now."""
        for writer in list(self._open):
            writer.transport.abort()

    def stall(self) -> None:
        """Let nothing more through to who is connected now, without a word."""
        self._stalled |= self._open

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if self.upstream is None:
            writer.transport.abort()
            return
        url = urlsplit(self.upstream)
        try:
            from_gateway, to_gateway = await asyncio.open_connection(url.hostname, url.port)
        except OSError:
            writer.transport.abort()
            return
        ours = {writer, to_gateway}
        self._open |= ours
        try:
            await asyncio.gather(self._there(reader, to_gateway), self._back(from_gateway, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass  # one side is gone, and so is the other now
        finally:
            self._open -= ours
            for one in ours:
                one.transport.abort()
            for one in ours:
                with contextlib.suppress(OSError):
                    await one.wait_closed()

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            line = data.partition(b"\r\n")[0]
            if line.endswith(b"HTTP/1.1"):
                self.requests.append(line.decode().removesuffix(" HTTP/1.1"))
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("the client is gone")

    async def _back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            if self.replies_to_cut and data.startswith(b"HTTP/1.1"):
                self.replies_to_cut -= 1
                raise ConnectionResetError("cut")
            if self.bytes_until_cut is not None:
                self.bytes_until_cut -= len(data)
                if self.bytes_until_cut < 0:
                    self.bytes_until_cut = None
                    raise ConnectionResetError("cut")
            if writer in self._stalled:
                continue
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError("the gateway is gone")


@asynccontextmanager
async def cutter(upstream: str | None) -> AsyncIterator[Cutter]:
    """A proxy on a port of its own, which leads to a gateway."""
    found = Cutter(upstream)
    server = await asyncio.start_server(found.serve, "127.0.0.1", 0)
    try:
        found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield found
    finally:
        server.close()
        found.cut()
        await server.wait_closed()
