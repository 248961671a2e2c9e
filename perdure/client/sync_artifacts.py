"""A session's files, for programs that block."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from perdure.client import calls
from perdure.client.reading import DownloadReader
from perdure.client.results import ArtifactInfo, newest_of
from perdure.client.sync_wire import SyncWire
from perdure.client.uploads import SyncSource, Upload
from perdure.context import Artifact
from perdure.sources import type_by_name
from perdure.types import SessionKey

__all__ = ["Artifacts"]


class Artifacts:
    """The files of a session, and with names that begin with ``user:`` its user's. By version, from 1."""

    def __init__(self, wire: SyncWire, key: SessionKey) -> None:
        self._wire, self._key = wire, key

    def save(
        self,
        name: str,
        data: str | SyncSource,
        mime_type: str | None = None,
        *,
        request_id: str | None = None,
    ) -> ArtifactInfo:
        """Save the next version of a file. It is listed once it is there whole.

        Args:
            name: may contain ``/``.
            data: bytes, text to be stored as UTF-8, the ``Path`` of a file, a file opened in binary mode
                or an iterable of bytes. The last two are read once, so an upload of theirs that breaks
                off is not tried again.
            mime_type: guessed from the name where None.
            request_id: under which it is saved once; a new one where None.

        Raises:
            InvalidName, InvalidContent, TooLarge, SessionNotFound, SessionEnded: nothing was saved.
        """
        chosen = mime_type or type_by_name(name, text=isinstance(data, str))
        return self._wire.send(calls.save(self._key, name, chosen, request_id), Upload(name, data))

    def load(
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
        data = b"".join(self._wire.download(reader))
        if reader.size is None:  # nothing of it was asked for, or there is nothing from there on
            return self.find(name, version).artifact(b"")
        return reader.artifact(data)

    def stream(
        self, name: str, version: int | None = None, *, start: int = 0, length: int | None = None
    ) -> Generator[bytes, None, None]:
        """As :meth:`load`, in chunks, of which a few are in memory. All are of one version."""
        reader = DownloadReader(self._key, name, version, start=start, length=length)
        return self._wire.download(reader)

    def list(self) -> Sequence[ArtifactInfo]:
        """The newest live version of each file."""
        return self._wire.send(calls.artifacts(self._key, None))

    def versions(self, name: str) -> Sequence[ArtifactInfo]:
        """All live versions of a file, oldest first."""
        return self._wire.send(calls.artifacts(self._key, name))

    def find(self, name: str, version: int | None = None) -> ArtifactInfo:
        """A version of a file without its bytes; the newest where None.

        Raises:
            ArtifactNotFound: there is none, or it was rewound.
        """
        return newest_of(self.versions(name), name, version, self._key)
