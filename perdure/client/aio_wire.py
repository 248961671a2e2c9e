"""Sends what :mod:`perdure.client.calls` describes, and awaits; :mod:`perdure.client.sync_wire` blocks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import httpx2

from perdure.client.call import Call
from perdure.client.endpoint import Endpoint, reply_of
from perdure.client.failures import Again, Attempts
from perdure.client.reading import DownloadReader, Reader, cut, taken
from perdure.client.results import Page
from perdure.client.uploads import AsyncUpload
from perdure.errors import PerdureError

__all__ = ["AsyncWire"]

T = TypeVar("T")


class AsyncWire:
    """A way to a gateway.

    Args:
        endpoint: the gateway.
        http: connections to it.
    """

    def __init__(self, endpoint: Endpoint, http: httpx2.AsyncClient) -> None:
        self.endpoint, self.http = endpoint, http

    async def send(self, call: Call[T], upload: AsyncUpload | None = None) -> T:
        """The answer to a request, at the first try that has one.

        Raises:
            PerdureError: what it says went wrong, or GatewayUnavailable.
        """
        attempts = Attempts(self.endpoint.patience, repeatable=call.repeatable)
        while True:
            try:
                return await self._once(call, call.content if upload is None else upload.content())
            except Again as again:
                if upload is not None and not upload.fresh:
                    raise again.error from again.error.__cause__
                await asyncio.sleep(attempts.pause(again))

    async def pages(self, page: Callable[[str | int | None], Call[Page[T]]]) -> AsyncIterator[T]:
        """The items of all pages."""
        cursor: str | int | None = None
        while True:
            found = await self.send(page(cursor))
            for item in found.items:
                yield item
            if found.next is None:
                return
            cursor = found.next

    async def stream(self, reader: Reader[T]) -> AsyncGenerator[T, None]:
        """What a reader makes of its stream, over as many connections as it takes."""
        attempts = Attempts(self.endpoint.patience)
        while not reader.over:
            try:
                async with self._opened(reader.call, reader.refused) as response:
                    if response is None:
                        return
                    attempts.opened()
                    reader.opened(response.status_code)
                    if reader.over:
                        return
                    async for message in httpx2.EventSource(response, max_event_size=None):
                        item, moved = taken(reader, message.event, message.data)
                        if moved:
                            attempts.moved()
                        if item is not None:
                            yield item
                        if reader.over:
                            return
                raise cut(reader.call)
            except httpx2.RequestError as error:
                await asyncio.sleep(attempts.pause(self.endpoint.broken(error, reader.call)))
            except Again as again:
                await asyncio.sleep(attempts.pause(again))

    async def download(self, reader: DownloadReader) -> AsyncGenerator[bytes, None]:
        """The bytes that a reader asks for, over as many connections as it takes."""
        attempts = Attempts(self.endpoint.patience)
        while not reader.over:
            try:
                async with self._opened(reader.call, reader.refused) as response:
                    if response is None:
                        return
                    reader.opened(response.headers)
                    async for chunk in response.aiter_bytes():
                        reader.got(len(chunk))
                        attempts.moved()
                        yield chunk
                if not reader.over:
                    raise cut(reader.call)
            except httpx2.RequestError as error:
                await asyncio.sleep(attempts.pause(self.endpoint.broken(error, reader.call)))
            except Again as again:
                await asyncio.sleep(attempts.pause(again))

    async def _once(self, call: Call[T], content: bytes | AsyncIterator[bytes] | None) -> T:
        try:
            response = await self.http.request(**self.endpoint.sent(call), content=content)
        except httpx2.RequestError as error:
            raise self.endpoint.broken(error, call) from error
        failure = self.endpoint.failure(response, call)
        if failure is not None:
            raise failure
        return call.result(reply_of(response))

    @asynccontextmanager
    async def _opened(
        self, call: Call[None], refused: Callable[[PerdureError], None]
    ) -> AsyncIterator[httpx2.Response | None]:
        """A response that is read as it comes; None where it was refused, and that is the end."""
        async with self.http.stream(
            **self.endpoint.sent(call, stream=True), content=call.content
        ) as response:
            if response.status_code < 300:
                yield response
                return
            await response.aread()
            failure = self.endpoint.failure(response, call)
        if isinstance(failure, Again):
            raise failure
        assert failure is not None, "a status of 300 or more is a failure"
        refused(failure)
        yield None
