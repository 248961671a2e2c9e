"""Uploads of files in parts, to filesystems that show an object only when it is whole.

S3 and GCS do. An upload that was broken off leaves no object. GCS forgets it by itself
within a week and asks nothing for it; S3 keeps the parts, out of sight and paid for, until
somebody gives them up: :func:`drop` does, as a part of the collection of blobs.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, BinaryIO

from fsspec.implementations.memory import MemoryFileSystem

from perdure.sources import CHUNK
from storage.blob_keys import is_ours

__all__ = ["Upload", "begin", "drop"]

PART = 6 * 1024 * 1024
"""Bytes of a part, where :data:`MOST_PARTS` of them are enough."""
MOST_PARTS = 10_000
"""S3 takes no more."""
_MIB = 1024 * 1024


class Upload:
    """One upload, made in steps so that it can be left between any two. Its methods block.

    Args:
        file: the bytes.
        remote: where they go, opened for writing.
    """

    def __init__(self, file: BinaryIO, remote: Any) -> None:
        self._file = file
        self._remote = remote

    def step(self) -> bool:
        """Send a chunk.

        Returns:
            Whether there may be more.
        """
        data = self._file.read(CHUNK)
        self._remote.write(data)
        return bool(data)

    def finish(self) -> None:
        """Make the object appear, whole."""
        self._remote.close()

    def give_up(self) -> None:
        """Forget what was sent. No object appears."""
        try:
            self._remote.discard()
        finally:
            # Left open, it would finish the upload when it is collected as garbage.
            self._remote.closed = True


def begin(fs: Any, path: str, file: BinaryIO, size: int) -> Upload | None:
    """Begin to upload a file; None if it is small, and was uploaded at once."""
    file.seek(0)
    # In memory it takes the room anyhow, and a file that is written in steps is seen before it is whole.
    if size <= PART or isinstance(fs, MemoryFileSystem):
        fs.pipe_file(path, file.read())
        return None
    needed = -(-size // MOST_PARTS)
    part = max(PART, -(-needed // _MIB) * _MIB)
    return Upload(file, fs.open(path, "wb", block_size=part))


def drop(fs: Any, root: str, before: datetime, dry_run: bool) -> int:
    """Give up the uploads below a root that were begun before a time and never finished.

    Returns:
        How many there were.
    """
    if "s3" not in _protocols(fs):
        return 0
    bucket, prefix, _ = fs.split_path(f"{root.rstrip('/')}/")
    asked = {"Bucket": bucket, "Prefix": prefix}
    dropped = 0
    while True:
        page = fs.call_s3("list_multipart_uploads", **asked)
        for upload in page.get("Uploads", ()):
            if upload["Initiated"] < before and is_ours(upload["Key"].removeprefix(prefix)):
                dropped += 1
                if not dry_run:
                    fs.abort_mpu(bucket, upload["Key"], upload["UploadId"])
        if not page.get("IsTruncated"):
            return dropped
        asked |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)
