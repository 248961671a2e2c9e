"""The bytes of artifacts, on any fsspec filesystem, under the hash of what they are.

A key is ``{app}/{user}/{first two digits}/{sha256}``: the owners escaped so that nothing
can lead out of the root, no artifact name in it at all. The same bytes are stored once a
user, a blob never changes, and writing it twice is harmless. Bytes come before the row
that names them, so a crash between leaves a blob that nobody lists.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import uuid
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, unquote

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from perdure.errors import ArtifactNotFound, InvalidOption
from perdure.types import SessionKey

__all__ = ["BlobStore", "blob_key", "is_draft", "owner_of", "prefix_of"]

MAX_SEGMENT = 200
"""Characters of an escaped owner; filesystems take 255."""

_BLOB = re.compile(r"[^/]+/[^/]+/([0-9a-f]{2})/(?:\1[0-9a-f]{62}|\.\1[0-9a-f]{62}\.[0-9a-f]{32})")
"""A key, or the draft of one that a crash left behind. Nothing else in the folder is ours."""


def blob_key(key: SessionKey, data: bytes) -> str:
    """Where these bytes of this user's belong, relative to the store's root."""
    digest = hashlib.sha256(data).hexdigest()
    return "/".join((prefix_of(key), digest[:2], digest))


def prefix_of(key: SessionKey) -> str:
    """What the keys of all blobs of this user begin with."""
    return f"{_segment(key.app)}/{_segment(key.user_id)}"


def owner_of(prefix: str) -> tuple[str, str] | None:
    """The app and the user behind a prefix; None where a name was too long to be spelled out."""
    app, _, user_id = prefix.partition("/")
    return None if "~" in prefix else (unquote(app), unquote(user_id))


def is_draft(key: str) -> bool:
    """Whether it is a blob that was never finished, or not yet."""
    return key.rpartition("/")[2].startswith(".")


class BlobStore:
    """Immutable blobs by key. fsspec's calls block, so they run in threads.

    Args:
        url: any fsspec URL: ``file://folder``, ``s3://bucket/prefix``, ``gs://…``, ``memory://name``.

    Raises:
        InvalidOption: no filesystem is known for that URL.
    """

    def __init__(self, url: str) -> None:
        if not url.partition("://")[0] or "://" not in url:
            raise InvalidOption(
                f"the artifacts url {url!r} names no filesystem; give file://, s3://, gs:// or memory://"
            )
        try:
            # A listing kept from before would say that a blob is there which a cleaner took.
            self._fs, self._root = url_to_fs(url, use_listings_cache=False)
        except (ValueError, ImportError) as error:
            raise InvalidOption(
                f"the artifacts url cannot be used ({error}); give file://, s3://, gs:// or memory://"
            ) from error

    async def write(self, key: SessionKey, data: bytes) -> str:
        """Store bytes, unless they are there already.

        Returns:
            Their key.
        """
        return await asyncio.to_thread(self._write, key, data)

    async def read(self, key: str) -> bytes:
        """The bytes of a key.

        Raises:
            ArtifactNotFound: they are gone from the filesystem.
        """
        try:
            data: bytes = await asyncio.to_thread(self._fs.cat_file, self._path(key))
        except FileNotFoundError as error:
            raise ArtifactNotFound(
                f"blob {key} is listed in the database but gone from the artifacts folder; restore it"
            ) from error
        return data

    async def prefixes(self) -> list[str]:
        """What the keys there are begin with: one prefix a user of an app."""
        return await asyncio.to_thread(self._prefixes)

    async def keys(self, prefix: str) -> list[str]:
        """Every key of a user's, and the drafts of blobs that were never finished."""
        return await asyncio.to_thread(self._keys, prefix)

    async def modified(self, key: str) -> datetime | None:
        """When a key was written, by the clock of the filesystem; None if it is gone."""
        try:
            time: datetime = await asyncio.to_thread(self._fs.modified, self._path(key))
        except FileNotFoundError:
            return None
        return time if time.utcoffset() is not None else time.replace(tzinfo=UTC)

    async def remove(self, key: str) -> bool:
        """Take a key away.

        Returns:
            Whether it was there.
        """
        try:
            await asyncio.to_thread(self._fs.rm_file, self._path(key))
        except FileNotFoundError:
            return False
        return True

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
        return sorted(key for key in keys if _BLOB.fullmatch(key))

    def _write(self, key: SessionKey, data: bytes) -> str:
        name = blob_key(key, data)
        path = self._path(name)
        if isinstance(self._fs, LocalFileSystem):
            _write_file(Path(path), data)
        elif not self._fs.exists(path):
            self._fs.pipe_file(path, data)
        return name

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key}"


def _write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and on the disk before anything refers to it."""
    if path.exists():
        return
    new = [folder for folder in path.parents if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    for folder in (path.parent, *(folder.parent for folder in new)):
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _segment(owner: str) -> str:
    """One owner as one folder name: never ``.`` or ``..``, never with a slash, never too long."""
    escaped = quote(owner, safe="").replace("~", "%7E")
    if set(escaped) == {"."}:
        escaped = escaped.replace(".", "%2E")
    if len(escaped) <= MAX_SEGMENT:
        return escaped
    return f"{escaped[: MAX_SEGMENT - 70]}~{hashlib.sha256(owner.encode()).hexdigest()}"
