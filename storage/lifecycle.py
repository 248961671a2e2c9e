"""A session's beginning and end, and changes from outside a turn."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import delete as delete_from
from sqlalchemy import select
from sqlalchemy import update as update_table
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import EventConflict, SessionExists, VersionMismatch
from perdure.types import Event, Json, JsonObject, Session, SessionKey
from storage import log, memory, remembering, state
from storage.append import append_event, prepared
from storage.records import same_event
from storage.remembering import Ready
from storage.schema import artifacts, epoch_floor, events, memory_requests, sessions
from storage.schema import state as state_table
from storage.session_row import LockedSession, insert, lock, must_lock, now

__all__ = [
    "apply_update",
    "create",
    "delete",
    "delete_shared",
    "end",
    "refuse_moved",
    "update",
    "update_event",
]


async def create(
    conn: AsyncConnection, key: SessionKey, values: Mapping[str, Json], metadata: JsonObject
) -> Session:
    """See :meth:`storage.sessions.SessionStore.create`."""
    row = await insert(conn, key)
    if row is None:
        raise SessionExists(f"session {key} (app/user/session) exists; use it, or choose another id")
    given = {name: value for name, value in values.items() if value is not None}
    await state.write_shared(conn, key, given, {})
    await state.write_own(conn, key, given)
    row.metadata = metadata
    await row.save(conn)
    return row.session(await state.load(conn, key))


async def end(conn: AsyncConnection, key: SessionKey, *, remember: bool, ready: Ready | None) -> Session:
    """See :meth:`storage.sessions.SessionStore.end`; ``ready`` is what is left to remember."""
    row = await must_lock(conn, key)
    if row.ended_at is None:
        row.ended_at = now()
        row.epoch += 1
        await row.save(conn)
        if remember:
            await remembering.rest(conn, row, ready)
    return row.session(await state.load(conn, key))


async def update(
    conn: AsyncConnection,
    key: SessionKey,
    event: Event,
    metadata: Mapping[str, Json],
    expected_version: int | None,
) -> Session:
    """See :meth:`storage.sessions.SessionStore.update`; ``event`` carries the change of state."""
    row = await must_lock(conn, key)
    await apply_update(conn, row, event, metadata, expected_version)
    return row.session(await state.load(conn, key))


async def apply_update(
    conn: AsyncConnection,
    row: LockedSession,
    event: Event,
    metadata: Mapping[str, Json],
    expected_version: int | None,
    *,
    shared: bool = True,
) -> bool:
    """Change a locked session and save it; with ``shared`` False, all but its ``app:`` and ``user:`` keys.

    Returns:
        Whether it was done now, and not under this request id before.
    """
    done = (await log.by_ids(conn, row.key, [event.id], row.projection)).get(event.id)
    if done is not None:
        if not same_event(done, event):
            raise EventConflict(
                f"request {event.invocation_id} of {row.key} was another update; "
                "give this one an id of its own"
            )
        return False
    _refuse_other_version(row, expected_version)
    if event.state_delta:
        row.refuse_ended()
        await append_event(conn, row, event, shared=shared)
    if metadata:
        merged = {**row.metadata, **metadata}
        row.metadata = {name: value for name, value in merged.items() if value is not None}
    if event.state_delta or metadata:
        await row.save(conn)
    return True


async def delete(conn: AsyncConnection, key: SessionKey) -> bool:
    """See :meth:`storage.sessions.SessionStore.delete`.

    Returns:
        Whether there was a session.
    """
    row = await lock(conn, key)
    if row is None:
        return False
    for table in (events, state_table, artifacts, memory_requests):
        mine = (table.c.app == key.app, table.c.user_id == key.user_id, table.c.session_id == key.session_id)
        await conn.execute(delete_from(table).where(*mine))
    await _let_go(conn, key)
    await memory.let_go(conn, key)
    named = (sessions.c.app == key.app, sessions.c.user_id == key.user_id, sessions.c.id == key.session_id)
    await conn.execute(delete_from(sessions).where(*named))
    above = row.epoch + 1
    await conn.execute(update_table(epoch_floor).where(epoch_floor.c.value < above).values(value=above))
    return True


async def delete_shared(conn: AsyncConnection, app: str, user_id: str) -> tuple[bool, int, list[str]]:
    """See :meth:`storage.retention_store.RetentionStore.delete_shared`.

    Returns:
        Whether there was anything, how many sessions were remembered, and the blobs that were named.
    """
    keys = [state_table.c.app == app, state_table.c.user_id == user_id, state_table.c.session_id == ""]
    # In the order in which appends write them, so that neither waits for the other.
    await conn.execute(select(state_table.c.key).where(*keys).order_by(state_table.c.key).with_for_update())
    values = (await conn.execute(delete_from(state_table).where(*keys))).rowcount
    saved = (artifacts.c.app == app, artifacts.c.user_id == user_id, artifacts.c.session_id == "")
    files = (await conn.execute(delete_from(artifacts).where(*saved).returning(artifacts.c.blob))).scalars()
    blobs = sorted(set(files))
    remembered = await memory.forget_user(conn, app, user_id)
    return bool(values or blobs or remembered), remembered, blobs


async def _let_go(conn: AsyncConnection, key: SessionKey) -> None:
    """Keep what the session saved for its user, but not as its own: a successor may use its event ids."""
    columns = artifacts.c
    saved = (columns.app == key.app, columns.user_id == key.user_id, columns.origin == key.session_id)
    await conn.execute(delete_from(artifacts).where(*saved, columns.seq.is_(None)))
    await conn.execute(update_table(artifacts).where(*saved).values(origin=""))


async def refuse_moved(
    conn: AsyncConnection, row: LockedSession, event_id: str, expected_head: int | None
) -> None:
    """Refuse a write by somebody who has not seen the whole log, unless it is there already.

    Raises:
        VersionMismatch: the log has grown since.
    """
    if expected_head is None or expected_head == row.head:
        return
    if event_id not in await log.by_ids(conn, row.key, [event_id], row.projection):
        raise VersionMismatch(
            f"the log of session {row.key} ends at seq {row.head}, not {expected_head}; "
            "read it again and retry",
            actual=row.version,
        )


def update_event(request_id: str, delta: Mapping[str, Json]) -> Event:
    """The event that records a change of state from outside a turn."""
    return prepared(
        Event(id=f"{request_id}:update", invocation_id=request_id, author="perdure", state_delta=delta)
    )


def _refuse_other_version(row: LockedSession, expected: int | None) -> None:
    if expected is not None and expected != row.version:
        raise VersionMismatch(
            f"session {row.key} is at version {row.version}, not {expected}; read it again and retry",
            actual=row.version,
        )
