"""What a worker remembers of the sessions that it serves, so that a step reads only what is new.

Nothing depends on it. Each read goes to the database all the same and is one transaction:
that says by the session's epoch whether what is remembered still holds, and gives what came
after it. A rewind, a redo, a cancel, or a delete and a new start move the epoch, and the
context is read whole again; a summary, whoever wrote it, is among what is new and trims it.
State is never remembered: an instruction names few keys, and others write the shared ones.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from perdure.errors import SessionNotFound
from perdure.types import Event, SessionKey
from storage.sessions import Context, SessionStore

__all__ = ["ContextCache"]

SESSIONS = 1_000
"""Of how many sessions at most a worker remembers the context."""
EVENT_BYTES = 2_000
"""What an event takes in memory besides its content, about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kept:
    context: Context
    size: int


class ContextCache:
    """Reads contexts, and remembers those that were used last.

    Args:
        store: where sessions live.
        size: bytes that it may take, about; 0 remembers nothing.
        sessions: of how many sessions at most.
    """

    def __init__(self, store: SessionStore, *, size: int, sessions: int = SESSIONS) -> None:
        self._store = store
        self._size = size
        self._sessions = sessions
        self._kept: OrderedDict[SessionKey, _Kept] = OrderedDict()
        self._taken = 0

    async def read(self, key: SessionKey, *, state_keys: Collection[str] | None) -> Context:
        """See :meth:`storage.sessions.SessionStore.context`, which this one is with less work.

        Raises:
            SessionNotFound: there is no session.
        """
        if not self._size:
            return await self._store.context(key, state_keys=state_keys)
        kept = self._kept.get(key)
        known = kept.context if kept is not None else None
        try:
            context = await self._store.context(key, state_keys=state_keys, known=known)
        except SessionNotFound:
            self._forget(key)
            raise
        self._keep(key, context, kept)
        return context

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes that it takes, about."""
        return self._taken

    def _keep(self, key: SessionKey, context: Context, before: _Kept | None) -> None:
        self._forget(key)
        size = _size_of(context, before)
        if size > self._size:
            return
        session = replace(context.session, state={}, metadata={})
        self._kept[key] = _Kept(context=replace(context, session=session), size=size)
        self._taken += size
        while self._taken > self._size or len(self._kept) > self._sessions:
            self._forget(next(iter(self._kept)))

    def _forget(self, key: SessionKey) -> None:
        gone = self._kept.pop(key, None)
        if gone is not None:
            self._taken -= gone.size


def _size_of(context: Context, before: _Kept | None) -> int:
    """What a context takes, about; of one that only grew, just what is new is looked at."""
    known = before.context if before is not None else None
    if before is not None and known is not None and _grew(context, known):
        return before.size + _events_size(context.events[len(known.events) :])
    return _events_size(context.events) + _events_size([context.summary] if context.summary else [])


def _grew(context: Context, known: Context) -> bool:
    if context.summary is not known.summary or len(context.events) < len(known.events):
        return False
    return not known.events or context.events[len(known.events) - 1] is known.events[-1]


def _events_size(events: Sequence[Event]) -> int:
    return sum(EVENT_BYTES + 2 * len(json.dumps([event.content, event.meta])) for event in events)
