"""An append: the one way in which a session's log, state and artifacts change.

:func:`append_event` is what every other write is made of. It takes few statements, and
their number and cost depend neither on the length of the log nor on the size of the state:
lock the session's row (the caller's), read the prior values of the delta's keys, insert
the event, write the keys, move the row (the caller's). The unique key on event ids makes
the insert itself the test whether the event is there already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import Conflict, EventConflict, InvalidContent, StaleEpoch
from perdure.types import Event, Json
from storage import artifacts, log, state
from storage.records import check_event, event_values, same_event, stored_event
from storage.schema import events
from storage.session_row import LockedSession, now
from storage.spending import spent_on
from storage.sql import insert_on

__all__ = ["append", "append_event", "insert_event", "prepared"]


def prepared(event: Event) -> Event:
    """The event as it may be stored: checked, without ``temp:`` keys.

    Raises:
        InvalidContent: something in it that no store could hold, or that its field does not take.
    """
    event = replace(event, state_delta=state.storable_delta(event.state_delta))
    check_event(event)
    return event


async def append(
    conn: AsyncConnection,
    row: LockedSession,
    event: Event,
    *,
    epoch: int | None,
    first_wins: bool,
    expect: Mapping[str, Json],
) -> Event:
    """Append a prepared event for a caller who may be late, and move the row.

    Raises:
        StaleEpoch, SessionEnded, StateConflict, ArtifactNotFound: refused; nothing was written.
        EventConflict: the id is taken by other content.
    """
    if row.ended_at is None:
        row.refuse_stale(epoch)
    try:
        row.refuse_ended()
        before = await _admit(conn, row, event, expect)
    except Conflict:
        # A retry of what was committed is no conflict: its own write is what changed the state.
        taken = await _taken(conn, row, event, first_wins=first_wins)
        if taken is None:
            raise
        row.refuse_stale(epoch)
        return taken
    stored = await _write(conn, row, event, before, expect)
    if stored is not None:
        await row.save(conn)
        return stored
    taken = await _taken(conn, row, event, first_wins=first_wins)
    if taken is None:
        raise LookupError(f"event {event.id} of {row.key} is neither new nor in the log")
    return taken


async def append_event(
    conn: AsyncConnection, row: LockedSession, event: Event, *, shared: bool = True
) -> Event | None:
    """Append a prepared event with all its effects; the caller saves the row.

    With ``shared`` False the caller writes the delta's ``app:`` and ``user:`` keys, too.

    Returns:
        The event as stored, or None, with nothing written, if its id is in the log already.

    Raises:
        ArtifactNotFound: it names an artifact version that was not staged for it.
    """
    return await _write(conn, row, event, await _admit(conn, row, event, {}), {}, shared=shared)


async def insert_event(conn: AsyncConnection, row: LockedSession, event: Event) -> Event | None:
    """Insert the event alone, behind the head of the log; None if its id is taken."""
    stored = stored_event(event, seq=row.head + 1, created_at=now())
    made = await conn.execute(_insert(conn.dialect.name), event_values(row.key, stored))
    if not made.rowcount:
        return None
    row.head = stored.seq
    row.spent += spent_on(stored)
    return stored


async def _admit(
    conn: AsyncConnection, row: LockedSession, event: Event, expect: Mapping[str, Json]
) -> dict[str, Json]:
    """Refuse what came too late; else the values that the delta's own keys have before it. Writes nothing.

    Raises:
        StateConflict: an own key of the delta is not what ``expect`` says it was.
        StaleEpoch: a compaction of what was rewound, or summed up by a newer one, meanwhile.
    """
    if event.compaction is not None:
        await _refuse_outdated(conn, row, event.compaction)
    if not event.state_delta:
        return {}
    before = await state.current(conn, row.key, event.state_delta)
    expected = {name: value for name, value in expect.items() if name in event.state_delta}
    own = {name: value for name, value in expected.items() if not state.is_shared(name)}
    state.check_expected(row.key, own, before)
    return before


async def _write(
    conn: AsyncConnection,
    row: LockedSession,
    event: Event,
    before: Mapping[str, Json],
    expect: Mapping[str, Json],
    *,
    shared: bool = True,
) -> Event | None:
    undo = state.undo(event.state_delta, before)
    stored = await insert_event(conn, row, replace(event, state_undo=undo))
    if stored is None:
        return None
    if stored.state_delta:
        if shared:
            await state.write_shared(conn, row.key, stored.state_delta, expect)
        await state.write_own(conn, row.key, stored.state_delta)
    if stored.artifact_delta:
        await artifacts.commit(conn, row.key, stored)
    return stored


@cache
def _insert(dialect: str) -> Any:
    return insert_on(dialect, events).on_conflict_do_nothing(
        index_elements=["app", "user_id", "session_id", "event_id"]
    )


async def _taken(
    conn: AsyncConnection, row: LockedSession, event: Event, *, first_wins: bool
) -> Event | None:
    stored = (await log.by_ids(conn, row.key, [event.id], row.projection)).get(event.id)
    if stored is not None and not first_wins and not same_event(stored, event):
        raise EventConflict(
            f"event {event.id} of {row.key} is in the log at seq {stored.seq} with other content; "
            "give the new event an id of its own"
        )
    return stored


async def _refuse_outdated(conn: AsyncConnection, row: LockedSession, compaction: dict[str, Json]) -> None:
    """Refuse a summary of what the prompt no longer holds.

    The log is a tree and the live part a path to its root: what is live below a seq is the
    same whenever that seq is live. So if the last event summed up is live, all of them are,
    and nothing has come between.
    """
    end = compaction["end"]
    if end > row.head:
        raise InvalidContent(f"a summary of {row.key} ends at seq {end}, which the log does not have yet")
    if not row.is_live(end):
        raise StaleEpoch(f"seq {end} of {row.key} was rewound while it was being summed up; drop the summary")
    newest = await log.newest_summary(conn, row.key, row.projection, row.head)
    if newest is not None and newest.compaction is not None and newest.compaction["end"] >= end:
        raise StaleEpoch(f"seq {end} of {row.key} is in summary {newest.id} already; drop this one")
