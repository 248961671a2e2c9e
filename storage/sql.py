"""Where SQLite and PostgreSQL are spelled differently: ``INSERT … ON CONFLICT``, and locks by name."""

from __future__ import annotations

import hashlib

from sqlalchemy import Table, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["insert_into", "insert_on", "lock_name"]


def insert_into(conn: AsyncConnection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An insert that can say what is to happen on conflict, for the database of ``conn``."""
    return insert_on(conn.dialect.name, table)


def insert_on(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    """The same, for a statement that is made once: to make one takes longer than to send it."""
    return sqlite.insert(table) if dialect == "sqlite" else postgresql.insert(table)


async def lock_name(conn: AsyncConnection, name: str, *, shared: bool) -> None:
    """Hold a name until the transaction ends: any number may share it, or one has it alone.

    On SQLite the transaction, being a writer's, is alone already.
    """
    if conn.dialect.name == "sqlite":
        return
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    lock = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
    await conn.execute(select(lock(number)))
