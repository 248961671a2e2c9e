"""What a running tool reaches of the artifacts: ``ToolContext``'s way to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from activities.fencing import still_wanted
from activities.patience import patiently
from perdure.context import Artifact
from perdure.sources import Source, is_bytes
from perdure.types import SessionKey
from storage.artifacts import refuse_reserved
from storage.sessions import SessionStore

__all__ = ["CallArtifacts"]

T = TypeVar("T")

STORAGE_TRIES = 4
"""How often what a tool asks of the artifacts is tried while the storage is out of order: two seconds."""


class CallArtifacts:
    """A call's way to artifacts: bytes are put at once, versions are listed when the call commits."""

    def __init__(self, store: SessionStore, key: SessionKey, invocation_id: str, event_id: str) -> None:
        self._store = store
        self._key = key
        self._invocation_id = invocation_id
        self._event_id = event_id
        self._saves = 0
        self.saved: dict[str, int] = {}

    async def save(self, name: str, data: Source, mime_type: str) -> int:
        refuse_reserved(mime_type)
        ordinal, self._saves = self._saves, self._saves + 1
        # What is read from a source is read once.
        version = await self._patiently(
            partial(
                self._store.stage_artifact,
                *(self._key, name, data, mime_type),
                event_id=self._event_id,
                ordinal=ordinal,
                confirm=still_wanted,
            ),
            STORAGE_TRIES if is_bytes(data) else 1,
        )
        self.saved[name] = version
        return version

    async def load(
        self, name: str, version: int | None, *, start: int = 0, length: int | None = None
    ) -> Artifact:
        return await self._patiently(
            partial(self._load, name, version, start=start, length=length), STORAGE_TRIES
        )

    async def names(self) -> list[str]:
        list_all = partial(self._store.list_artifacts, self._key, event_id=self._event_id)
        return [row.name for row in await self._patiently(list_all, STORAGE_TRIES)]

    async def _load(self, name: str, version: int | None, *, start: int, length: int | None) -> Artifact:
        event_id = self._event_id
        if start == 0 and length is None:
            row, data = await self._store.load_artifact(self._key, name, version=version, event_id=event_id)
        else:
            row, chunks = await self._store.stream_artifact(
                self._key, name, version=version, event_id=event_id, start=start, length=length
            )
            data = b"".join([chunk async for chunk in chunks])
        return Artifact(name=row.name, version=row.version, mime_type=row.mime_type, data=data, size=row.size)

    async def _patiently(self, call: Callable[[], Awaitable[T]], tries: int) -> T:
        """A tool sees no connection that was lost in between, but it is told of a real outage."""
        return await patiently(call, self._key, self._invocation_id, tries=tries)
