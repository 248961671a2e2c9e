"""A session as it grows, for one reader: first what is in the log, then what comes, without gap or double.

The reader subscribes first and reads then; so whatever is committed meanwhile is told, read
again, and passed over if its seq was seen. Being told is only a hint: what was not told, by
a process that died right after its commit, is found when the reader's own clock says look.

**Order.** Events come by seq. A partial comes after the events that were in the log when its
model was asked, and never once its own event was given, nor from a turn whose epoch is over.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Literal

from perdure.errors import SessionNotFound, StorageUnavailable
from perdure.types import Event, Session, SessionKey
from storage.feed import Partial, Subscription
from storage.sessions import SessionStore

__all__ = ["Closed", "Item", "Partial", "Rewound", "Tail"]

KEPT = 256
"""Events whose ids a reader remembers, to know partials that come late."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rewound:
    """What is live has changed: it follows the marker of a rewind."""

    session: Session
    """Without state and events; its projection says what is live now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Closed:
    """Nothing more will come."""

    reason: Literal["ended", "deleted", "stopping"]


Item = Event | Partial | Rewound | Closed


class Tail:
    """One reader's way through a session.

    Args:
        store: where the session is.
        key: the session.
        reader: the reader's subscription, made before this.
        after: events up to this seq it has already.
        partials: whether it wants to hear what models are saying.
    """

    def __init__(
        self, store: SessionStore, key: SessionKey, reader: Subscription, *, after: int, partials: bool = True
    ) -> None:
        self.seen = after
        """The seq of the last event that was given, or that the reader had."""
        self.session: Session | None = None
        """As it was last read, without state and events; None before that, and while there is none."""
        self._store = store
        self._key = key
        self._reader = reader
        self._began = after
        self._partials = partials
        self._given: deque[str] = deque(maxlen=KEPT)
        self._checked: tuple[str, bool] | None = None

    async def new(self) -> AsyncGenerator[Item]:
        """What is new by now. After :class:`Closed` there is nothing more.

        Raises:
            SessionNotFound: there is no such session, and never was one that this reader saw.
            StorageUnavailable: the database is away; ask again for what is new.
        """
        while True:
            partial = self._reader.partial()
            behind = partial is not None and self._is_behind(partial)
            if partial is not None and not behind:
                self._reader.take(partial)
                if await self._is_current(partial):
                    yield partial
            if self._reader.take_change(self.seen) or behind:
                async for item in self._read():
                    yield item
                    if isinstance(item, Closed):
                        return
                if partial is not None and behind and self._is_behind(partial):
                    self._reader.take(partial)  # of a session that is not this one any more
            elif partial is None:
                return

    async def wait(self, seconds: float) -> None:
        """Return when there may be something new, or after so many seconds."""
        await self._reader.wait(seconds)

    async def _read(self) -> AsyncGenerator[Item]:
        rewound = False
        while True:
            try:
                news = await self._store.news(self._key, after=self.seen)
            except StorageUnavailable:
                self._reader.look()
                raise
            except SessionNotFound:
                if self.session is None:
                    raise
                yield Closed(reason="deleted")
                return
            before, self.session = self.session, news.session
            if news.session.head < self.seen or _replaced(before, news.session):
                yield Closed(reason="deleted")
                return
            for event in news.events:
                self.seen = event.seq
                self._given.append(event.id)
                rewound = rewound or event.rewind is not None
                yield event
            if not news.more:
                break
        if rewound:
            yield Rewound(session=news.session)
        if news.session.ended_at is not None:
            yield Closed(reason="ended")

    def _is_behind(self, partial: Partial) -> bool:
        """Whether events come before it that were not read yet."""
        answering = partial.answering
        return self.session is None or answering.after > self.seen or answering.epoch > self.session.epoch

    async def _is_current(self, partial: Partial) -> bool:
        """Whether it previews what the reader has not got."""
        answering = partial.answering
        assert self.session is not None, "it is not behind"
        if not self._partials or answering.epoch < self.session.epoch or answering.event_id in self._given:
            return False
        if answering.after >= self._began:
            return True
        # The reader began behind where this answer may have been stored by then.
        if self._checked is None or self._checked[0] != answering.event_id:
            stored = await self._store.event(self._key, answering.event_id)
            self._checked = answering.event_id, stored is None
        return self._checked[1]


def _replaced(before: Session | None, now: Session) -> bool:
    """Whether a session was deleted, and another one made under its name."""
    return before is not None and before.created_at != now.created_at
