"""A session's files, for programs that await."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from perdure.client import calls
from perdure.client.aio_wire import AsyncWire
from perdure.client.reading import DownloadReader
from perdure.client.results import ArtifactInfo, newest_of
from perdure.client.uploads import AsyncUpload
from perdure.context import Artifact
from perdure.sources import Source, type_by_name
from perdure.types import SessionKey

__all__ = ["AsyncArtifacts"]


class AsyncArtifacts:
    """The files of a session, and with names that begin with ``user:`` its user's. By version, from 1."""

    def __init__(self, wire: AsyncWire, key: SessionKey) -> None:
        self._wire, self._key = wire, key

    async def save(
        self,
        name: str,
        data: str | Source,
        mime_type: str | None = None,
        *,
        request_id: str | None = None,
    ) -> ArtifactInfo:
        """Save the next version of a file. It is listed once it is there whole.

        Args:
            name: may contain ``/``.
            data: bytes, text to be stored as UTF-8, the ``Path`` of a file, a file opened in binary mode
                or an async iterable of bytes. The last two are read once, so an upload of theirs that breaks
                off is not tried again.
            mime_type: guessed from the name where None.
            request_id: under which it is saved once; a new one where None.

        Raises:
            InvalidName, InvalidContent, TooLarge, SessionNotFound, SessionEnded: nothing was saved.
        """
        chosen = mime_type or type_by_name(name, text=isinstance(data, str))
        return await self._wire.send(calls.save(self._key, name, chosen, request_id), AsyncUpload(name, data))

    async def load(
        self, name: str, version: int | None = None, *, start: int = 0, length: int | None = None
    ) -> Artifact:
        """A file, or a range of it, in memory.

        Args:
            name: the file.
            version: None means the newest.
            start: the first byte, from 0; behind the end there are none.
            length: how many bytes at most; None means to the end.

        Raises:
            ArtifactNotFound: there is no such file or version, or it was rewound.
            InvalidOption: a range below nothing.
        """
        reader = DownloadReader(self._key, name, version, start=start, length=length)
        data = b"".join([chunk async for chunk in self._wire.download(reader)])
        if reader.size is None:  # nothing of it was asked for, or there is nothing from there on
            return (await self.find(name, version)).artifact(b"")
        return reader.artifact(data)

    def stream(
        self, name: str, version: int | None = None, *, start: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """As :meth:`load`, in chunks, of which a few are in memory. All are of one version."""
        reader = DownloadReader(self._key, name, version, start=start, length=length)
        return self._wire.download(reader)

    async def list(self) -> Sequence[ArtifactInfo]:
        """The newest live version of each file."""
        return await self._wire.send(calls.artifacts(self._key, None))

    async def versions(self, name: str) -> Sequence[ArtifactInfo]:
        """All live versions of a file, oldest first."""
        return await self._wire.send(calls.artifacts(self._key, name))

    async def find(self, name: str, version: int | None = None) -> ArtifactInfo:
        """A version of a file without its bytes; the newest where None.

        Raises:
            ArtifactNotFound: there is none, or it was rewound.
        """
        return newest_of(await self.versions(name), name, version, self._key)
