"""Rewind: one marker event, whatever is rewound. Nothing in the log is touched.

The log is a tree: an event's parent is what was live when it was appended, and the live
part is the path from the tip to the root. A rewind moves the tip to the target's parent.
For an ordinary target that is the current projection cut at its seq; for a marker, whose
parent is the tip it left behind, the projection that the marker keeps, cut at its seq. So
"rewind before the marker" is redo, and nests.

State is different: whatever the branch, the rows went through every delta in the order of
seq, rewinds included. So the undos of all events from the target on, live or not, take it
back; for each key the one with the lowest seq is what it was.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import EventConflict, InvocationNotFound, InvocationRewound
from perdure.types import Event, Json
from storage import log, projection, state
from storage.append import insert_event
from storage.records import Rewound, owner
from storage.schema import events
from storage.session_row import LockedSession
from storage.storable import canonical
from storage.turns import mark_interrupted

__all__ = ["rewind"]


async def rewind(
    conn: AsyncConnection, row: LockedSession, *, before: str, request_id: str, interrupt: str | None
) -> Rewound:
    """See :meth:`storage.sessions.SessionStore.rewind`."""
    marker_id = f"{request_id}:rewind"
    done = (await log.by_ids(conn, row.key, [marker_id], row.projection)).get(marker_id)
    if done is not None:
        return _repeated(row, done, before)
    row.refuse_ended()
    if interrupt is not None:
        await mark_interrupted(conn, row, interrupt, reason="rewind")
    target = await _target(conn, row, before)
    restoration, undo = await _restoration(conn, row, target.seq)
    marker = Event(
        id=marker_id,
        invocation_id=request_id,
        author="perdure",
        state_delta=restoration,
        state_undo=undo,
        rewind={"before": before, "seq": target.seq, "projection": row.projection},
    )
    left = row.projection if target.rewind is None else target.rewind["projection"]
    stored = await insert_event(conn, row, marker)
    if stored is None:
        raise EventConflict(f"event {marker_id} of {row.key} appeared while its row was locked")
    await state.write_own(conn, row.key, restoration)
    row.projection = projection.rewound(left, target.seq, stored.seq)
    row.epoch += 1
    await row.save(conn)
    return Rewound(epoch=row.epoch, event=stored, repeated=False)


def _repeated(row: LockedSession, done: Event, before: str) -> Rewound:
    if done.rewind is None or done.rewind["before"] != before:
        raise EventConflict(
            f"request {done.invocation_id} of {row.key} was another rewind; give this one an id of its own"
        )
    return Rewound(epoch=row.epoch, event=done, repeated=True)


async def _target(conn: AsyncConnection, row: LockedSession, before: str) -> Any:
    """The first live event of an invocation: its ``seq``, and its ``rewind`` if it is a marker."""
    start: int | None = 1
    entry = None
    while start is not None:
        found = await log.first_of_invocation(conn, row.key, before, start)
        if found is None:
            break
        entry = found
        if row.is_live(entry.seq):
            return entry
        start = projection.next_live(row.projection, entry.seq)
    if entry is None:
        raise InvocationNotFound(f"{row.key} has no invocation {before}; look in its log for the right id")
    raise InvocationRewound(
        f"invocation {before} of {row.key} was rewound already; rewind before that rewind to redo it"
    )


async def _restoration(
    conn: AsyncConnection, row: LockedSession, target: int
) -> tuple[dict[str, Json], dict[str, Json]]:
    """The delta that gives the state as it was before the event ``target``, and its own undo.

    Keys that have their old value again already are left out: what did not change stays untouched.
    """
    earlier = await conn.execute(
        select(events.c.state_undo)
        .where(*log.OWNED, events.c.seq >= target, events.c.state_undo.is_not(None))
        .order_by(events.c.seq.desc()),
        owner(row.key),
    )
    was: dict[str, Json] = {}
    for (undo,) in earlier:
        was.update(undo)
    now = await state.current(conn, row.key, was)
    changed = [name for name, value in was.items() if canonical(value) != canonical(now.get(name))]
    return {name: was[name] for name in changed}, {name: now.get(name) for name in changed}
