"""What the bytes of an artifact may come from: bytes, a file, or whatever gives them piece by piece.

A file is read in threads, so that it does not stop the event loop, and a chunk at a time,
so that its size does not matter.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterable
from pathlib import Path
from typing import BinaryIO, TypeAlias

from perdure.errors import InvalidContent

__all__ = ["CHUNK", "Source", "chunks_of", "is_bytes"]

CHUNK = 4 * 1024 * 1024
"""Bytes that are read, or given on, at once."""

Source: TypeAlias = bytes | bytearray | memoryview | os.PathLike[str] | BinaryIO | AsyncIterable[bytes]
"""Bytes, the path of a file (a ``Path``; a ``str`` is text), a file opened for binary reading, or an
async iterable of bytes. The last two are read once, from where they stand, and not closed."""


def is_bytes(source: Source) -> bool:
    """Whether the source is the bytes themselves."""
    return isinstance(source, (bytes, bytearray, memoryview))


async def chunks_of(name: str, source: Source) -> AsyncGenerator[bytes, None]:
    """The source's bytes; close it with ``aclosing`` if it is not read to its end.

    Args:
        name: the artifact they are for.
        source: where they come from.

    Raises:
        InvalidContent: it is no source, or gives something that is not bytes.
        OSError: a file cannot be read.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        yield bytes(source)
    elif isinstance(source, os.PathLike):
        file = await asyncio.to_thread(Path(source).open, "rb")
        try:
            async for chunk in _read(name, file):
                yield chunk
        finally:
            await asyncio.to_thread(file.close)
    elif isinstance(source, AsyncIterable):
        async for chunk in source:
            yield _checked(name, chunk)
    elif hasattr(source, "read"):
        async for chunk in _read(name, source):
            yield chunk
    else:
        raise InvalidContent(
            f"artifact {name!r} is a {type(source).__name__}; give bytes, a Path, a file opened in binary "
            "mode or an async iterable of bytes"
        )


async def _read(name: str, file: BinaryIO) -> AsyncGenerator[bytes, None]:
    while chunk := _checked(name, await asyncio.to_thread(file.read, CHUNK)):
        yield chunk


def _checked(name: str, chunk: object) -> bytes:
    if not isinstance(chunk, (bytes, bytearray, memoryview)):
        raise InvalidContent(
            f"the source of artifact {name!r} gave a {type(chunk).__name__}; have it give bytes"
        )
    return bytes(chunk)
