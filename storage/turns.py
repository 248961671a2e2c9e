"""The beginning and the end of a turn, as one transaction each.

A turn is fenced by the session's epoch: whoever cancels, rewinds or takes over a session
moves it, and whatever the turn still wants to write is refused. The end marker
``{invocation}:end`` also stops an attempt that has not even begun: it finds the marker.
"""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import EventConflict, InvocationRewound
from perdure.types import Event, JsonObject, SessionKey
from storage import log, projection
from storage.append import append_event
from storage.append_function import append_at_once
from storage.append_sqlite import append_plainly, is_plain
from storage.engine import Database
from storage.projection import Ranges
from storage.records import Turn, same_event
from storage.session_row import LockedSession, find, lock_or_insert, must_lock

__all__ = [
    "JOINED",
    "begin_at_once",
    "begin_turn",
    "end_marker",
    "ending",
    "interrupt",
    "is_final",
    "mark_interrupted",
]

JOINED = "joined"
"""The key of ``meta`` that has the id of a message which joined a turn that was under way."""
FEW = 10
"""Events that are looked at together."""


async def begin_at_once(
    database: Database, key: SessionKey, event: Event, *, epoch: int | None, reopen: bool
) -> Turn | None:
    """Begin a turn of a session that is there, in one statement; None if it is no plain case."""
    done = await append_at_once(database, key, event, epoch=epoch, expect={}, begins=True, reopen=reopen)
    return None if done is None else Turn(epoch=done[1], seq=done[0].seq, done=None)


async def begin_turn(
    conn: AsyncConnection, key: SessionKey, event: Event, *, epoch: int | None, reopen: bool
) -> Turn:
    """See :meth:`storage.sessions.SessionStore.begin_turn`."""
    if conn.dialect.name == "sqlite" and is_plain(event):
        done = await append_plainly(conn, key, event, epoch=epoch, expect={}, begins=True, reopen=reopen)
        if done is not None:
            return Turn(epoch=done[1], seq=done[0].seq, done=None)
    row = await (lock_or_insert(conn, key) if epoch is None else must_lock(conn, key))
    last = None if JOINED in event.meta else await _last(conn, row, event.invocation_id)
    if last is not None:
        return await _begun(conn, row, event, last)
    if (joined := await _joined(conn, row, event)) is not None:
        return joined
    if not reopen:
        row.refuse_ended()
    if epoch is None:
        row.epoch += 1
    row.refuse_stale(epoch)
    row.ended_at = None
    stored = await append_event(conn, row, event)
    if stored is None:
        raise EventConflict(
            f"event {event.id} of {key} belongs to another invocation; give the message a new id"
        )
    await row.save(conn)
    return Turn(epoch=row.epoch, seq=stored.seq, done=None)


async def interrupt(
    conn: AsyncConnection,
    key: SessionKey,
    invocation_id: str,
    *,
    epoch: int | None,
    reason: str,
    error: JsonObject | None,
) -> int:
    """See :meth:`storage.sessions.SessionStore.interrupt`."""
    row = await (lock_or_insert(conn, key) if epoch is None else must_lock(conn, key))
    last = await _last(conn, row, invocation_id)
    if last is not None and not last.live:
        return row.epoch
    ended = await _end_of(conn, row.key, row.projection, last)
    if ended is not None and (ended.meta.get("interrupted") or epoch != row.epoch):
        return row.epoch
    row.refuse_stale(epoch)
    if ended is None:
        await _mark(conn, row, invocation_id, reason, error)
    row.epoch += 1
    await row.save(conn)
    return row.epoch


async def ending(conn: AsyncConnection, key: SessionKey, message_id: str) -> tuple[Event, Event] | None:
    """See :meth:`storage.sessions.SessionStore.ending`."""
    row = await find(conn, key)
    if row is None:
        return None
    said = (await log.by_ids(conn, key, [f"{message_id}:user"], row.projection)).get(f"{message_id}:user")
    if said is None or not said.live:
        return None
    last = await log.last_of_invocation(conn, key, said.invocation_id, row.projection)
    ended = await _end_of(conn, key, row.projection, last[0])
    return None if ended is None or not ended.live else (said, ended)


async def mark_interrupted(
    conn: AsyncConnection, row: LockedSession, invocation_id: str, *, reason: str
) -> None:
    """Append the end marker of an invocation, unless that has ended already; the caller saves the row."""
    if await _end_of(conn, row.key, row.projection, await _last(conn, row, invocation_id)) is None:
        await _mark(conn, row, invocation_id, reason)


async def _mark(
    conn: AsyncConnection,
    row: LockedSession,
    invocation_id: str,
    reason: str,
    error: JsonObject | None = None,
) -> Event:
    """Append the end marker of an invocation that has not ended; the caller saves the row."""
    marker = Event(
        id=end_marker(invocation_id),
        invocation_id=invocation_id,
        author="perdure",
        error=error,
        meta={"interrupted": True, "final": True, "reason": reason},
    )
    stored = await append_event(conn, row, marker)
    if stored is None:
        raise EventConflict(f"event {marker.id} of {row.key} belongs to another invocation")
    return stored


def end_marker(invocation_id: str) -> str:
    """The id of the event that ends an invocation which got no answer."""
    return f"{invocation_id}:end"


def is_final(event: Event) -> bool:
    """Whether an event ends its invocation: an answer without calls, or one whose meta says so."""
    if "final" in event.meta:
        return bool(event.meta["final"])
    content = event.content or {}
    parts = content.get("parts")
    objects = (part for part in parts if isinstance(part, dict)) if isinstance(parts, list) else ()
    calls = any("functionCall" in part for part in objects)
    return content.get("role") == "model" and not calls


async def _begun(conn: AsyncConnection, row: LockedSession, event: Event, last: Event) -> Turn:
    """How an invocation that is in the log already stands; one that another has overtaken is ended."""
    ended = await _end_of(conn, row.key, row.projection, last)
    found = (await log.by_ids(conn, row.key, [event.id], row.projection)).get(event.id)
    first = found or ended
    if first is None or (found is not None and not same_event(found, event)):
        raise EventConflict(
            f"invocation {event.invocation_id} is in the log of {row.key} with another message; "
            "give the new message an id of its own"
        )
    # A rewind to an event in its midst leaves its beginning live: it cannot go on from there.
    if not all(each.live for each in (first, last, ended) if each is not None):
        raise InvocationRewound(
            f"invocation {event.invocation_id} of {row.key} was rewound and is not run again; "
            "send the message under a new id, or redo the rewind"
        )
    if ended is None and row.ended_at is None and await _overtaken(conn, row, first):
        ended = await _mark(conn, row, event.invocation_id, "overtaken")
        await row.save(conn)
    return Turn(epoch=row.epoch, seq=first.seq, done=ended)


async def _joined(conn: AsyncConnection, row: LockedSession, event: Event) -> Turn | None:
    """How the turn stands that the message joined; None if it did not join any."""
    found = (await log.by_ids(conn, row.key, [event.id], row.projection)).get(event.id)
    if found is None or JOINED not in found.meta:
        return None
    last = await _last(conn, row, found.invocation_id)
    assert last is not None, "the message itself is an event of that turn"
    said = replace(event, invocation_id=found.invocation_id, meta={**found.meta, **event.meta})
    turn = await _begun(conn, row, said, last)
    if turn.done is not None or row.ended_at is not None:
        return turn
    # It was lost with its workflow, and there is no going on from its midst.
    ended = await _mark(conn, row, found.invocation_id, "overtaken")
    await row.save(conn)
    return replace(turn, done=ended)


async def _last(conn: AsyncConnection, row: LockedSession, invocation_id: str) -> Event | None:
    found = await log.last_of_invocation(conn, row.key, invocation_id, row.projection)
    return found[0] if found else None


async def _end_of(conn: AsyncConnection, key: SessionKey, ranges: Ranges, last: Event | None) -> Event | None:
    """The event that ended an invocation, given its last one: who has no epoch may write behind the end.

    It looks back no further than to the model's last word: before that, nothing had ended.
    """
    looked_at = [last] if last is not None else []
    while looked_at:
        for each in looked_at:
            if is_final(each):
                return each
            if (each.content or {}).get("role") == "model":
                return None
        looked_at = await log.last_of_invocation(
            conn, key, each.invocation_id, ranges, count=FEW, before=each.seq
        )
    return None


async def _overtaken(conn: AsyncConnection, row: LockedSession, first: Event) -> bool:
    """Whether another turn has begun since. Then this one was lost with its workflow, and is over.

    Were it to go on, its model would be asked to answer a conversation that has moved on.
    """
    spans = projection.clip(row.projection, first.seq + 1, row.head + 1)
    return await log.has_message(conn, row.key, spans, but=first.invocation_id)
