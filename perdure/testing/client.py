"""Controls a stand-in that runs in another process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener
from urllib.request import Request as HttpRequest

from perdure.errors import InvalidOption
from perdure.testing.faults import Controls, Fault, Script, told_by
from perdure.testing.request import Kind, Request

__all__ = ["StandInClient"]

_GRACE = 10.0


class StandInClient(Controls):
    """Says over HTTP what :class:`~perdure.testing.StandIn` can be told in its own process.

    The methods of :class:`~perdure.testing.faults.Controls` and the ones here block; those
    that are async do the same in a thread.

    Args:
        url: where the stand-in is.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # A proxy has no business between this machine and itself.
        self._opener = build_opener(ProxyHandler({}))

    def add(self, items: Sequence[Fault | Script]) -> None:
        """Queue faults and scripted answers."""
        for item in items:
            path, told = told_by(item)
            self._call(path, told)

    def release(self) -> None:
        """Let hanging and slow requests go on now."""
        self._call("release", {})

    def clear(self) -> None:
        """Forget faults and scripted answers that were not used yet."""
        self._call("clear", {})

    def requests(self, since: int = 0) -> list[Request]:
        """What was recorded after request number ``since``."""
        return [Request.from_json(record) for record in self._call(f"requests?since={since}")]

    def wait(
        self,
        *,
        in_flight: int = 0,
        requests: int = 0,
        kind: Kind | None = None,
        idle: bool = False,
        timeout: int = 30,
    ) -> None:
        """Block until so many requests are open, so many have come (of a kind), or none is open.

        Raises:
            TimeoutError: it was not so within ``timeout`` seconds.
        """
        query: dict[str, Any] = {"in_flight": in_flight, "requests": requests, "timeout": timeout}
        if kind is not None:
            query["kind"] = kind
        if idle:
            query["idle"] = 1
        self._call(f"wait?{urlencode(query)}", patience=timeout + _GRACE)

    async def wait_in_flight(self, count: int = 1, *, timeout: int = 30) -> None:  # noqa: ASYNC109 - the server's
        """Wait until so many requests are open.

        Raises:
            TimeoutError: they were not within ``timeout`` seconds.
        """
        await asyncio.to_thread(self.wait, in_flight=count, timeout=timeout)

    async def wait_for_requests(
        self,
        count: int,
        *,
        kind: Kind | None = None,
        timeout: int = 30,  # noqa: ASYNC109 - the server's
    ) -> None:
        """Wait until so many requests have come.

        Raises:
            TimeoutError: they had not within ``timeout`` seconds.
        """
        await asyncio.to_thread(self.wait, requests=count, kind=kind, timeout=timeout)

    def _call(self, path: str, told: Any = None, *, patience: float = _GRACE) -> Any:
        data = None if told is None else json.dumps(told).encode()
        request = HttpRequest(
            f"{self.url}/_control/{path}", data=data, method="GET" if data is None else "POST"
        )
        try:
            with self._opener.open(request, timeout=patience) as response:
                return json.load(response)
        except HTTPError as error:
            with error:
                reason = error.read().decode(errors="replace")
            if error.code == 408:
                raise TimeoutError(reason) from None
            raise InvalidOption(
                f"the stand-in at {self.url} answered {error.code} to {path}: {reason}"
            ) from None
