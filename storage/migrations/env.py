"""Alembic's entry: runs the revisions on the connection that :mod:`storage.migrate` hands over.

``alembic revision`` and the like work too, given ``-x url=…``.
"""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection

from storage.engine import Database
from storage.options import StoreOptions
from storage.schema import metadata


def run(connection: Connection) -> None:
    """Run on an open connection, in its transaction."""
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
    with context.begin_transaction():
        context.run_migrations()


async def run_on(url: str) -> None:
    """Run on a database of which only the URL is known."""
    database = await Database.open(url, StoreOptions())
    try:
        await database.write(lambda conn: conn.run_sync(run))
    finally:
        await database.close()


if (given := context.config.attributes.get("connection")) is not None:
    run(given)
else:
    asyncio.run(run_on(context.get_x_argument(as_dictionary=True)["url"]))
