"""Streams for programs that await. An iterator that is dropped, or closed, closes its connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Generic, Self, TypeVar

from perdure.client.aio_wire import AsyncWire
from perdure.client.call import Call
from perdure.client.reading import Reader, Reason, SessionReader, TurnReader
from perdure.client.results import Answer, Partial, Rewound
from perdure.errors import InvalidOption
from perdure.types import Event, SessionKey

__all__ = ["AsyncSessionStream", "AsyncTurnStream"]

T = TypeVar("T")


class _Stream(Generic[T]):
    """What both have: it is gone through once."""

    def __init__(self, wire: AsyncWire, reader: Reader[T]) -> None:
        # The generator must not know this object: else nobody would notice that it was dropped.
        self._items = wire.stream(reader)

    def __aiter__(self) -> AsyncIterator[T]:
        return self

    async def __anext__(self) -> T:
        return await anext(self._items)

    async def aclose(self) -> None:
        """Stop listening."""
        await self._items.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class AsyncTurnStream(_Stream[Event | Partial]):
    """What a turn says: pieces of answers, and the events that they become, in order.

        stream = session.stream("Add one.")
        async for event in stream:
            if event.partial:
                print(event.text, end="", flush=True)
        answer = await stream.finish()

    It is gone through once. To stop listening, drop it or :meth:`aclose` it; the turn goes on.
    """

    def __init__(self, wire: AsyncWire, call: Call[None]) -> None:
        self._reader, self._id = TurnReader(call), call.id
        super().__init__(wire, self._reader)

    @property
    def invocation_id(self) -> str:
        """The turn's id."""
        assert self._id is not None, "a message has one"
        return self._id

    async def finish(self) -> Answer:
        """How the turn ended; reads on until then.

        Raises:
            InvalidOption: the stream was closed before.
        """
        async for _ in self:
            pass
        if self._reader.answer is None:
            raise InvalidOption(
                f"the stream of turn {self._id} was closed before its end; ask again under its id"
            )
        return self._reader.answer


class AsyncSessionStream(_Stream[Event | Partial | Rewound]):
    """What a session's log has, and then gets: events, pieces of answers, and what rewinds make live."""

    def __init__(self, wire: AsyncWire, key: SessionKey, *, after: int, live: bool) -> None:
        self._reader = SessionReader(key, after=after, live=live)
        super().__init__(wire, self._reader)

    @property
    def seen(self) -> int:
        """The seq of the last event that came: where to go on another day."""
        return self._reader.seen

    @property
    def reason(self) -> Reason | None:
        """Why nothing more comes, after the last; None before."""
        return self._reader.reason
