"""A store's copies of sessions: forks, exports and imports."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import ArtifactNotFound, InvalidOption
from perdure.types import Event, JsonObject, Session, SessionKey
from storage import artifacts, fork, garbage, projection, reading, state, transfer
from storage.artifact_store import ArtifactStore
from storage.records import MAX_ID_BYTES
from storage.session_row import must_find, must_lock
from storage.storable import check_id, check_key

__all__ = ["CopyStore"]

PAGE = 500
"""Events that an export reads in one transaction."""

_log = logging.getLogger("perdure.storage")


class CopyStore(ArtifactStore):
    """Copies sessions."""

    async def fork(self, key: SessionKey, new: SessionKey | str, *, before: str | None = None) -> Session:
        """Copy what is live, or was before an invocation, into a new session; the source stays as it is.

        The fork has the live events under their ids with seqs of its own (without the markers of
        rewinds: its log starts as one straight line), the session's own state and the artifact
        versions of that point, and the metadata as it is now. What it came from is in
        ``forked_from``: ``{"session", "seq", "before"}``, the source, its last seq that was looked
        at, and the invocation. The two share ``app:`` and ``user:`` keys and ``user:`` artifacts
        as any two sessions do, and a user's never go to another user. The source may have ended;
        the fork has not.

        Args:
            key: the source.
            new: the fork's id, or its key, of the same app; the user may be another.
            before: a live invocation of the source; None copies all that is live.

        Returns:
            The fork, without events.

        Raises:
            SessionNotFound: there is no such source.
            SessionExists: the new id is taken.
            InvocationNotFound, InvocationRewound: there is no invocation ``before``, or it is not live.
            InvalidOption: the fork would belong to another app.
        """
        target = replace(key, session_id=new) if isinstance(new, str) else new
        check_key(key)
        check_key(target)
        if before is not None:
            check_id(before, "the invocation id", max_bytes=MAX_ID_BYTES)
        if target.app != key.app:
            raise InvalidOption(
                f"a fork of {key} cannot belong to app {target.app!r}; choose a key of its app"
            )
        blobs: dict[str, str] = {}

        async def work(conn: AsyncConnection) -> Session | set[str]:
            row = await must_lock(conn, key)
            if target.user_id != key.user_id:
                await garbage.protect(conn, target)
                wanted = await fork.live_blobs(conn, row, before)
                if missing := {blob for blob in wanted if not await self._is_there(blobs.get(blob))}:
                    return missing
            return await fork.fork(conn, row, target, before, blobs)

        # Another user has other blobs: copied outside of the transaction, and seen to be there within.
        while isinstance(done := await self._write("fork", target, work, awaits=True), set):
            for blob in done:
                blobs[blob] = await self._blobs.write(target, await self._blobs.read(blob))
        _log.info("forked session %s into %s", key, target)
        return done

    async def export(self, key: SessionKey) -> AsyncIterator[str]:
        """Everything in a session as JSON Lines, without line ends: for audit, and for moving house.

        The session with its own state first, then the whole log (``live`` false where it was
        rewound), then every version of its own artifacts with its bytes in base64, and a last
        line that counts them. It is the session as it was when the first line was read.

        Raises:
            SessionNotFound: there is none, or it was deleted meanwhile.
            ArtifactNotFound: the bytes of an artifact are gone.
        """

        async def begin(conn: AsyncConnection) -> tuple[Any, JsonObject, Sequence[Any]]:
            row = await must_find(conn, key)
            own = await state.load_own(conn, key)
            return row, own, await artifacts.visible(conn, key, [[1, None]], name=None, event_id=None)

        row, own, seen = await self._read(key, begin)
        yield transfer.session_line(row, own)
        for start in range(0, row.head, PAGE):
            limit = min(PAGE, row.head - start)
            for event in await self._page(key, start, limit):
                yield transfer.event_line(replace(event, live=projection.contains(row.projection, event.seq)))
        mine = sorted((each for each in seen if each.session_id), key=lambda each: (each.name, each.version))
        for version in mine:
            yield transfer.artifact_line(version, await self._blobs.read(version.blob))
        yield transfer.end_line(row.head, len(mine))

    async def import_session(
        self, lines: AsyncIterable[str] | Iterable[str], *, key: SessionKey | None = None
    ) -> Session:
        """Make the session again that was exported: its log, projection, state, artifacts and row.

        All of it in one transaction, or nothing. Its version and its times are those it had; its
        epoch is never lower, so that no turn left over from a session of that name can write.

        Args:
            lines: what :meth:`export` gave. The events are held in memory, one artifact at a time.
            key: where it goes; None is where it came from.

        Returns:
            The session, without events.

        Raises:
            SessionExists: the id is taken.
            InvalidContent: this is no whole export; the message names the line.
            InvalidName: an artifact in it has a name that none can have.
            ArtifactNotFound: a delete at the same time took bytes away; nothing was written, import again.
        """
        read = transfer.Reader()
        if key is not None:
            check_key(key)
        async for artifact, data in read.lines(lines):
            artifact["blob"] = await self._blobs.write(key or read.key, data)
        target = key or read.key

        async def work(conn: AsyncConnection) -> Session:
            await garbage.protect(conn, target)
            for blob in {artifact["blob"] for artifact in read.artifacts}:
                if not await self._is_there(blob):
                    raise ArtifactNotFound(f"blob {blob} was collected during the import; import it again")
            return await transfer.write(conn, target, read)

        session = await self._write("import", target, work, awaits=True)
        _log.info("imported session %s as %s", read.key, target)
        return session

    async def _is_there(self, blob: str | None) -> bool:
        return blob is not None and await self._blobs.modified(blob) is not None

    async def _page(self, key: SessionKey, after: int, limit: int) -> Sequence[Event]:
        return await self._read(key, lambda conn: reading.whole_log(conn, key, after=after, limit=limit))
