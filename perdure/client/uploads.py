"""The bytes of an upload: where they come from, and whether they can be sent a second time."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Callable, Generator, Iterable
from pathlib import Path
from typing import BinaryIO, TypeAlias

from perdure.errors import InvalidContent
from perdure.sources import CHUNK, Source, checked, chunks_of, encoded

__all__ = ["AsyncUpload", "SyncSource", "Upload"]

SyncSource: TypeAlias = bytes | bytearray | memoryview | os.PathLike[str] | BinaryIO | Iterable[bytes]
"""As :data:`perdure.sources.Source`, with an iterable of bytes in place of an async one."""


class _Bytes:
    """What both kinds share."""

    def __init__(self, name: str, data: object) -> None:
        self._name = name
        self._replayable = isinstance(data, str | bytes | bytearray | memoryview | os.PathLike)
        self._began = False

    @property
    def fresh(self) -> bool:
        """Whether it can be sent from its beginning."""
        return self._replayable or not self._began


class Upload(_Bytes):
    """A source that is read as it is sent.

    Args:
        name: the artifact.
        data: text, which is stored as UTF-8, or a source.
    """

    def __init__(self, name: str, data: str | SyncSource) -> None:
        super().__init__(name, data)
        self._data = encoded(name, data) if isinstance(data, str) else data

    def content(self) -> bytes | Generator[bytes]:
        """The body of one try."""
        if isinstance(self._data, bytes | bytearray | memoryview):
            return bytes(self._data)
        return self._chunks(self._data)

    def _chunks(self, data: os.PathLike[str] | BinaryIO | Iterable[bytes]) -> Generator[bytes]:
        self._began = True
        if isinstance(data, os.PathLike):
            with Path(data).open("rb") as file:
                yield from self._read(file.read)
        elif hasattr(data, "read"):
            yield from self._read(data.read)
        elif isinstance(data, Iterable):
            for chunk in data:
                yield checked(self._name, chunk)
        else:
            raise InvalidContent(
                f"artifact {self._name!r} is a {type(data).__name__}; give text, bytes, a Path, a file "
                "opened in binary mode or an iterable of bytes"
            )

    def _read(self, read: Callable[[int], object]) -> Generator[bytes]:
        while chunk := checked(self._name, read(CHUNK)):
            yield chunk


class AsyncUpload(_Bytes):
    """A source that is read as it is sent, without stopping the event loop.

    Args:
        name: the artifact.
        data: text, which is stored as UTF-8, or a source.
    """

    def __init__(self, name: str, data: str | Source) -> None:
        super().__init__(name, data)
        self._data = encoded(name, data) if isinstance(data, str) else data

    def content(self) -> bytes | AsyncGenerator[bytes, None]:
        """The body of one try."""
        if isinstance(self._data, bytes | bytearray | memoryview):
            return bytes(self._data)
        return self._chunks(self._data)

    async def _chunks(self, data: Source) -> AsyncGenerator[bytes, None]:
        self._began = True
        async for chunk in chunks_of(self._name, data):
            yield chunk
