"""Blobs that nothing names any more, and how they go without a save losing its own.

The same bytes are stored once a user: sessions of the user, forks and ``user:`` artifacts
share them, so a blob goes when no row of that user names it. A save writes its blob first
and names it after, and may have found it there already, however old; so no age makes a
removal safe. A lock a user does, held until the transaction ends:

- who names blobs shares it, and sees to it under the lock that they are there
  (:func:`protect`, then write again what is gone);
- who removes has it alone, asks the rows and removes before it lets go (:func:`seize`).

So a row is there before the cleaner asks, or its blob is written after the cleaner is done.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.types import SessionKey
from storage.blob_keys import identity, owner_of, prefix_of
from storage.schema import artifacts
from storage.sql import lock_name

__all__ = ["let_go_by", "named", "protect", "seize"]

_COLUMNS = artifacts.c


async def protect(conn: AsyncConnection, key: SessionKey) -> None:
    """Let nobody remove a blob of this user's before the transaction ends."""
    await lock_name(conn, _lock(prefix_of(key)), shared=True)


async def seize(conn: AsyncConnection, prefix: str) -> None:
    """Let nobody name a blob of this user's before the transaction ends."""
    await lock_name(conn, _lock(prefix), shared=False)


async def named(conn: AsyncConnection, prefix: str, keys: Sequence[str]) -> set[str]:
    """Which of these keys, all of one user, rows name."""
    query = select(_COLUMNS.blob).where(_COLUMNS.blob.in_(keys)).distinct()
    owner = owner_of(prefix)
    if owner is not None:
        query = query.where(_COLUMNS.app == owner[0], _COLUMNS.user_id == owner[1])
    return set((await conn.execute(query)).scalars())


async def let_go_by(conn: AsyncConnection, key: SessionKey) -> list[str]:
    """What a session's own versions name, and what it staged for its user: a delete drops those rows."""
    own = _COLUMNS.session_id == key.session_id
    staged = and_(_COLUMNS.origin == key.session_id, _COLUMNS.seq.is_(None))
    query = select(_COLUMNS.blob).where(
        _COLUMNS.app == key.app, _COLUMNS.user_id == key.user_id, or_(own, staged)
    )
    return sorted(set((await conn.execute(query)).scalars()))


def _lock(prefix: str) -> str:
    # A folder that an earlier release made may spell the same owners otherwise.
    return f"perdure blobs {identity(prefix)}"
