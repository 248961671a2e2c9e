"""The one place where SQLite and PostgreSQL are spelled differently: ``INSERT … ON CONFLICT``."""

from __future__ import annotations

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["insert_into"]


def insert_into(conn: AsyncConnection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """An insert that can say what is to happen on conflict, for the database of ``conn``."""
    return sqlite.insert(table) if conn.dialect.name == "sqlite" else postgresql.insert(table)
