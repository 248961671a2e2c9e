"""The feed across processes: PostgreSQL's LISTEN and NOTIFY, on one connection of their own.

**Changes are told after the commit, not in it.** A transaction that notifies holds a lock of
the whole server until its commit has reached the disk, so that such commits happen one by
one: 16 sessions that append at once got through 500 a second instead of 2,900. And a queue of
notifications that is full would fail the append itself. Here they go out beside it, as many
as have come up in one statement, whose own commit waits for no disk. What that costs is that
a process which dies between the two tells nobody: its retry does, or the reader's own clock.

**A session has a channel**, so that a gateway gets what its readers follow and nothing else.

**What was missed is asked for.** Who begins to follow, or finds a gap because the connection
was cut, asks in a channel that all who write listen to, and whoever runs a model for that
session says again what it has said so far. A reader that has some of it skips that.

One task has the connection. Nobody else waits for it: what is to be told is put where the
task finds it, and while there is no connection it is kept, changes as one a session and
partials in their drafts. After a reconnect every reader is sent to the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from perdure.types import JsonObject, SessionKey
from storage.feed import Answering, Draft, Feed, Preview, Topic
from storage.feed_wire import Change, Piece, Pieces, Writer, asks, asks_channel, channel_of, read
from storage.outages import LOST

__all__ = ["PostgresFeed"]

PACE = 0.01
"""Seconds between two statements that notify: what comes up meanwhile goes together."""
AT_ONCE = 500
"""Notifications that one statement sends."""
PING_EVERY = 10.0
"""Seconds without anything to do after which the connection is tried: a dead one may look idle."""
CONNECTS_WITHIN = 10.0
"""Seconds after which a try to connect has failed."""
LISTENS_WITHIN = 5.0
"""Seconds that a reader waits for its LISTEN. Without it, it is told late, but misses nothing."""
FLUSH_WITHIN = 1.0
"""Seconds that closing waits for what is still to be told."""
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
"""Seconds between tries to connect; the last for ever."""
MOST_CHANGES = 10_000
"""Sessions whose changes wait for a connection; the readers of more than that find out by themselves."""

_NOTIFY = "SELECT pg_notify(channel, payload) FROM unnest($1::text[], $2::text[]) AS told (channel, payload)"
_BROKEN = (OSError, TimeoutError, asyncpg.PostgresError, *LOST)

_log = logging.getLogger("perdure.storage")

Connect = Callable[[], Awaitable[Any]]


class PostgresFeed(Feed):
    """The feed of a database on PostgreSQL.

    Args:
        connect: opens a connection that nobody else uses, and whose statements time out.
        announce: whether this process tells others what it writes and what its models say.
            One that does not may follow all the same.
    """

    def __init__(self, connect: Connect, *, announce: bool) -> None:
        super().__init__()
        self._connect = connect
        self._announce = announce
        self._writer = Writer()
        self._changes: dict[SessionKey, int | None] = {}
        self._telling = False
        """Some of them are on their way."""
        # In order: of two tries at one answer the first has to be over before the second is told.
        self._previews: dict[_Preview, None] = {}
        self._asking: set[SessionKey] = set()
        self._listening: defaultdict[SessionKey, asyncio.Event] = defaultdict(asyncio.Event)
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._link: _Link | None = None
        self._failures = 0
        self._closed = False

    def changed(self, key: SessionKey, seq: int | None = None) -> None:
        """See :meth:`Feed.changed`."""
        if not self._announce:
            return
        if key in self._changes:
            seq = _both(self._changes.pop(key), seq)
        elif len(self._changes) >= MOST_CHANGES:
            del self._changes[next(iter(self._changes))]
        self._changes[key] = seq
        self._wake()

    @contextmanager
    def preview(self, key: SessionKey, answering: Answering) -> Iterator[Preview]:
        """See :meth:`Feed.preview`."""
        preview = _Preview(key, Draft(answering), self._wake)
        if self._announce:
            self._previews[preview] = None
        try:
            yield preview
        finally:
            preview.draft.over = True
            self._wake()

    async def close(self) -> None:
        """Tell what is still to be told, if that is quickly done, and close the connection."""
        self._closed = True
        if self._task is None:
            return
        if self._changes or self._telling:
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_WITHIN):
                    await self._idle.wait()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _followed(self, key: SessionKey, topic: Topic) -> None:
        listening = self._listening[key]
        if len(topic.readers) == 1:
            self._asking.add(key)
            self._wake()
        try:
            async with asyncio.timeout(LISTENS_WITHIN):
                await listening.wait()
        except TimeoutError:
            _log.warning("there is no connection yet to follow %s with: changes are seen late", key)

    def _let_go(self, key: SessionKey, topic: Topic) -> None:
        super()._let_go(key, topic)
        if key not in self._topics:
            self._wake()

    def _wake(self) -> None:
        """There is something for the task to do."""
        if self._closed:
            return
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="perdure-feed")
            self._task.add_done_callback(_report)
        self._idle.clear()
        self._work.set()

    async def _run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(CONNECTS_WITHIN):
                    connection = await self._connect()
                try:
                    await self._serve(_Link(connection, await connection.fetchval("SELECT current_schema()")))
                finally:
                    self._link = None
                    for listening in self._listening.values():
                        listening.clear()
                    with suppress(*_BROKEN):
                        await connection.close(timeout=1)
            except _BROKEN as error:
                if self._failures == 0:
                    _log.warning("the feed has no connection to the database, and tries again: %r", error)
                await asyncio.sleep(PAUSES[min(self._failures, len(PAUSES) - 1)])
                self._failures += 1

    async def _serve(self, link: _Link) -> None:
        """Use a connection until it breaks."""
        link.connection.add_termination_listener(lambda _: self._work.set())
        if self._announce:
            await link.connection.add_listener(asks_channel(link.schema), self._asked)
        self._link = link
        while True:
            self._work.clear()
            await self._listen(link)
            told = await self._tell(link)
            self._failures = 0
            if told:
                await asyncio.sleep(PACE)
                continue
            self._idle.set()
            try:
                async with asyncio.timeout(PING_EVERY):
                    await self._work.wait()
            except TimeoutError:
                await link.connection.fetchval("SELECT 1")
            if link.connection.is_closed():
                raise ConnectionError("it was closed by the server")

    async def _listen(self, link: _Link) -> None:
        """Have the channels of what is followed, and no other."""
        for key in [key for key in link.channels if key not in self._topics]:
            channel = link.channels.pop(key)
            self._listening.pop(key, None)
            link.pieces.pop(channel, None)
            await link.connection.remove_listener(channel, self._told)
        for key in [key for key in self._topics if key not in link.channels]:
            channel = channel_of(link.schema, key)
            link.keys[channel] = key
            await link.connection.add_listener(channel, self._told)
            link.channels[key] = channel
            if topic := self._topics.get(key):
                # Since the connection before this one anything may have happened.
                topic.changed()
                self._asking.add(key)
            self._listening[key].set()

    async def _tell(self, link: _Link) -> bool:
        """Tell all that is to be told. Whether there was anything."""
        previews = [preview for preview in self._previews if preview.pending]
        changes, self._changes = self._changes, {}
        asking, self._asking = self._asking & link.channels.keys(), self._asking - link.channels.keys()
        told: list[tuple[str, str]] = []
        for preview in previews:
            channel, piece = channel_of(link.schema, preview.key), preview.take()
            told += [(channel, text) for text in self._writer.piece(piece)]
        for key, seq in changes.items():
            told += [(channel_of(link.schema, key), text) for text in self._writer.change(seq)]
        asked = asks_channel(link.schema)
        told += [(asked, text) for text in asks([link.channels[key] for key in asking])]
        self._telling = bool(changes)
        try:
            for start in range(0, len(told), AT_ONCE):
                channels, payloads = zip(*told[start : start + AT_ONCE], strict=True)
                await link.connection.fetch(_NOTIFY, channels, payloads)
        except BaseException:
            # Said twice is as well as said once.
            for preview in previews:
                preview.told = 0
            for key, seq in changes.items():
                self._changes[key] = _both(self._changes[key], seq) if key in self._changes else seq
            raise
        finally:
            self._telling = False
        for preview in [preview for preview in self._previews if preview.done]:
            del self._previews[preview]
        return bool(told)

    def _told(self, connection: Any, _pid: int, channel: str, payload: str) -> None:
        """A notification of a session that is followed here."""
        link = self._link
        if link is None or link.connection is not connection:
            return
        key = link.keys[channel]
        topic = self._topics.get(key)
        if topic is None:
            return
        try:
            whole = link.pieces[channel].add(payload)
            message = None if whole is None else read(whole)
        except ValueError as error:
            _log.warning("on the channel of %s came what is passed over: %s", key, error)
            return
        if isinstance(message, Change):
            topic.changed(message.seq)
        elif message is not None and not _taken(topic, message):
            self._ask_again(link, key, message.answering)

    def _ask_again(self, link: _Link, key: SessionKey, answering: Answering) -> None:
        """Some of an answer was missed. On one connection nothing is lost, so asking once is enough."""
        if link.asked.get(key) != answering.run:
            link.asked[key] = answering.run
            self._asking.add(key)
            self._wake()

    def _asked(self, connection: Any, _pid: int, _channel: str, payload: str) -> None:
        """Somebody wants to hear from the beginning what is being said in some sessions."""
        link = self._link
        if link is None or link.connection is not connection or not self._previews:
            return
        channels = set(payload.split())
        for preview in self._previews:
            if channel_of(link.schema, preview.key) in channels:
                preview.told = 0
                self._wake()


@dataclass(eq=False)
class _Link:
    """A connection, and what was done on it."""

    connection: Any
    schema: str
    channels: dict[SessionKey, str] = field(default_factory=dict)
    """What it listens to."""
    keys: dict[str, SessionKey] = field(default_factory=dict)
    pieces: defaultdict[str, Pieces] = field(default_factory=lambda: defaultdict(Pieces))
    asked: dict[SessionKey, str] = field(default_factory=dict)
    """The run whose beginning was asked for last."""


class _Preview:
    """An answer that a model of this process is giving."""

    def __init__(self, key: SessionKey, draft: Draft, wake: Callable[[], None]) -> None:
        self.key = key
        self.draft = draft
        self.told = 0
        """How many characters of it went out."""
        self.done = False
        """It is over, and that went out, too."""
        self._wake = wake

    def add(self, content: JsonObject) -> None:
        if self.draft.add(content.get("parts") or ()):
            self._wake()

    @property
    def pending(self) -> bool:
        """Whether there is something to tell of it."""
        return self.draft.length > self.told or self.draft.over

    def take(self) -> Piece:
        """What is to be told of it now."""
        piece = Piece(
            answering=self.draft.answering,
            offset=self.told,
            parts=self.draft.since(self.told),
            over=self.draft.over,
        )
        self.told, self.done = self.draft.length, self.draft.over
        return piece


def _taken(topic: Topic, piece: Piece) -> bool:
    """Put a piece where it belongs; False if there is a gap before it."""
    shown = topic.draft
    if shown is None or shown.answering.run != piece.answering.run:
        begun = Draft(piece.answering)
        if piece.offset > 0:
            return piece.over or (shown is not None and not shown.gives_way_to(begun))
        if not topic.show(begun):
            return True
        shown = begun
    if piece.offset > shown.length:
        return piece.over
    received = Draft(piece.answering)
    received.add(piece.parts)
    shown.add(received.since(shown.length - piece.offset))
    shown.over = piece.over
    topic.wake()
    return True


def _both(one: int | None, other: int | None) -> int | None:
    """Two changes as one."""
    return None if one is None or other is None else max(one, other)


def _report(task: asyncio.Task[None]) -> None:
    """Say that the task ended of what it should not have met."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("the feed of this process has ended; readers see changes late from now on", exc_info=error)
