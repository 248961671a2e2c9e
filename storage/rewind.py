"""Rewind: one marker event, whatever is rewound. Nothing in the log is touched.

A rewind moves the tip of the log to the target's parent (:mod:`storage.past` says what
that is). For a marker it is the tip which that marker left behind, so "rewind before the
marker" is redo, and nests.
"""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import EventConflict
from perdure.types import Event, Json
from storage import log, memory, past, projection, state
from storage.append import insert_event
from storage.records import Rewound
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
    target = await past.before(conn, row.key, row.projection, before)
    restoration, undo = await _restoration(conn, row, target.seq)
    marker = Event(
        id=marker_id,
        invocation_id=request_id,
        author="perdure",
        state_delta=restoration,
        state_undo=undo,
        rewind={"before": before, "seq": target.seq, "projection": row.projection},
    )
    stored = await insert_event(conn, row, marker)
    if stored is None:
        raise EventConflict(f"event {marker_id} of {row.key} appeared while its row was locked")
    await state.write_own(conn, row.key, restoration)
    before_it, row.projection = (
        row.projection,
        projection.rewound(target.projection, target.seq, stored.seq),
    )
    row.epoch += 1
    await row.save(conn)
    parted = projection.parting(before_it, row.projection)
    if parted is not None:
        await memory.take_back(conn, row, parted)
    return Rewound(epoch=row.epoch, event=stored, repeated=False)


def _repeated(row: LockedSession, done: Event, before: str) -> Rewound:
    if done.rewind is None or done.rewind["before"] != before:
        raise EventConflict(
            f"request {done.invocation_id} of {row.key} was another rewind; give this one an id of its own"
        )
    return Rewound(epoch=row.epoch, event=done, repeated=True)


async def _restoration(
    conn: AsyncConnection, row: LockedSession, target: int
) -> tuple[dict[str, Json], dict[str, Json]]:
    """The delta that gives the state as it was before the event ``target``, and its own undo.

    Keys that have their old value again already are left out: what did not change stays untouched.
    """
    was = await past.own_state(conn, row.key, target)
    now = await state.current(conn, row.key, was)
    changed = [name for name, value in was.items() if canonical(value) != canonical(now.get(name))]
    return {name: was[name] for name in changed}, {name: now.get(name) for name in changed}
