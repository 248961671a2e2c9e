"""The bytes of artifacts, on any fsspec filesystem, under the hash of what they are.

The same bytes are stored once a user, a blob never changes, and writing it twice is
harmless. Bytes come before the row that names them, so a crash between leaves a blob that
nobody lists. :mod:`storage.blob_keys` has where they lie, :mod:`storage.incoming` how bytes
come in whose hash is known only after the last of them.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from perdure.crashpoints import reach
from perdure.errors import ArtifactDamaged, ArtifactNotFound, InvalidOption
from perdure.sources import CHUNK, Source
from perdure.types import SessionKey
from storage import incoming, uploads
from storage.blob_keys import blob_key, digest_of, draft_key, is_ours, key_of, message_key
from storage.threads import in_thread

__all__ = ["BlobStore"]

_EXTRAS = {"gs": "gcs", "gcs": "gcs"}
"""The optional extras of this package that a kind of URL needs."""


class BlobStore:
    """Immutable blobs by key. fsspec's calls block, so they run in threads.

    Args:
        url: any fsspec URL: ``file://folder``, ``s3://bucket/prefix``, ``gs://…``, ``memory://name``.

    Raises:
        InvalidOption: no filesystem is known for that URL, or its package is not installed.
    """

    def __init__(self, url: str) -> None:
        scheme = url.partition("://")[0]
        if not scheme or "://" not in url:
            raise InvalidOption(
                f"the artifacts url {url!r} names no filesystem; give file://, s3://, gs:// or memory://"
            )
        try:
            # A listing kept from before would say that a blob is there which a cleaner took.
            self._fs, self._root = url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            extra = _EXTRAS.get(scheme)
            mend = f"run: pip install 'perdure[{extra}]'" if extra else "install the package it names"
            raise InvalidOption(
                f"{scheme}:// for artifacts needs another package ({error}); {mend}"
            ) from error
        except ValueError as error:
            raise InvalidOption(
                f"the artifacts url cannot be used ({error}); give file://, s3://, gs:// or memory://"
            ) from error

    async def write(self, key: SessionKey, data: bytes) -> str:
        """Store bytes, unless they are there already.

        Returns:
            Their key.
        """
        return await in_thread(self._write, blob_key(key, data), data)

    async def leave(self, key: SessionKey, data: bytes) -> str:
        """Store the bytes of a message, until it is taken.

        Returns:
            Their key.
        """
        return await in_thread(self._write, message_key(key, data), data)

    def receive(
        self, owner: SessionKey, name: str, source: Source
    ) -> AbstractAsyncContextManager[incoming.Incoming]:
        """Take in the bytes of an artifact, a few chunks at a time; a context for as long as they are needed.

        Args:
            owner: whose they are.
            name: the artifact, for messages.
            source: where they come from; it is read to its end on entering.
        """
        return incoming.receive(self, owner, name, source)

    async def read(self, key: str) -> bytes:
        """The bytes of a key.

        Raises:
            ArtifactNotFound: they are gone from the filesystem.
            ArtifactDamaged: they are not what was written.
        """
        try:
            data, digest = await in_thread(self._read, key)
        except FileNotFoundError as error:
            raise _gone(key) from error
        if digest != digest_of(key):
            raise _damaged(key, f"its {len(data)} bytes are not those that were saved")
        return data

    async def chunks(self, key: str, size: int, start: int, stop: int) -> AsyncIterator[bytes]:
        """The bytes of a key from ``start`` up to ``stop``, a chunk at a time.

        What is read whole is checked against its hash before the last chunk is given out.

        Raises:
            ArtifactNotFound: they are gone from the filesystem.
            ArtifactDamaged: there are not ``size`` bytes, or not those that were written.
        """
        digest = hashlib.sha256() if (start, stop) == (0, size) else None
        try:
            found = await in_thread(self._size, key)
            if found != size:
                raise _damaged(key, f"it has {found} bytes, and {size} were saved")
            for at in range(start, stop, CHUNK):
                end = min(at + CHUNK, stop)
                data = await in_thread(self._range, key, at, end)
                if len(data) != end - at:
                    raise _damaged(key, f"it ended at byte {at + len(data)} of {size}")
                if digest is not None:
                    await in_thread(digest.update, data)
                    if end == stop and digest.hexdigest() != digest_of(key):
                        raise _damaged(key, f"its {size} bytes are not those that were saved")
                yield data
        except FileNotFoundError as error:
            raise _gone(key) from error

    async def ping(self) -> None:
        """Raise whatever keeps the filesystem from answering or, as far as one sees, from being written."""
        await in_thread(self._ping)

    async def prefixes(self) -> list[str]:
        """What the keys there are begin with: one prefix a user of an app."""
        return await in_thread(self._prefixes)

    async def keys(self, prefix: str) -> list[str]:
        """Every key of a user's, and the drafts of blobs that were never finished."""
        return await in_thread(self._keys, prefix)

    async def modified(self, key: str) -> datetime | None:
        """When a key was written, by the clock of the filesystem; None if it is gone."""
        try:
            time: datetime = await in_thread(self._fs.modified, self._path(key))
        except FileNotFoundError:
            return None
        return time if time.utcoffset() is not None else time.replace(tzinfo=UTC)

    async def remove(self, key: str) -> bool:
        """Take a key away.

        Returns:
            Whether it was there.
        """
        try:
            await in_thread(self._fs.rm_file, self._path(key))
        except FileNotFoundError:
            return False
        return True

    async def drop_uploads(self, before: datetime, *, dry_run: bool = False) -> int:
        """Give up the uploads in parts that were begun before a time and never finished.

        Returns:
            How many there were. Only S3 keeps such, out of sight of every listing of blobs.
        """
        return await in_thread(uploads.drop, self._fs, self._root, before, dry_run)

    def draft(self, owner: SessionKey) -> Path | None:
        """Where new bytes are best kept till their hash is known; None is anywhere.

        On a local filesystem beside the blobs, so that they need only be renamed.
        """
        return Path(self._path(draft_key(owner))) if isinstance(self._fs, LocalFileSystem) else None

    def put(self, owner: SessionKey, digest: str, file: BinaryIO, size: int) -> uploads.Upload | None:
        """Begin to store a file's bytes; None if they are there already. Blocks."""
        path = self._path(key_of(owner, digest))
        return None if self._fs.exists(path) else uploads.begin(self._fs, path, file, size)

    def adopt(self, owner: SessionKey, digest: str, draft: Path) -> None:
        """Make a finished draft the blob, unless that is there already. Blocks."""
        _rename(draft, Path(self._path(key_of(owner, digest))))

    def _ping(self) -> None:
        if isinstance(self._fs, LocalFileSystem):
            folder = next(path for path in (Path(self._root), *Path(self._root).parents) if path.exists())
            if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
                raise PermissionError(f"{folder} is no folder that can be written to")
        elif "s3" in self._fs.protocol:
            self._fs.info(self._root.partition("/")[0])  # the bucket: it has to be there
        elif not isinstance(self._fs, MemoryFileSystem):
            with suppress(FileNotFoundError):  # which is an answer; to see the bucket takes more rights
                self._fs.info(self._path("ping"))

    def _prefixes(self) -> list[str]:
        apps = self._folders(self._root)
        return [f"{app}/{user}" for app in apps for user in self._folders(self._path(app))]

    def _folders(self, path: str) -> list[str]:
        try:
            found = self._fs.ls(path, detail=True)
        except FileNotFoundError:
            return []
        names = (entry["name"].rstrip("/") for entry in found if entry["type"] == "directory")
        return sorted(name.rpartition("/")[2] for name in names)

    def _keys(self, prefix: str) -> list[str]:
        paths = self._fs.find(self._path(prefix))
        keys = ("/".join([prefix, *path.split("/")[-2:]]) for path in paths)
        return sorted(key for key in keys if is_ours(key))

    def _write(self, name: str, data: bytes) -> str:
        path = self._path(name)
        if isinstance(self._fs, LocalFileSystem):
            _write_file(Path(path), data)
        elif not self._fs.exists(path):
            reach("blob.before_write")
            self._fs.pipe_file(path, data)
            reach("blob.after_write")
        return name

    def _read(self, key: str) -> tuple[bytes, str]:
        data = self._range(key, None, None)
        return data, hashlib.sha256(data).hexdigest()

    def _range(self, key: str, start: int | None, end: int | None) -> bytes:
        path = self._path(key)
        if isinstance(self._fs, MemoryFileSystem):
            # Its cat_file moves the one position that all readers of the file share.
            with self._fs.open(path).getbuffer() as view:
                return bytes(view[start:end])
        data: bytes = self._fs.cat_file(path, start=start, end=end)
        return data

    def _size(self, key: str) -> int:
        info: dict[str, Any] = self._fs.info(self._path(key))
        return int(info["size"])

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}"


def _gone(key: str) -> ArtifactNotFound:
    return ArtifactNotFound(
        f"blob {key} is listed in the database but gone from the artifacts folder; restore it"
    )


def _damaged(key: str, how: str) -> ArtifactDamaged:
    return ArtifactDamaged(f"blob {key} in the artifacts folder is damaged: {how}; restore it from a backup")


def _write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and on the disk before anything refers to it."""
    if path.exists():
        return
    reach("blob.before_write")
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    new = _make_folder(path.parent)
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        reach("blob.before_rename")
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    _sync_folders(path.parent, new)
    reach("blob.after_write")


def _rename(draft: Path, path: Path) -> None:
    """Give a draft that is on the disk its name, so that the name is on the disk too."""
    if path.exists():
        return
    new = _make_folder(path.parent)
    reach("blob.before_rename")
    draft.replace(path)
    _sync_folders(path.parent, new)
    reach("blob.after_write")


def _make_folder(folder: Path) -> list[Path]:
    """Make a folder and those above it; the new ones."""
    new = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return new


def _sync_folders(folder: Path, new: list[Path]) -> None:
    for each in (folder, *(made.parent for made in new)):
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
