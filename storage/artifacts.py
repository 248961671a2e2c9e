"""Versions of artifacts: rows that say which blob a name had, and which event saved it.

A save stages a row under the id of the event that is to name it; the append of that event
commits it. So a tool that crashed after a save has listed nothing, and its retry finds the
same row and version. A version is live if its event is, which is why a rewind costs
nothing here; a ``user:`` name belongs to no session and stays live.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import ArtifactNotFound, InvalidContent
from perdure.types import Event, SessionKey
from storage.names import is_users
from storage.projection import Ranges, contains
from storage.schema import artifacts
from storage.session_row import now
from storage.sql import insert_into

__all__ = ["DELETED", "commit", "refuse_reserved", "stage", "undeleted", "visible"]

DELETED = "application/vnd.perdure.deleted"
"""The type of an empty version that says: the artifact was deleted here."""

_COLUMNS = artifacts.c
_OF_EVENT = (
    _COLUMNS.app == bindparam("b_app"),
    _COLUMNS.user_id == bindparam("b_user_id"),
    _COLUMNS.origin == bindparam("b_origin"),
    _COLUMNS.event_id == bindparam("b_event_id"),
)
_OF_NAME = (_COLUMNS.name == bindparam("b_name"),)
_STAGED = select(_COLUMNS.name, _COLUMNS.version, _COLUMNS.ordinal, _COLUMNS.seq, _COLUMNS.blob).where(
    *_OF_EVENT
)
_RESTAGE = update(artifacts).where(*_OF_EVENT, *_OF_NAME, _COLUMNS.ordinal == bindparam("b_ordinal"))
_COMMIT = update(artifacts).where(
    *_OF_EVENT, *_OF_NAME, _COLUMNS.version <= bindparam("b_version"), _COLUMNS.seq.is_(None)
)
_NEXT = select(func.coalesce(func.max(_COLUMNS.version), 0) + 1).where(
    *_OF_EVENT[:2], _COLUMNS.session_id == bindparam("b_session_id"), *_OF_NAME
)
_SEEN = (
    select(artifacts)
    .where(*_OF_EVENT[:2], _COLUMNS.session_id.in_([bindparam("b_session_id"), ""]))
    .order_by(_COLUMNS.version.desc())
)
_SEEN_OF_NAME = _SEEN.where(*_OF_NAME)


def refuse_reserved(mime_type: str) -> None:
    """Refuse a type that is no artifact's.

    Raises:
        InvalidContent: it is what says that an artifact was deleted.
    """
    if mime_type == DELETED:
        raise InvalidContent(f"the type {DELETED} is reserved; give the artifact its own")


async def stage(
    conn: AsyncConnection,
    key: SessionKey,
    name: str,
    *,
    event_id: str,
    ordinal: int,
    blob: str,
    mime_type: str,
    size: int,
    confirm: Callable[[], Awaitable[None]] | None = None,
) -> int:
    """Give a saved blob a version of a name, not yet listed. The session's row must be locked.

    Returns:
        The version: the same for every attempt of one event's save.
    """
    holder = _event(key, event_id)
    said = {"blob": blob, "mime_type": mime_type, "size": size}
    for row in await conn.execute(_STAGED, holder):
        if (row.name, row.ordinal) == (name, ordinal):
            # What an event has committed stays: this is an attempt that lost.
            if row.seq is None:
                if confirm is not None and row.blob != blob:
                    await confirm()
                await conn.execute(_RESTAGE, {**holder, "b_name": name, "b_ordinal": ordinal, **said})
            return int(row.version)
    owner = {"app": key.app, "user_id": key.user_id, "session_id": "" if is_users(name) else key.session_id}
    fixed = {"name": name, "origin": key.session_id, "event_id": event_id, "ordinal": ordinal}
    while True:
        wanted = {f"b_{column}": value for column, value in owner.items()}
        version = (await conn.execute(_NEXT, {**wanted, "b_name": name})).scalar_one()
        values = {**owner, **fixed, **said, "version": version, "created_at": now()}
        made = await conn.execute(insert_into(conn, artifacts).on_conflict_do_nothing(), values)
        # Only another session of the user can have taken it: this one's row is locked.
        if made.rowcount:
            return int(version)


async def commit(conn: AsyncConnection, key: SessionKey, event: Event) -> None:
    """List the versions that an event names, and the earlier ones it saved of the same names.

    Raises:
        ArtifactNotFound: a version that was not staged for this event.
    """
    holder = _event(key, event.id)
    staged = {(row.name, row.version) for row in await conn.execute(_STAGED, holder)}
    for name, version in event.artifact_delta.items():
        if (name, version) not in staged:
            raise ArtifactNotFound(
                f"event {event.id} of {key} names version {version} of artifact {name!r}, which was not "
                "staged for it; stage it under this event's id first"
            )
    named = event.artifact_delta.items()
    rows = [{**holder, "b_name": name, "b_version": version, "seq": event.seq} for name, version in named]
    await conn.execute(_COMMIT, rows)


async def visible(
    conn: AsyncConnection, key: SessionKey, ranges: Ranges, *, name: str | None, event_id: str | None
) -> Sequence[Any]:
    """The rows that a session sees, highest version first.

    Args:
        conn: the transaction to read in.
        key: the session.
        ranges: its projection.
        name: only versions of this name; None means of all.
        event_id: also those that are staged for this event.
    """
    wanted = {"b_app": key.app, "b_user_id": key.user_id, "b_session_id": key.session_id}
    if name is None:
        rows = await conn.execute(_SEEN, wanted)
    else:
        rows = await conn.execute(_SEEN_OF_NAME, {**wanted, "b_name": name})
    return [row for row in rows if _is_seen(row, key, ranges, event_id)]


def undeleted(rows: Sequence[Any]) -> list[Any]:
    """Of the rows that a session sees, highest version first, those since each name was last deleted."""
    deleted: set[str] = set()
    found = []
    for row in rows:
        if row.mime_type == DELETED:
            deleted.add(row.name)
        elif row.name not in deleted:
            found.append(row)
    return found


def _is_seen(row: Any, key: SessionKey, ranges: Ranges, event_id: str | None) -> bool:
    if row.seq is None:
        return bool(row.event_id == event_id and row.origin == key.session_id)
    return row.session_id == "" or contains(ranges, row.seq)


def _event(key: SessionKey, event_id: str) -> dict[str, str]:
    return {"b_app": key.app, "b_user_id": key.user_id, "b_origin": key.session_id, "b_event_id": event_id}
