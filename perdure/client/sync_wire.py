"""Sends what :mod:`perdure.client.calls` describes, and blocks; :mod:`perdure.client.aio_wire` awaits."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import httpx2

from perdure.client.call import Call
from perdure.client.endpoint import Endpoint, reply_of
from perdure.client.failures import Again, Attempts
from perdure.client.reading import DownloadReader, Reader, cut, taken
from perdure.client.results import Page
from perdure.client.uploads import Upload
from perdure.errors import PerdureError

__all__ = ["SyncWire"]

T = TypeVar("T")


class SyncWire:
    """A way to a gateway.

    Args:
        endpoint: the gateway.
        http: connections to it.
    """

    def __init__(self, endpoint: Endpoint, http: httpx2.Client) -> None:
        self.endpoint, self.http = endpoint, http

    def send(self, call: Call[T], upload: Upload | None = None) -> T:
        """The answer to a request, at the first try that has one.

        Raises:
            PerdureError: what it says went wrong, or GatewayUnavailable.
        """
        attempts = Attempts(self.endpoint.patience, repeatable=call.repeatable)
        while True:
            try:
                return self._once(call, call.content if upload is None else upload.content())
            except Again as again:
                if upload is not None and not upload.fresh:
                    raise again.error from again.error.__cause__
                time.sleep(attempts.pause(again))

    def pages(self, page: Callable[[str | int | None], Call[Page[T]]]) -> Iterator[T]:
        """The items of all pages."""
        cursor: str | int | None = None
        while True:
            found = self.send(page(cursor))
            yield from found.items
            if found.next is None:
                return
            cursor = found.next

    def stream(self, reader: Reader[T]) -> Generator[T, None, None]:
        """What a reader makes of its stream, over as many connections as it takes."""
        attempts = Attempts(self.endpoint.patience)
        while not reader.over:
            try:
                with self._opened(reader.call, reader.refused) as response:
                    if response is None:
                        return
                    attempts.opened()
                    reader.opened(response.status_code)
                    if reader.over:
                        return
                    for message in httpx2.EventSource(response, max_event_size=None):
                        item, moved = taken(reader, message.event, message.data)
                        if moved:
                            attempts.moved()
                        if item is not None:
                            yield item
                        if reader.over:
                            return
                raise cut(reader.call)
            except httpx2.RequestError as error:
                time.sleep(attempts.pause(self.endpoint.broken(error, reader.call)))
            except Again as again:
                time.sleep(attempts.pause(again))

    def download(self, reader: DownloadReader) -> Generator[bytes, None, None]:
        """The bytes that a reader asks for, over as many connections as it takes."""
        attempts = Attempts(self.endpoint.patience)
        while not reader.over:
            try:
                with self._opened(reader.call, reader.refused) as response:
                    if response is None:
                        return
                    reader.opened(response.headers)
                    for chunk in response.iter_bytes():
                        reader.got(len(chunk))
                        attempts.moved()
                        yield chunk
                if not reader.over:
                    raise cut(reader.call)
            except httpx2.RequestError as error:
                time.sleep(attempts.pause(self.endpoint.broken(error, reader.call)))
            except Again as again:
                time.sleep(attempts.pause(again))

    def _once(self, call: Call[T], content: bytes | Iterator[bytes] | None) -> T:
        try:
            response = self.http.request(**self.endpoint.sent(call), content=content)
        except httpx2.RequestError as error:
            raise self.endpoint.broken(error, call) from error
        failure = self.endpoint.failure(response, call)
        if failure is not None:
            raise failure
        return call.result(reply_of(response))

    @contextmanager
    def _opened(
        self, call: Call[None], refused: Callable[[PerdureError], None]
    ) -> Iterator[httpx2.Response | None]:
        """A response that is read as it comes; None where it was refused, and that is the end."""
        with self.http.stream(**self.endpoint.sent(call, stream=True), content=call.content) as response:
            if response.status_code < 300:
                yield response
                return
            response.read()
            failure = self.endpoint.failure(response, call)
        if isinstance(failure, Again):
            raise failure
        assert failure is not None, "a status of 300 or more is a failure"
        refused(failure)
        yield None
