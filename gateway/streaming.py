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
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING, Unpack

from gateway.access import Look, unwatched
from gateway.asking import Asking
from gateway.runner import Answer, Said, new_id
from gateway.tail import Closed, Item, Partial, Rewound, Tail
from perdure.errors import SessionNotFound, StorageUnavailable
from perdure.types import Event, SessionKey
from storage.feed import Subscription
from storage.turns import JOINED

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
        self.asking = Asking()
        """The turns that these streams, and other requests, wait for."""

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
        await self.asking.close()


async def follow(
    services: Services, key: SessionKey, *, after: int = 0, partial: bool = True, look: Look = unwatched
) -> AsyncGenerator[Item]:
    """A session from the seq ``after`` on: what is in its log, then what comes. ``Closed`` ends it.

    Args:
        services: the gateway's.
        key: the session.
        after: the seq of the last event that the client has.
        partial: whether to give partials, too.
        look: is asked again and again whether the client may still listen.

    Raises:
        Unauthenticated: it may not any more.
        SessionNotFound: there is no such session.
        StorageUnavailable: the database is away at the beginning. Later than that it is waited for.
    """
    streams = services.streams
    async with services.store.feed.subscribe(key) as reader:
        with streams.reading(reader):
            tail = Tail(services.store, key, reader, after=after, partials=partial)
            while not streams.stopping:
                await look()
                pause = streams.heartbeat
                try:
                    async with aclosing(tail.new()) as items:
                        async for item in items:
                            await look()
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
    partial: bool = True,
    look: Look = unwatched,
    **said: Unpack[Said],
) -> AsyncGenerator[Event | Partial | Answer]:
    """Send a message and give what its turn says, in order: partials and stored events, then the answer.

    The user's own event is the first of them, also where it joins a turn that is under way. Under a
    message id that was sent before, it is the same turn: what it said so far, then the rest. Close
    the iterator (``aclosing``) to stop listening; the turn goes on.

    Args:
        services: the gateway's.
        key: the session, which is started if there is none.
        partial: whether to give partials, too.
        look: is asked again and again whether the client may still listen.
        said: the message, as :meth:`gateway.runner.Runner.ask` takes it.

    Returns:
        Without an answer at its end only if the server stops meanwhile.

    Raises:
        Unauthenticated: the client may not listen any more.
        PerdureError: whatever :meth:`gateway.runner.Runner.ask` raises. A new message that is
            refused has said nothing before.
    """
    invocation_id, streams = said.get("message_id") or new_id(), services.streams
    said["message_id"] = invocation_id
    async with services.store.feed.subscribe(key) as reader:
        place = await services.store.place_of(key, invocation_id)
        tail = Tail(services.store, key, reader, after=place, partials=partial)
        asking = streams.asking.ask(services.runner, key, said)
        turns = {invocation_id}

        def answered(_: asyncio.Task[Answer]) -> None:
            reader.wake()

        asking.add_done_callback(answered)
        try:
            with streams.reading(reader):
                while not streams.stopping:
                    await look()
                    answer, pause = asking.result() if asking.done() else None, streams.heartbeat
                    if answer is not None:
                        reader.look()  # All that the turn wrote is there by now.
                    try:
                        async with aclosing(tail.new()) as items:
                            async for item in items:
                                await look()
                                if isinstance(item, Event) and item.meta.get(JOINED) == invocation_id:
                                    turns.add(item.invocation_id)  # From here on it is that turn's answer.
                                if isinstance(item, Event | Partial) and _belongs(item, turns):
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
            asking.remove_done_callback(answered)


def _belongs(item: Event | Partial, turns: set[str]) -> bool:
    """Whether something is said by a turn. Summaries bear the id of a turn, and come after it."""
    if isinstance(item, Partial):
        return item.answering.invocation_id in turns
    return item.invocation_id in turns and item.live and item.compaction is None
