"""A store's artifacts: bytes in blobs, versions in rows."""

from __future__ import annotations

from collections.abc import AsyncIterator

from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import ArtifactNotFound, InvalidOption
from perdure.sources import Source, is_bytes
from perdure.types import ArtifactVersion, SessionKey
from storage import artifacts, garbage, past, projection
from storage.names import check_name
from storage.records import MAX_ID_BYTES, artifact_of
from storage.session_row import must_find, must_lock
from storage.storable import check_id, check_key
from storage.store import Confirm, Store

__all__ = ["ArtifactStore"]


class ArtifactStore(Store):
    """Saves, loads and lists the artifacts of a session."""

    async def stage_artifact(
        self,
        key: SessionKey,
        name: str,
        data: Source,
        mime_type: str,
        *,
        event_id: str,
        ordinal: int = 0,
        confirm: Confirm | None = None,
    ) -> int:
        """Store bytes under the next version of a name, to be listed by the event that names it.

        Of a file or an async iterable no more than a few chunks are in memory, whatever its size.

        Args:
            key: the session that saves it.
            name: ``user:`` names belong to the user and are not rewound.
            data: the bytes, or where they come from; none at all are bytes too.
            mime_type: kept as given.
            event_id: the event whose ``artifact_delta`` is to name this version.
            ordinal: which save of that event this is, so that a retry finds its own.
            confirm: asked before other bytes take the place of those that an earlier attempt has
                stored; whatever it raises is raised, and they stay.

        Returns:
            The version; a retry gets the same one.

        Raises:
            InvalidName: a name that is empty, absolute, too long or has ``..`` in it.
            InvalidContent: no bytes, or no usable MIME type.
            SessionNotFound: there is no such session.
            OSError: a file cannot be read. Whatever the source raises is raised, and nothing is stored.
        """
        check_name(name)
        check_key(key)
        check_id(mime_type, f"the MIME type of artifact {name!r}")
        check_id(event_id, "the event's id", max_bytes=MAX_ID_BYTES)
        if not is_bytes(data):
            # Before a source is read that might take an hour.
            await self._read(key, lambda conn: must_find(conn, key))
        async with self._blobs.receive(key, name, data) as received:
            await received.send()

            async def work(conn: AsyncConnection) -> int:
                await must_lock(conn, key)
                # From here on no cleaner can take it; if one just did, it is written again.
                await garbage.protect(conn, key)
                return await artifacts.stage(
                    conn,
                    key,
                    name,
                    event_id=event_id,
                    ordinal=ordinal,
                    blob=await received.store(),
                    mime_type=mime_type,
                    size=received.size,
                    confirm=confirm,
                )

            return await self._write("stage_artifact", key, work, awaits=True)

    async def load_artifact(
        self,
        key: SessionKey,
        name: str,
        *,
        version: int | None = None,
        event_id: str | None = None,
        before: str | None = None,
    ) -> tuple[ArtifactVersion, bytes]:
        """A live version of an artifact, and its bytes.

        Args:
            key: the session.
            name: the artifact.
            version: None means the newest live one.
            event_id: also versions that are staged for this event.
            before: as the session was just before this live invocation.

        Raises:
            ArtifactNotFound: there is no such version, or it was rewound.
            ArtifactDamaged: its bytes are not those that were saved.
            SessionNotFound, InvalidName: there is no such session, or can be no such name.
            InvocationNotFound, InvocationRewound: there is no invocation ``before``, or it is not live.
        """
        found = await self.find_artifact(key, name, version=version, event_id=event_id, before=before)
        return found, await self._blobs.read(found.blob)

    async def stream_artifact(
        self,
        key: SessionKey,
        name: str,
        *,
        version: int | None = None,
        event_id: str | None = None,
        before: str | None = None,
        start: int = 0,
        length: int | None = None,
    ) -> tuple[ArtifactVersion, AsyncIterator[bytes]]:
        """A live version of an artifact, and its bytes in chunks, of which a few are in memory.

        A reader may stop early. Nothing is held open between two chunks, so one that takes its
        time holds nobody up; its bytes may be gone then, if the session was deleted.

        Args:
            key, name, version, event_id, before: as for :meth:`load_artifact`.
            start: the first byte, from 0; there are none from the artifact's end on.
            length: how many bytes at most; None means to the end.

        Raises:
            ArtifactNotFound, SessionNotFound, InvalidName, InvocationNotFound, InvocationRewound: as
                :meth:`load_artifact`; the first also by the iterator, for bytes that are gone.
            ArtifactDamaged: by the iterator, for bytes that are not those that were saved.
            InvalidOption: a range below nothing.
        """
        if start < 0 or (length is not None and length < 0):
            raise InvalidOption(f"the range of {length} bytes from {start} is none; give 0 or more")
        found = await self.find_artifact(key, name, version=version, event_id=event_id, before=before)
        first = min(start, found.size)
        stop = found.size if length is None else min(first + length, found.size)
        return found, self._blobs.chunks(found.blob, found.size, first, stop)

    async def find_artifact(
        self,
        key: SessionKey,
        name: str,
        *,
        version: int | None = None,
        event_id: str | None = None,
        before: str | None = None,
    ) -> ArtifactVersion:
        """A live version of an artifact without its bytes, as :meth:`load_artifact` finds it."""
        found = await self._seen(key, name, event_id, before)
        match = next((row for row in found if version is None or row.version == version), None)
        if match is None:
            wanted = f"artifact {name!r}" if version is None else f"version {version} of artifact {name!r}"
            raise ArtifactNotFound(
                f"{wanted} of {key} was never saved, or was rewound or deleted; list the artifacts"
            )
        return match

    async def list_artifacts(
        self, key: SessionKey, *, event_id: str | None = None, before: str | None = None
    ) -> list[ArtifactVersion]:
        """The newest live version of each artifact a session sees, by name; the user's included.

        Args:
            key: the session.
            event_id: also versions that are staged for this event.
            before: as the session was just before this live invocation; the user's are as they are now.

        Raises:
            SessionNotFound: there is no such session.
            InvocationNotFound, InvocationRewound: there is no invocation ``before``, or it is not live.
        """
        newest: dict[str, ArtifactVersion] = {}
        for found in await self._seen(key, None, event_id, before):
            newest.setdefault(found.name, found)
        return sorted(newest.values(), key=lambda artifact: artifact.name)

    async def artifact_versions(self, key: SessionKey, name: str) -> list[ArtifactVersion]:
        """The live versions of an artifact, oldest first; none if it was never saved.

        Raises:
            SessionNotFound, InvalidName: there is no such session, or can be no such name.
        """
        return (await self._seen(key, name, None))[::-1]

    async def _seen(
        self, key: SessionKey, name: str | None, event_id: str | None, before: str | None = None
    ) -> list[ArtifactVersion]:
        if name is not None:
            check_name(name)
        if before is not None:
            check_id(before, "the invocation id", max_bytes=MAX_ID_BYTES)

        async def work(conn: AsyncConnection) -> list[ArtifactVersion]:
            row = await must_find(conn, key)
            ranges = row.projection
            if before is not None:
                point = await past.before(conn, key, ranges, before)
                ranges = projection.cut(point.projection, point.seq)
            rows = await artifacts.visible(conn, key, ranges, name=name, event_id=event_id)
            return [artifact_of(found) for found in artifacts.undeleted(rows)]

        return await self._read(key, work)
