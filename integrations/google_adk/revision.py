"""Whether a Session that a runner holds is still what the store has.

A Session carries how much of the log it has seen: the store's epoch and the last seq, in
the field that google-adk keeps for such a mark. Before an append the log is asked for what
came after it. What the session's own invocation caused is fine: its own events, and the
artifacts that its tools saved. Anything else makes it stale.

The epoch, and where the log ended, go with the append and are compared under the lock. Where
something slipped in between, nothing is written and the log is asked again: a file that a tool
saved meanwhile is fine, and anybody else's event makes the session stale. So of two processes
that append to copies of one session at the same instant, one is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from google.adk.errors import StaleSessionError
from google.adk.sessions import Session

from integrations.adk_json.events import is_record, is_shown
from perdure.errors import StaleEpoch
from perdure.types import Event as LogEvent
from perdure.types import SessionKey
from storage.sessions import SessionStore

__all__ = ["Revision", "check", "copy", "note", "refusing_stale"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Revision:
    """How much of a session's log somebody has seen."""

    epoch: int
    seq: int
    base: int = 0
    """The seq that the Session had seen before :func:`check`."""
    newer: Sequence[LogEvent] = ()
    """What :func:`check` found in the log behind ``base``."""

    def after(self, seq: int) -> Revision:
        """The revision once an event was appended at ``seq``.

        Where something came in between it stays, so that the next :func:`check` looks at that.
        """
        return replace(self, seq=seq) if seq == self.seq + 1 else self

    def knows(self, session: Session, event_id: str, seq: int) -> bool:
        """Whether an event that the log has at ``seq`` was applied to the session before."""
        if seq <= self.base:
            return True
        return seq <= self.seq and any(event.id == event_id for event in session.events)


async def check(
    store: SessionStore, key: SessionKey, session: Session, event_id: str, refused: Revision | None = None
) -> Revision:
    """What the session may append on.

    Args:
        store: where it is.
        key: the session's.
        session: as the caller holds it.
        event_id: what is to be appended; it may be there already.
        refused: what an earlier check said, where the log turned out to end elsewhere.

    Raises:
        StaleSessionError: somebody else changed the session since it was read.
        SessionNotFound: it is gone.
    """
    seen = _noted(session) or await _adopted(store, key, session)
    newer = await store.log(key, after=seen.seq)
    if refused is not None and (not newer or newer[-1].seq <= refused.seq):
        raise _stale(session, "its log is shorter: it was deleted and made again")
    if not newer:
        return replace(seen, base=seen.seq)
    own = {event.id for event in session.events} | {event_id}
    for event in newer:
        if not is_record(event) and event.id not in own:
            raise _stale(session, f"event {event.id} was appended")
    return replace(seen, seq=newer[-1].seq, base=seen.seq, newer=newer)


def note(session: Session, seen: Revision) -> None:
    """Write into the session how much of the log it has seen."""
    session._storage_update_marker = f"{seen.epoch}.{seen.seq}"


def copy(source: Session, target: Session) -> None:
    """Give a session the mark of another that was read later."""
    target._storage_update_marker = source._storage_update_marker


@contextmanager
def refusing_stale(session: Session) -> Iterator[None]:
    """Turn the store's refusal of a late writer into google-adk's.

    Raises:
        StaleSessionError: the session was rewound or taken over.
    """
    try:
        yield
    except StaleEpoch as error:
        raise _stale(session, "it was rewound, or another turn took it over") from error


def _noted(session: Session) -> Revision | None:
    epoch, dot, seq = (session._storage_update_marker or "").partition(".")
    return Revision(epoch=int(epoch), seq=int(seq)) if dot else None


async def _adopted(store: SessionStore, key: SessionKey, session: Session) -> Revision:
    """The revision of a Session that carries none: one made by hand, or sent as JSON.

    It is taken for current if its last event is the newest that google-adk would see.
    """
    stored = await store.get(key)
    shown = [event.id for event in stored.events if is_shown(event)]
    if shown[-1:] != [event.id for event in session.events[-1:]]:
        raise _stale(session, "its last event is not the newest")
    return Revision(epoch=stored.epoch, seq=stored.head)


def _stale(session: Session, reason: str) -> StaleSessionError:
    return StaleSessionError(
        f"The session {session.id} has been modified in storage since it was loaded: {reason}. "
        "Please reload the session before appending more events."
    )
