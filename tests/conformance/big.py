"""What the tests of large artifacts run in a process of its own: ``big.py ARTIFACTS_URL MIB [hang]``.

It saves and loads an artifact of so many MiB and prints by how many MiB the process has
grown at its peak. With ``hang`` it says ``hanging`` before the last of them and waits for ever.
It does not wait for the disk, whose speed is not what is tested.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import zlib
from collections.abc import AsyncIterator
from pathlib import Path

from perdure.types import Event, SessionKey
from storage.sessions import SessionStore

KEY = SessionKey(app="counter", user_id="ada", session_id="s1")
MIB = 1024 * 1024


def peak() -> float:
    """The most memory this process has had, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts what the parent had when it forked
        found = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(found.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


class Blocks:
    """MiBs, no two alike, and the checksum of those that were taken."""

    def __init__(self, count: int, hang: bool = False) -> None:
        self._count = count
        self._hang = hang
        self.crc = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number in range(self._count):
            if self._hang and number == self._count - 1:
                print("hanging", flush=True)
                await asyncio.Event().wait()
            block = number.to_bytes(8, "big") * (MIB // 8)
            self.crc = zlib.crc32(block, self.crc)
            yield block


async def save_and_load(store: SessionStore, name: str, count: int, hang: bool = False) -> None:
    """Both, and see that the bytes are the same."""
    blocks = Blocks(count, hang)
    version = await store.stage_artifact(KEY, name, blocks, "x/y", event_id=f"{name}:x")
    event = Event(id=f"{name}:x", invocation_id=name, author="agent", artifact_delta={name: version})
    await store.append(KEY, event)
    crc = size = 0
    _, chunks = await store.stream_artifact(KEY, name)
    async for chunk in chunks:
        crc = zlib.crc32(chunk, crc)
        size += len(chunk)
    assert (size, crc) == (count * MIB, blocks.crc)


async def main(url: str, count: int, hang: bool) -> None:
    """See the module."""
    store = await SessionStore.open("sqlite://", url)
    await store.create(KEY)
    await save_and_load(store, "small", 1)
    before = peak()
    await save_and_load(store, "large", count, hang)
    print(round(peak() - before))
    await store.close()


if __name__ == "__main__":
    setattr(os, "fsync", lambda _handle: None)  # noqa: B010 - to mypy it is no variable
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:] == ["hang"]))
