"""Bytes on their way in, whose hash, and so whose key, is known only after the last of them.

They are kept in a file till then. On a local filesystem that is a draft beside the blobs,
which gets its name by a rename. For S3 and GCS it is a temporary file of this machine
(``TMPDIR`` says where), which goes with the process; it is then uploaded to its key in parts,
or not at all if the bytes are there already. Uploading under a passing name would spare the
disk, but then every save would pay for a copy and a delete (on S3 in parts again, beyond
5 GB), also of bytes that are there; a copy could fail halfway; and a cleaner that took the
blob in between could not be put right, because a source is read only once.

What a crash leaves: a draft, or parts of an upload on S3. Both are collected, by their age.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from perdure.crashpoints import reach
from perdure.sources import CHUNK, Source, chunks_of
from perdure.types import SessionKey
from storage.blob_keys import key_of
from storage.threads import in_thread
from storage.uploads import Upload

__all__ = ["Blobs", "Incoming", "receive"]


class Blobs(Protocol):
    """What is needed of a :class:`storage.blobs.BlobStore`."""

    async def write(self, key: SessionKey, data: bytes) -> str: ...
    def draft(self, owner: SessionKey) -> Path | None: ...
    def put(self, owner: SessionKey, digest: str, file: BinaryIO, size: int) -> Upload | None: ...
    def adopt(self, owner: SessionKey, digest: str, draft: Path) -> None: ...


class Incoming(Protocol):
    """Bytes that are here whole, and can be stored any number of times."""

    @property
    def size(self) -> int:
        """How many."""

    async def send(self) -> None:
        """Do what takes long of :meth:`store`, while nothing is locked."""

    async def store(self) -> str:
        """See to it that the blob is there. Returns its key."""


@asynccontextmanager
async def receive(blobs: Blobs, owner: SessionKey, name: str, source: Source) -> AsyncIterator[Incoming]:
    """See :meth:`storage.blobs.BlobStore.receive`."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        yield _Held(blobs, owner, bytes(source))
        return
    draft = blobs.draft(owner)
    file = await in_thread(_open, draft)
    try:
        kept = _Kept(blobs, owner, file, draft)
        await kept.fill(name, source)
        yield kept
    finally:
        await in_thread(_close, file, draft)


class _Held:
    """Bytes in memory."""

    def __init__(self, blobs: Blobs, owner: SessionKey, data: bytes) -> None:
        self._blobs = blobs
        self._owner = owner
        self._data = data
        self.size = len(data)

    async def send(self) -> None:
        await self.store()

    async def store(self) -> str:
        return await self._blobs.write(self._owner, self._data)


class _Kept:
    """Bytes in a file."""

    def __init__(self, blobs: Blobs, owner: SessionKey, file: BinaryIO, draft: Path | None) -> None:
        self._blobs = blobs
        self._owner = owner
        self._file = file
        self._draft = draft
        self._hash = hashlib.sha256()
        self.size = 0

    async def fill(self, name: str, source: Source) -> None:
        """Read the source to its end."""
        few = bytearray()
        async with aclosing(chunks_of(name, source)) as chunks:
            async for chunk in chunks:
                few += chunk
                if len(few) >= CHUNK:
                    await in_thread(self._keep, few)
                    few = bytearray()
        await in_thread(self._keep, few)
        if self._draft is not None:
            await in_thread(_sync, self._file)

    async def send(self) -> None:
        if self._draft is None:
            await self.store()

    async def store(self) -> str:
        digest = self._hash.hexdigest()
        if self._draft is not None:
            await in_thread(self._blobs.adopt, self._owner, digest, self._draft)
        else:
            await self._upload(digest)
        return key_of(self._owner, digest)

    async def _upload(self, digest: str) -> None:
        upload = await in_thread(self._blobs.put, self._owner, digest, self._file, self.size)
        if upload is None:
            return
        try:
            while await in_thread(upload.step):
                pass
            reach("blob.before_write")
            await in_thread(upload.finish)
            reach("blob.after_write")
        except BaseException:
            await in_thread(upload.give_up)
            raise

    def _keep(self, data: bytearray) -> None:
        self._hash.update(data)
        self._file.write(data)
        self.size += len(data)


def _open(draft: Path | None) -> BinaryIO:
    if draft is None:
        return cast(BinaryIO, tempfile.TemporaryFile())
    draft.parent.mkdir(parents=True, exist_ok=True)
    return draft.open("xb")


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _close(file: BinaryIO, draft: Path | None) -> None:
    file.close()
    if draft is not None:
        draft.unlink(missing_ok=True)
