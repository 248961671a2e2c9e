"""What the bytes of an artifact may come from: bytes, a file, or whatever gives them piece by piece.

A file is read in threads, so that it does not stop the event loop, and a chunk at a time,
so that its size does not matter.
"""

from __future__ import annotations

import asyncio
import mimetypes
import os
from collections.abc import AsyncGenerator, AsyncIterable
from pathlib import Path
from typing import BinaryIO, TypeAlias

from perdure.errors import InvalidContent

__all__ = ["CHUNK", "Source", "checked", "chunks_of", "encoded", "is_bytes", "type_by_name"]

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
            yield checked(name, chunk)
    elif hasattr(source, "read"):
        async for chunk in _read(name, source):
            yield chunk
    else:
        raise InvalidContent(
            f"artifact {name!r} is a {type(source).__name__}; give bytes, a Path, a file opened in binary "
            "mode or an async iterable of bytes"
        )


async def _read(name: str, file: BinaryIO) -> AsyncGenerator[bytes, None]:
    while chunk := checked(name, await asyncio.to_thread(file.read, CHUNK)):
        yield chunk


def encoded(name: str, text: str) -> bytes:
    """Text as UTF-8, for an artifact of that name.

    Raises:
        InvalidContent: it has half a character in it.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidContent(
            f"the text for artifact {name!r} has a lone surrogate at {error.start}; remove it, or save bytes"
        ) from None


def type_by_name(name: str, *, text: bool) -> str:
    """The MIME type that an artifact's name says; where it says none, that of text, or of any bytes."""
    # The table that comes with Python, not the machine's: everybody must guess the same.
    guessed, encoding = mimetypes.MimeTypes().guess_type(f"file:{name.rsplit('/')[-1]}")
    if encoding == "gzip":
        return "application/gzip"
    if guessed is None or encoding is not None:
        return "text/plain" if text else "application/octet-stream"
    return guessed


def checked(name: str, chunk: object) -> bytes:
    """A chunk that a source gave.

    Raises:
        InvalidContent: it is no bytes.
    """
    if not isinstance(chunk, (bytes, bytearray, memoryview)):
        raise InvalidContent(
            f"the source of artifact {name!r} gave a {type(chunk).__name__}; have it give bytes"
        )
    return bytes(chunk)
