"""The session's row: the lock that every write of a session takes first, and what it moves last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import SessionEnded, SessionNotFound, StaleEpoch
from perdure.types import Json, Session, SessionKey, Spent
from storage import projection
from storage.schema import epoch_floor, sessions
from storage.sql import insert_into

__all__ = ["LockedSession", "find", "insert", "lock", "lock_or_insert", "must_find", "must_lock", "now"]

_NAMED = (
    sessions.c.app == bindparam("b_app"),
    sessions.c.user_id == bindparam("b_user_id"),
    sessions.c.id == bindparam("b_id"),
)
_FIND = select(sessions).where(*_NAMED)
_LOCK = _FIND.with_for_update()
_COUNTED = ("tokens", "nano_usd", "model_calls")
_MOVED = ("version", "epoch", "head", "projection", "metadata", "updated_at", "ended_at", *_COUNTED)
_SAVE = update(sessions).where(*_NAMED)


@dataclass(kw_only=True, slots=True)
class LockedSession:
    """A session's row, locked until the transaction ends. Change it, then :meth:`save` it once."""

    key: SessionKey
    version: int = 0
    epoch: int = 0
    head: int = 0
    projection: projection.Ranges
    metadata: dict[str, Json] = field(default_factory=dict)
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None
    forked_from: dict[str, Json] | None = None
    tokens: int = 0
    nano_usd: int = 0
    model_calls: int = 0

    def is_live(self, seq: int) -> bool:
        """Whether the event ``seq`` is live, as things stand in this transaction."""
        return projection.contains(self.projection, seq)

    def refuse_ended(self) -> None:
        """Raises SessionEnded if the session was ended."""
        if self.ended_at is not None:
            raise SessionEnded(
                f"session {self.key} was ended; send a message with reopen set, or use another id"
            )

    def refuse_stale(self, epoch: int | None) -> None:
        """Raises StaleEpoch if the caller's epoch is not the session's. None is a caller without one."""
        if epoch is not None and epoch != self.epoch:
            raise StaleEpoch(
                f"session {self.key} is at epoch {self.epoch}, not {epoch}: the turn was cancelled or "
                "rewound meanwhile; drop the write"
            )

    @property
    def spent(self) -> Spent:
        """What the model calls of its log took."""
        return Spent(tokens=self.tokens, nano_usd=self.nano_usd, model_calls=self.model_calls)

    @spent.setter
    def spent(self, sums: Spent) -> None:
        self.tokens, self.nano_usd, self.model_calls = sums.tokens, sums.nano_usd, sums.model_calls

    async def save(self, conn: AsyncConnection) -> None:
        """Write what was changed, as the session's next version."""
        self.version += 1
        self.updated_at = now()
        await self.write(conn)

    async def write(self, conn: AsyncConnection) -> None:
        """Write the row as it stands."""
        await conn.execute(_SAVE, {**_name(self.key), **{name: getattr(self, name) for name in _MOVED}})

    def session(self, state: Mapping[str, Json]) -> Session:
        """The session as this transaction leaves it, without events."""
        return Session(
            key=self.key,
            version=self.version,
            epoch=self.epoch,
            head=self.head,
            projection=self.projection,
            state=state,
            events=[],
            metadata=self.metadata,
            created_at=self.created_at,
            updated_at=self.updated_at,
            ended_at=self.ended_at,
            forked_from=self.forked_from,
            spent=self.spent,
        )


def now() -> datetime:
    """The time, for people. Nothing is ever decided by it."""
    return datetime.now(UTC)


async def find(conn: AsyncConnection, key: SessionKey) -> Any | None:
    """The session's row, not locked, or None."""
    return (await conn.execute(_FIND, _name(key))).one_or_none()


async def must_find(conn: AsyncConnection, key: SessionKey) -> Any:
    """The session's row, not locked.

    Raises:
        SessionNotFound: there is none.
    """
    row = await find(conn, key)
    if row is None:
        raise _not_found(key)
    return row


async def lock(conn: AsyncConnection, key: SessionKey) -> LockedSession | None:
    """Lock the session's row, or None if there is none. Everything else is read after this."""
    row = (await conn.execute(_LOCK, _name(key))).one_or_none()
    if row is None:
        return None
    columns = dict(row._mapping)
    for name in ("app", "user_id", "id"):
        del columns[name]
    return LockedSession(key=key, **columns)


async def must_lock(conn: AsyncConnection, key: SessionKey) -> LockedSession:
    """Lock the session's row.

    Raises:
        SessionNotFound: there is none.
    """
    locked = await lock(conn, key)
    if locked is None:
        raise _not_found(key)
    return locked


async def insert(
    conn: AsyncConnection,
    key: SessionKey,
    *,
    forked_from: dict[str, Json] | None = None,
    created_at: datetime | None = None,
) -> LockedSession | None:
    """Make the session's row, at version 0 until it is saved; None if somebody else has made it."""
    time = now()
    row = LockedSession(
        key=key,
        projection=projection.fresh(),
        created_at=created_at or time,
        updated_at=time,
        forked_from=forked_from,
    )
    values = {name: getattr(row, name) for name in (*_MOVED, "created_at", "forked_from")}
    named = {"app": key.app, "user_id": key.user_id, "id": key.session_id}
    made = await conn.execute(insert_into(conn, sessions).on_conflict_do_nothing(), {**named, **values})
    if not made.rowcount:
        return None
    # Read after the insert: that waits for a delete of the same session, which lifts the floor.
    row.epoch = (await conn.execute(select(epoch_floor.c.value))).scalar_one()
    return row


async def lock_or_insert(conn: AsyncConnection, key: SessionKey) -> LockedSession:
    """Lock the session's row, made now if there is none."""
    while True:
        locked = await lock(conn, key) or await insert(conn, key)
        if locked is not None:
            return locked


def _name(key: SessionKey) -> dict[str, str]:
    return {"b_app": key.app, "b_user_id": key.user_id, "b_id": key.session_id}


def _not_found(key: SessionKey) -> SessionNotFound:
    return SessionNotFound(f"no session {key} (app/user/session); create it, or check all three ids")
