"""The feed: who follows a session hears at once that its log moved, and what its model is saying.

Two things go through it, and neither is stored or seen by Temporal. A *change* says that
there is something new to read in the session's row or log. A *partial* is a piece of the
answer that a model is just giving. Whoever follows reads the log itself, so that a change
which is lost, doubled or late does no harm as long as somebody looks now and then; and a
partial is only a preview of the event that the log will have.

**Nobody waits for a reader.** Readers have no queues. What a model has said so far is kept
once, in a :class:`Draft`, and a reader only has its place in it: one that falls behind gets
the rest in one piece. A draft stops growing at :data:`LONGEST`, and the event has it all.

**The hazards.**

- An attempt that was given up may still be talking while its successor does. Drafts are
  ordered: by the session's epoch, by the log's head when the model was asked, by the attempt.
  A later one takes the place of an earlier one, and never the other way round.
- A partial can overtake the change that comes before it. It says which seq its event will
  stand behind, and whoever follows reads up to there first.

:class:`LocalFeed` works within one process and one event loop, for SQLite.
:mod:`storage.feed_postgres` works across processes.
"""

from __future__ import annotations

import asyncio
import secrets
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol
from weakref import WeakKeyDictionary, WeakValueDictionary

from perdure.types import JsonObject, SessionKey

__all__ = [
    "LONGEST",
    "Answering",
    "Draft",
    "Feed",
    "LocalFeed",
    "Partial",
    "Preview",
    "Subscription",
    "Topic",
    "local_feed",
]

LONGEST = 1_000_000
"""Characters of one answer that are shown before it is stored. What is longer comes with its event."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answering:
    """Which answer a model is giving."""

    event_id: str
    """The id that its event will have."""
    invocation_id: str
    author: str
    epoch: int
    """The session's, which the turn runs under."""
    after: int
    """The head of the log when the model was asked: the event comes behind it."""
    attempt: int
    """Which try of the activity it is."""
    run: str = field(default_factory=partial(secrets.token_hex, 4), compare=False)
    """Tells it from others of the same order, such as that of an activity that was started again."""

    @property
    def order(self) -> tuple[int, int, int]:
        """Greater for what came later, in one session."""
        return self.epoch, self.after, self.attempt


@dataclass(frozen=True, kw_only=True, slots=True)
class Partial:
    """A piece of an answer that is not in the log yet, and may never be."""

    answering: Answering
    offset: int
    """Characters of the answer before it, in all its parts together. 0 begins it, or begins it again:
    what was shown of it until then was another attempt's."""
    parts: Sequence[JsonObject]
    """Text parts in wire form, thoughts among them. Everything else comes with the event."""

    @property
    def content(self) -> JsonObject:
        """The parts as a genai ``Content``."""
        return {"role": "model", "parts": list(self.parts)}


class Draft:
    """What has been said so far of one answer."""

    def __init__(self, answering: Answering) -> None:
        self.answering = answering
        self.length = 0
        """In characters."""
        self.over = False
        """Nothing more comes: its event is there, or the attempt failed."""
        self._pieces: list[tuple[bool, str]] = []
        self._ends: list[int] = []

    def gives_way_to(self, other: Draft) -> bool:
        """Whether the other came later."""
        ours, theirs = self.answering.order, other.answering.order
        return ours < theirs or (ours == theirs and self.over)

    def add(self, parts: Sequence[JsonObject]) -> bool:
        """Take in text parts; whatever else is among them is left out. Whether there was anything to take."""
        before = self.length
        for part in parts:
            text = part.get("text")
            if isinstance(text, str) and text and self.length < LONGEST:
                self.length += len(text)
                self._pieces.append((bool(part.get("thought")), text))
                self._ends.append(self.length)
        return self.length > before

    def since(self, position: int) -> list[JsonObject]:
        """What comes behind so many characters, in as few parts as can be."""
        found: list[tuple[bool, list[str]]] = []
        start = bisect_right(self._ends, position)
        for index in range(start, len(self._pieces)):
            thought, text = self._pieces[index]
            if index == start:
                text = text[len(text) - (self._ends[index] - position) :]
            if not found or found[-1][0] != thought:
                found.append((thought, []))
            found[-1][1].append(text)
        return [
            {"text": "".join(texts), **({"thought": True} if thought else {})} for thought, texts in found
        ]


class Topic:
    """What a process knows of a session that somebody in it follows."""

    def __init__(self) -> None:
        self.readers: set[Subscription] = set()
        self.draft: Draft | None = None

    def changed(self, seq: int | None = None) -> None:
        """There is something to read: an event ``seq``, or more than that."""
        for reader in self.readers:
            reader.note(seq)

    def show(self, draft: Draft) -> bool:
        """Show a draft in place of an earlier one. Whether it is the one that is shown."""
        if self.draft is None or self.draft.gives_way_to(draft):
            self.draft = draft
        return self.draft is draft

    def wake(self) -> None:
        """The draft has grown."""
        for reader in self.readers:
            reader.wake()


class Subscription:
    """One reader's place. It belongs to one task."""

    def __init__(self, topic: Topic) -> None:
        self._topic = topic
        self._woken = asyncio.Event()
        self._moved = True
        self._seq = 0
        self._place: tuple[Answering, int] | None = None
        if topic.draft is not None and topic.draft.over:
            self._place = topic.draft.answering, topic.draft.length

    def note(self, seq: int | None) -> None:
        """There is something to read: an event ``seq``, or more than that."""
        if seq is None:
            self._moved = True
        else:
            self._seq = max(self._seq, seq)
        self.wake()

    def look(self) -> None:
        """Have :meth:`take_change` say next time that there is something to read."""
        self._moved = True

    def wake(self) -> None:
        """Let :meth:`wait` return."""
        self._woken.set()

    def take_change(self, seen: int) -> bool:
        """Whether the log should be read by one who has read it up to the seq ``seen``. Said once."""
        moved, self._moved = self._moved, False
        return moved or self._seq > seen

    def partial(self) -> Partial | None:
        """What the model has said since :meth:`take`, if it has."""
        draft = self._topic.draft
        if draft is None:
            return None
        offset = self._offset(draft)
        if draft.length <= offset:
            return None
        return Partial(answering=draft.answering, offset=offset, parts=draft.since(offset))

    def take(self, partial: Partial) -> None:
        """The reader has it; what :meth:`partial` gives next comes behind it."""
        length = sum(len(part["text"]) for part in partial.parts)
        self._place = partial.answering, partial.offset + length

    async def wait(self, seconds: float) -> None:
        """Return when there may be something new, or after so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            self.look()  # It is time to, whether anybody said so or not.
        self._woken.clear()

    def _offset(self, draft: Draft) -> int:
        if self._place is None:
            return 0
        heard, length = self._place
        if heard.run == draft.answering.run:
            return length
        return draft.length if draft.answering.order < heard.order else 0


class Preview(Protocol):
    """Where a model call puts what it hears."""

    def add(self, content: JsonObject) -> None:
        """Show the content of one chunk. It never waits and never fails because of a reader."""


class Feed(ABC):
    """Carries changes and partials from those who write to those who follow."""

    def __init__(self) -> None:
        self._topics: dict[SessionKey, Topic] = {}

    @abstractmethod
    def changed(self, key: SessionKey, seq: int | None = None) -> None:
        """Tell that a session has changed, after the commit: an event ``seq``, or None for more than that."""

    @abstractmethod
    def preview(self, key: SessionKey, answering: Answering) -> AbstractContextManager[Preview]:
        """A context in which a model's answer is shown while it comes."""

    @property
    def followed(self) -> Collection[SessionKey]:
        """The sessions that somebody in this process follows."""
        return [key for key, topic in self._topics.items() if topic.readers]

    @asynccontextmanager
    async def subscribe(self, key: SessionKey) -> AsyncIterator[Subscription]:
        """Follow a session for as long as the block runs.

        Whatever is committed from here on is told. So subscribe first, then read, and nothing
        falls in between.
        """
        topic = self._topics.setdefault(key, Topic())
        reader = Subscription(topic)
        topic.readers.add(reader)
        try:
            await self._followed(key, topic)
            yield reader
        finally:
            topic.readers.discard(reader)
            self._let_go(key, topic)

    @abstractmethod
    async def close(self) -> None:
        """Let go of what the feed holds. Readers are told nothing any more; they have their own clock."""

    @abstractmethod
    async def _followed(self, key: SessionKey, topic: Topic) -> None:
        """Somebody has begun to follow a session; return when nothing can be missed any more."""

    def _let_go(self, key: SessionKey, topic: Topic) -> None:
        """Forget a topic that nobody reads, and nobody is about to write."""
        talking = topic.draft is not None and not topic.draft.over
        if not topic.readers and not talking and self._topics.get(key) is topic:
            del self._topics[key]


class LocalFeed(Feed):
    """The feed of one process and event loop."""

    def changed(self, key: SessionKey, seq: int | None = None) -> None:
        """See :meth:`Feed.changed`."""
        if topic := self._topics.get(key):
            topic.changed(seq)

    @contextmanager
    def preview(self, key: SessionKey, answering: Answering) -> Iterator[Preview]:
        """See :meth:`Feed.preview`."""
        topic = self._topics.setdefault(key, Topic())
        draft = Draft(answering)
        topic.show(draft)
        try:
            yield _LocalPreview(topic, draft)
        finally:
            draft.over = True
            self._let_go(key, topic)

    async def close(self) -> None:
        """Nothing is held, and other stores may share it."""

    async def _followed(self, key: SessionKey, topic: Topic) -> None:
        """Nothing can be missed."""


class _LocalPreview:
    def __init__(self, topic: Topic, draft: Draft) -> None:
        self._topic = topic
        self._draft = draft

    def add(self, content: JsonObject) -> None:
        if self._draft.add(content.get("parts") or ()) and self._topic.draft is self._draft:
            self._topic.wake()


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, WeakValueDictionary[str, LocalFeed]] = (
    WeakKeyDictionary()
)


def local_feed(name: str) -> LocalFeed:
    """The feed that everybody in the running event loop has who asks for this name, such as a database's."""
    feeds = _shared.setdefault(asyncio.get_running_loop(), WeakValueDictionary())
    feed = feeds.get(name)
    if feed is None:
        feed = feeds[name] = LocalFeed()
    return feed
