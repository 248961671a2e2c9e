"""The two faces of the client behind one: the one that blocks runs in threads, so that tests await both."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx2

import perdure.client
from perdure.client import AsyncClient, Client
from perdure.client.aio_wire import AsyncWire
from perdure.client.sync_wire import SyncWire

__all__ = ["Face", "all_raise", "counterpart"]


class Face:
    """One way to use the client.

    Args:
        kind: which.
    """

    def __init__(self, kind: Literal["sync", "async"]) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return self.kind

    @asynccontextmanager
    async def client(
        self, url: str, token: str | None = None, *, handler: Callable[..., Any] | None = None, **more: Any
    ) -> AsyncIterator[Any]:
        """A client; it is not typed, because it stands for two.

        Args:
            url: the gateway's.
            token: the token.
            handler: answers requests in place of a gateway.
            more: the client's options.
        """
        transport: Any = None if handler is None else httpx2.MockTransport(handler)
        if self.kind == "async":
            async with (
                httpx2.AsyncClient(trust_env=False, transport=transport) as http,
                AsyncClient(url, token, http=http, **more) as client,
            ):
                yield client
        else:
            with (
                httpx2.Client(trust_env=False, transport=transport) as connections,
                Client(url, token, http=connections, **more) as blocking,
            ):
                yield Threaded(blocking)


async def all_raise(kind: type[Exception], *doing: Callable[[], Any], match: str | None = None) -> None:
    """Each of these raises it."""
    for number, do in enumerate(doing):
        try:
            await do()
        except kind as error:
            said = str(error)
        else:
            raise AssertionError(f"{number} did not raise {kind.__name__}")
        assert match is None or match in said, number


def counterpart(kind: type) -> type | None:
    """The class of the other face that a class of the blocking one has."""
    if kind is SyncWire:
        return AsyncWire
    name = kind.__name__
    return getattr(perdure.client, f"Async{name}", None)


class Threaded:
    """An object of the blocking client, whose methods are awaited where those of the other are."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        found = counterpart(type(inner))
        assert found is not None
        self._other = found

    def __repr__(self) -> str:
        return repr(self._inner)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if not inspect.ismethod(found):
            return wrapped(found)
        awaited = getattr(self._other, {"close": "close"}.get(name, name), None)
        if inspect.isasyncgenfunction(awaited) or not inspect.iscoroutinefunction(awaited):
            return lambda *args, **more: wrapped(found(*args, **more))

        async def call(*args: Any, **more: Any) -> Any:
            return wrapped(await asyncio.to_thread(found, *args, **more))

        return call


_END = object()


class Iterating:
    """An iterator that blocks, iterated in threads."""

    def __init__(self, inner: Iterator[Any]) -> None:
        self._inner = inner

    def __aiter__(self) -> Iterating:
        return self

    async def __anext__(self) -> Any:
        found = await asyncio.to_thread(next, self._inner, _END)
        if found is _END:
            raise StopAsyncIteration
        return wrapped(found)

    async def aclose(self) -> None:
        self._inner.close()  # type: ignore[attr-defined]  # generators and streams have it

    async def __aenter__(self) -> Iterating:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def finish(self) -> Any:
        return await asyncio.to_thread(self._inner.finish)  # type: ignore[attr-defined]  # a turn's has it

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def wrapped(found: Any) -> Any:
    """What a test gets for what the blocking client gives."""
    if hasattr(found, "__next__"):
        return Iterating(found)
    if counterpart(type(found)) is not None and type(found).__module__.startswith("perdure.client.sync"):
        return Threaded(found)
    return found
