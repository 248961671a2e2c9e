"""A session as it grows, and one turn as it goes: what the streams of every route are made of.

:func:`follow` is for those who watch a session, :func:`turn_events` for those who send a
message and want to hear what comes of it. Both give :class:`perdure.types.Event` for what is
stored and :class:`Partial` for what is only being said, in order; :mod:`gateway.sse` makes
server-sent events of them. A reader that is slow, or goes away, is nobody's business but its
own: the turn does not know of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING

from gateway.runner import Answer, new_id
from gateway.tail import Closed, Item, Partial, Rewound, Tail
from perdure.errors import SessionNotFound, StorageUnavailable
from perdure.types import Event, Json, JsonObject, SessionKey
from storage.feed import Subscription

if TYPE_CHECKING:
    from gateway.services import Services

__all__ = ["Closed", "Item", "Partial", "Rewound", "Streams", "follow", "turn_events"]

_log = logging.getLogger("perdure.gateway")

HEARTBEAT = 15.0
"""Seconds of silence after which a stream says that it is there, and its reader looks by itself."""
RETRY = 1.0
"""Seconds between two looks at a database that is away."""
STOPS_WITHIN = 5.0
"""Seconds that streams get to say their last word when the server stops."""


class Streams:
    """The streams that a gateway has open.

    Args:
        heartbeat: seconds of silence after which a stream says that it is there.
    """

    def __init__(self, *, heartbeat: float = HEARTBEAT) -> None:
        self.heartbeat = heartbeat
        self.stopping = False
        """The server is about to stop: every stream ends, and its client goes to another."""
        self._readers: set[Subscription] = set()
        self._closed = asyncio.Event()
        self._asking: set[asyncio.Task[Answer]] = set()

    def __len__(self) -> int:
        """How many are open."""
        return len(self._readers)

    @contextmanager
    def reading(self, reader: Subscription) -> Iterator[None]:
        """Count a stream for as long as the block runs."""
        self._readers.add(reader)
        try:
            yield
        finally:
            self._readers.discard(reader)
            if not self._readers:
                self._closed.set()

    def leave(self, asking: asyncio.Task[Answer]) -> None:
        """Have a message sent whose reader may be gone: asyncio itself holds no task."""
        self._asking.add(asking)
        asking.add_done_callback(self._left)

    def _left(self, asking: asyncio.Task[Answer]) -> None:
        self._asking.discard(asking)
        if not asking.cancelled() and (error := asking.exception()) is not None:
            _log.debug("a turn that was listened to failed: %s", type(error).__name__)

    async def close(self) -> None:
        """Have every stream end, before the server does; return when they have, or after 5 seconds."""
        self.stopping = True
        self._closed.clear()
        for reader in self._readers:
            reader.wake()
        if self._readers:
            try:
                async with asyncio.timeout(STOPS_WITHIN):
                    await self._closed.wait()
            except TimeoutError:
                _log.warning("%d streams did not end in time, and are cut", len(self._readers))
        for asking in list(self._asking):
            asking.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)


async def follow(
    services: Services, key: SessionKey, *, after: int = 0, partial: bool = True
) -> AsyncGenerator[Item]:
    """A session from the seq ``after`` on: what is in its log, then what comes. ``Closed`` ends it.

    Args:
        services: the gateway's.
        key: the session.
        after: the seq of the last event that the client has.
        partial: whether to give partials, too.

    Raises:
        SessionNotFound: there is no such session.
        StorageUnavailable: the database is away at the beginning. Later than that it is waited for.
    """
    streams = services.streams
    async with services.store.feed.subscribe(key) as reader:
        with streams.reading(reader):
            tail = Tail(services.store, key, reader, after=after, partials=partial)
            while not streams.stopping:
                pause = streams.heartbeat
                try:
                    async with aclosing(tail.new()) as items:
                        async for item in items:
                            yield item
                            if isinstance(item, Closed):
                                return
                            if streams.stopping:
                                break
                except StorageUnavailable:
                    if tail.session is None:
                        raise
                    pause = RETRY
                await tail.wait(pause)
            yield Closed(reason="stopping")


async def turn_events(
    services: Services,
    key: SessionKey,
    *,
    text: str | None = None,
    content: JsonObject | None = None,
    message_id: str | None = None,
    reopen: bool = False,
    state: Mapping[str, Json] | None = None,
    partial: bool = True,
) -> AsyncGenerator[Event | Partial | Answer]:
    """Send a message and give what its turn says, in order: partials and stored events, then the answer.

    The user's own event is the first of them. Under a message id that was sent before, it is
    the same turn: what it said so far, then the rest. Close the iterator (``aclosing``) to
    stop listening; the turn goes on.

    Args:
        services: the gateway's.
        key: the session, which is started if there is none.
        text: what the user says; or ``content``, a genai ``Content`` in wire form.
        message_id: the invocation's id; a new one if there is none.
        reopen: open the session again if it was ended.
        state: a delta of the session's state, applied with the user's message.
        partial: whether to give partials, too.

    Returns:
        Without an answer at its end only if the server stops meanwhile.

    Raises:
        PerdureError: whatever :meth:`gateway.runner.Runner.ask` raises. A new message that is
            refused has said nothing before.
    """
    invocation_id, streams = message_id or new_id(), services.streams
    async with services.store.feed.subscribe(key) as reader:
        place = await services.store.place_of(key, invocation_id)
        tail = Tail(services.store, key, reader, after=place, partials=partial)
        asking = asyncio.create_task(
            services.runner.ask(
                key, text, content=content, message_id=invocation_id, reopen=reopen, state=state
            )
        )
        asking.add_done_callback(lambda _: reader.wake())
        try:
            with streams.reading(reader):
                while not streams.stopping:
                    answer, pause = asking.result() if asking.done() else None, streams.heartbeat
                    if answer is not None:
                        reader.look()  # All that the turn wrote is there by now.
                    try:
                        async with aclosing(tail.new()) as items:
                            async for item in items:
                                if isinstance(item, Event | Partial) and _belongs(item, invocation_id):
                                    yield item
                    except SessionNotFound:
                        pass  # The turn makes it.
                    except StorageUnavailable:
                        if answer is not None:
                            raise
                        pause = RETRY
                    if answer is not None:
                        yield answer
                        return
                    await tail.wait(pause)
        finally:
            streams.leave(asking)


def _belongs(item: Event | Partial, invocation_id: str) -> bool:
    """Whether something is said by a turn. Summaries bear the id of a turn, and come after it."""
    if isinstance(item, Partial):
        return item.answering.invocation_id == invocation_id
    return item.invocation_id == invocation_id and item.live and item.compaction is None
