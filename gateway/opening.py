"""Opening the store that the settings name: what workers, the command line and the gateway all do."""

from __future__ import annotations

from perdure.settings import Settings
from storage.sessions import SessionStore, StoreOptions

__all__ = ["open_store"]


async def open_store(settings: Settings, *, migrate: bool = False) -> SessionStore:
    """The store that the settings name. ``migrate`` brings its schema up to date first."""
    options = StoreOptions(
        pool_size=settings.pool_size,
        max_overflow=settings.max_overflow,
        pool_idle_timeout=settings.pool_idle_timeout,
        pool_pre_ping=settings.pool_pre_ping,
        sqlite_synchronous=settings.sqlite_synchronous,
        announce=True,
    )
    return await SessionStore.open(
        settings.database_url, settings.artifacts_url, options=options, migrate=migrate
    )
