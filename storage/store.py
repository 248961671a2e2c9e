"""What every part of a store shares: opening, closing, and its two kinds of transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self, TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.crashpoints import reach
from perdure.types import Event, SessionKey
from storage.blobs import BlobStore
from storage.engine import Database, Work
from storage.feed import Feed, local_feed
from storage.feed_postgres import PostgresFeed
from storage.migrate import check, upgrade
from storage.options import StoreOptions
from storage.records import Turn
from storage.schema import metadata as tables
from storage.storable import check_key

__all__ = ["Confirm", "Store"]

T = TypeVar("T")

Confirm = Callable[[], Awaitable[None]]
"""Raises if a write must not be made."""


class Store:
    """A database and a place for blobs."""

    def __init__(self, database: Database, blobs: BlobStore, feed: Feed) -> None:
        self._db = database
        self._blobs = blobs
        self.feed = feed
        """Who follows a session hears of it here."""

    @classmethod
    async def open(
        cls,
        database_url: str,
        artifacts_url: str,
        *,
        options: StoreOptions | Mapping[str, Any] | None = None,
        migrate: bool = False,
    ) -> Self:
        """Open a store.

        Args:
            database_url: ``sqlite:///path``, ``sqlite://`` (in memory, gone when it is closed) or
                ``postgresql://user:password@host/database``.
            artifacts_url: any fsspec URL: ``file://folder``, ``s3://bucket/prefix``, ``memory://name``.
            options: pool and durability settings.
            migrate: bring the schema up to date first; several processes may do so at once.

        Raises:
            InvalidOption: a URL or option that makes no sense, or a database that is not migrated.
        """
        chosen = StoreOptions.of(options)
        blobs = BlobStore(artifacts_url)
        database = await Database.open(database_url, chosen)
        try:
            if database.in_memory:
                await database.write(lambda conn: conn.run_sync(tables.create_all))
            elif migrate:
                await upgrade(database_url)
            else:
                await check(database)
        except BaseException:
            await database.close()
            raise
        return cls(database, blobs, _feed(database, chosen))

    async def ping_database(self) -> None:
        """Ask the database for nothing; raises whatever keeps it from answering."""
        await self._db.read(lambda conn: conn.execute(text("SELECT 1")))

    async def ping_artifacts(self) -> None:
        """Look into the artifact store; raises whatever keeps it from answering."""
        await self._blobs.ping()

    async def close(self) -> None:
        """Close every connection."""
        await self.feed.close()
        await self._db.close()

    async def _write(
        self,
        name: str,
        key: SessionKey,
        work: Work[T],
        *,
        awaits: bool = False,
        confirm: Confirm | None = None,
    ) -> T:
        """All that a method writes happens inside one of these; tests let it fail at every statement.

        Args:
            name: of its crash points.
            key: the session.
            work: what is written.
            awaits: it awaits other things than its connection.
            confirm: asked last of all, under the locks: whatever it raises undoes the transaction.
        """
        check_key(key)

        async def to_the_commit(conn: AsyncConnection) -> T:
            done = await work(conn)
            if confirm is not None:
                await confirm()
            reach(f"{name}.before_commit")
            return done

        done = await self._db.write(to_the_commit, awaits=awaits or confirm is not None)
        reach(f"{name}.after_commit")
        self.feed.changed(key, _seq_of(done))
        return done

    async def _write_at_once(
        self, name: str, key: SessionKey, work: Callable[[Database], Awaitable[T | None]]
    ) -> T | None:
        """What one statement can write; None, with nothing written, if it cannot or this is SQLite."""
        check_key(key)
        if self._db.sqlite:
            return None
        reach(f"{name}.before_commit")
        done = await work(self._db)
        if done is not None:
            reach(f"{name}.after_commit")
            self.feed.changed(key, _seq_of(done))
        return done

    async def _read(self, key: SessionKey, work: Work[T]) -> T:
        check_key(key)
        return await self._db.read(work)


def _feed(database: Database, options: StoreOptions) -> Feed:
    """How those who write to this database tell those who follow it."""
    if not database.sqlite:
        return PostgresFeed(database.connect_apart, announce=options.announce)
    return local_feed(database.name)


def _seq_of(done: object) -> int | None:
    """The seq of the event that was written, if that was all."""
    if isinstance(done, tuple):
        done = done[0]
    return done.seq if isinstance(done, (Event, Turn)) else None
