"""The store behind the services: one given, or opened where and when it is first used.

google-adk makes its services before there is an event loop, and ``Runner.run`` makes a loop
of its own for every call. A store belongs to one loop, so each loop opens its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from perdure.errors import InvalidOption
from storage.options import StoreOptions
from storage.sessions import SessionStore

__all__ = ["Connection"]


class Connection:
    """A way to the store, shared by the services of an app.

    Args:
        database_url: where to open it; None if ``store`` is given.
        artifacts_url: where its artifacts are.
        store: a store that is open already. It stays its owner's to close.
        options: pool and durability settings of a store that is opened here.

    Raises:
        InvalidOption: neither or both of a URL and a store, or an option that does not exist.
    """

    def __init__(
        self,
        database_url: str | None,
        artifacts_url: str,
        *,
        store: SessionStore | None,
        options: StoreOptions | Mapping[str, Any] | None,
    ) -> None:
        if (database_url is None) == (store is None):
            raise InvalidOption("give either a database_url or an open store, not both and not neither")
        self._database_url = database_url or ""
        self._artifacts_url = artifacts_url
        self._options = StoreOptions.of(options)
        self._given = store
        self._opened: dict[asyncio.AbstractEventLoop, asyncio.Task[SessionStore]] = {}

    async def store(self) -> SessionStore:
        """The store of the running event loop; the first caller opens it and brings its schema up to date.

        Raises:
            InvalidOption: a URL that makes no sense.
        """
        if self._given is not None:
            return self._given
        loop = asyncio.get_running_loop()
        opening = self._opened.get(loop)
        if opening is None:
            for ended in [other for other in self._opened if other.is_closed()]:
                del self._opened[ended]
            opening = self._opened[loop] = loop.create_task(self._open())
        try:
            # Shielded: a caller that is cancelled must not take the store from the others.
            return await asyncio.shield(opening)
        except BaseException:
            if opening.done() and (opening.cancelled() or opening.exception() is not None):
                self._opened.pop(loop, None)
            raise

    async def close(self) -> None:
        """Close the store that this event loop opened; the next use opens it again."""
        opening = self._opened.pop(asyncio.get_running_loop(), None)
        if opening is not None:
            await (await opening).close()

    async def _open(self) -> SessionStore:
        return await SessionStore.open(
            self._database_url, self._artifacts_url, options=self._options, migrate=True
        )
