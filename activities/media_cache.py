"""The media that a worker showed a model last, so that a turn's next step need not load them again.

Nothing depends on it. Whether a session has the artifact, and which bytes are meant, the
database is asked each time; a blob's key is the hash of its bytes, so what is remembered
under it is never out of date.
"""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["MediaCache"]


class MediaCache:
    """Bytes by the key of their blob; those that were used least recently make room.

    Args:
        size: bytes that it may hold; 0 remembers nothing.
    """

    def __init__(self, *, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._taken = 0

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return self._taken

    def get(self, blob: str) -> bytes | None:
        """The bytes of a blob, if they are remembered."""
        data = self._kept.get(blob)
        if data is not None:
            self._kept.move_to_end(blob)
        return data

    def keep(self, blob: str, data: bytes) -> None:
        """Remember the bytes of a blob, unless they alone are too many."""
        if blob in self._kept or len(data) > self._size:
            return
        self._kept[blob] = data
        self._taken += len(data)
        while self._taken > self._size:
            self._taken -= len(self._kept.popitem(last=False)[1])
