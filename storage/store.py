"""What every part of a store shares: opening, closing, and its two kinds of transaction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self, TypeVar

from perdure.types import SessionKey
from storage.blobs import BlobStore
from storage.engine import Database, Work
from storage.migrate import check, upgrade
from storage.options import StoreOptions
from storage.schema import metadata as tables
from storage.storable import check_key

__all__ = ["Store"]

T = TypeVar("T")


class Store:
    """A database and a place for blobs."""

    def __init__(self, database: Database, blobs: BlobStore) -> None:
        self._db = database
        self._blobs = blobs

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
        return cls(database, blobs)

    async def close(self) -> None:
        """Close every connection."""
        await self._db.close()

    async def _write(self, key: SessionKey, work: Work[T]) -> T:
        """All that a method writes happens inside one of these; tests let it fail at every statement."""
        check_key(key)
        return await self._db.write(work)

    async def _read(self, key: SessionKey, work: Work[T]) -> T:
        check_key(key)
        return await self._db.read(work)
