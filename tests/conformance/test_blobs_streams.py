"""Artifacts larger than one likes to hold in memory, on every filesystem (S57)."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from perdure.errors import ArtifactNotFound, InvalidContent, InvalidOption, SessionNotFound
from perdure.sources import CHUNK, Source
from perdure.types import SessionKey
from storage import incoming, uploads
from storage.blob_keys import blob_key, is_draft
from storage.sessions import SessionStore
from tests.conformance.events import event, say

LARGE = os.urandom(CHUNK) + b"middle" + os.urandom(uploads.PART)
"""More than one chunk and more than one part of an upload."""
NOW = timedelta(0)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


async def in_pieces(data: bytes, size: int = 100_000, fail_at: int | None = None) -> AsyncIterator[bytes]:
    """Bytes as a network gives them; with ``fail_at``, no further than there."""
    for at in range(0, len(data), size):
        if fail_at is not None and at >= fail_at:
            raise ConnectionError("the source went away")
        yield data[at : at + size]


@pytest.fixture
async def store(url: str, key: SessionKey) -> AsyncIterator[SessionStore]:
    """A store with a session in it, on each filesystem."""
    store = await SessionStore.open("sqlite://", url)
    await store.create(key)
    yield store
    await store.close()


async def save(store: SessionStore, key: SessionKey, data: Source, event_id: str = "i1:x") -> None:
    version = await store.stage_artifact(key, "f", data, "x/y", event_id=event_id)
    await store.append(key, event(event_id, artifact_delta={"f": version}))


async def whole(store: SessionStore, key: SessionKey, **asked: Any) -> bytes:
    _, chunks = await store.stream_artifact(key, "f", **asked)
    return b"".join([chunk async for chunk in chunks])


async def blobs_of(store: SessionStore) -> list[str]:
    return [blob for prefix in await store._blobs.prefixes() for blob in await store._blobs.keys(prefix)]


async def nothing_is_left(store: SessionStore) -> None:
    """No blob, no draft, no upload that was begun."""
    assert await blobs_of(store) == []
    assert await store._blobs.drop_uploads(datetime.now(UTC)) == 0


async def test_s57_what_is_streamed_in_comes_back_equal(
    store: SessionStore, key: SessionKey, tmp_path: Path
) -> None:
    path = tmp_path / "source"
    path.write_bytes(LARGE)
    with path.open("rb") as file:
        sources: list[Source] = [in_pieces(LARGE), path, file, io.BytesIO(LARGE), LARGE, bytearray(LARGE)]
        for number, source in enumerate(sources):
            await save(store, key, source, f"i{number}:x")
    assert await whole(store, key) == LARGE == (await store.load_artifact(key, "f"))[1]
    listed = await store.artifact_versions(key, "f")
    assert [(found.version, found.size, found.mime_type) for found in listed] == [
        (number, len(LARGE), "x/y") for number in range(1, 7)
    ]
    assert await blobs_of(store) == [blob_key(key, LARGE)]


@pytest.mark.parametrize("data", [b"", b"x", b"x" * CHUNK], ids=["empty", "one", "a chunk"])
async def test_s55_s57_a_stream_of_nothing_or_little(
    store: SessionStore, key: SessionKey, data: bytes
) -> None:
    await save(store, key, in_pieces(data))
    assert await whole(store, key) == data == (await store.load_artifact(key, "f"))[1]
    assert (await store.find_artifact(key, "f")).size == len(data)


@pytest.mark.parametrize("held", [True, False], ids=["bytes", "stream"])
async def test_s57_a_range_is_read(store: SessionStore, key: SessionKey, held: bool) -> None:
    await save(store, key, LARGE if held else in_pieces(LARGE))
    size = len(LARGE)
    for start, length in (
        (0, 0), (0, 1), (5, 10), (CHUNK - 1, 8), (1, CHUNK + 1), (size - 3, 3), (size - 3, 10), (size, 1),
        (size + 10, None), (CHUNK, None), (0, size), (0, size + 1),
    ):  # fmt: skip
        stop = None if length is None else start + length
        assert await whole(store, key, start=start, length=length) == LARGE[start:stop]
    for start, length in ((-1, None), (0, -1)):
        with pytest.raises(InvalidOption):
            await store.stream_artifact(key, "f", start=start, length=length)


async def test_s57_a_reader_may_stop_early_and_others_go_on(store: SessionStore, key: SessionKey) -> None:
    await save(store, key, in_pieces(LARGE))
    _, stopped = await store.stream_artifact(key, "f")
    _, slow = await store.stream_artifact(key, "f")
    first = [await anext(stopped), await anext(slow)]
    assert first == [LARGE[:CHUNK]] * 2
    await stopped.aclose()  # type: ignore[attr-defined]  # it is a generator
    assert await whole(store, key) == LARGE
    assert first[1] + b"".join([chunk async for chunk in slow]) == LARGE


async def test_s57_a_reader_is_told_when_the_bytes_go_meanwhile(store: SessionStore, key: SessionKey) -> None:
    await save(store, key, in_pieces(LARGE))
    _, chunks = await store.stream_artifact(key, "f")
    await anext(chunks)
    await store.delete(key)
    with pytest.raises(ArtifactNotFound):
        await anext(chunks)
    await nothing_is_left(store)


async def test_s57_a_source_that_raises_leaves_nothing(store: SessionStore, key: SessionKey) -> None:
    with pytest.raises(ConnectionError, match="the source went away"):
        await save(store, key, in_pieces(LARGE, fail_at=CHUNK + 1))
    await nothing_is_left(store)
    assert await store.list_artifacts(key, event_id="i1:x") == []
    await save(store, key, in_pieces(LARGE))
    assert await whole(store, key) == LARGE


async def test_s57_a_source_that_gives_no_bytes_is_refused(store: SessionStore, key: SessionKey) -> None:
    async def text() -> AsyncIterator[Any]:
        yield "text"

    wrong: list[Any] = [text(), io.StringIO("text"), 5, "text"]
    for source in wrong:
        with pytest.raises(InvalidContent, match="artifact 'f'"):
            await save(store, key, source)
    await nothing_is_left(store)


async def test_s57_a_source_for_no_session_is_not_read(store: SessionStore, key: SessionKey) -> None:
    await store.delete(key)
    source = in_pieces(b"data")
    with pytest.raises(SessionNotFound):
        await save(store, key, source)
    assert await anext(source) == b"data"
    await nothing_is_left(store)


async def test_s57_a_save_cancelled_while_it_reads_leaves_nothing(
    store: SessionStore, key: SessionKey
) -> None:
    waits = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield LARGE
        waits.set()
        await asyncio.Event().wait()

    saving = asyncio.ensure_future(save(store, key, endless()))
    await waits.wait()
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    await nothing_is_left(store)
    assert await store.list_artifacts(key, event_id="i1:x") == []


@pytest.mark.parametrize("filesystem", ["s3", "gs"])
@pytest.mark.parametrize("how", ["cancelled", "broken"])
async def test_s57_an_upload_that_ends_halfway_leaves_nothing(
    store: SessionStore, key: SessionKey, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, steps, step = asyncio.get_running_loop(), 0, uploads.Upload.step

    def stop(upload: uploads.Upload) -> bool:
        nonlocal steps
        steps += 1
        if steps == 3 and how == "broken":
            raise ConnectionError("the bucket went away")
        if steps == 3:
            loop.call_soon_threadsafe(saving.cancel)
        return step(upload)

    with monkeypatch.context() as patched:
        patched.setattr(uploads.Upload, "step", stop)
        saving = asyncio.ensure_future(save(store, key, in_pieces(LARGE)))
        with pytest.raises(asyncio.CancelledError if how == "cancelled" else ConnectionError):
            await saving
    assert steps == 3
    await nothing_is_left(store)
    await save(store, key, in_pieces(LARGE))
    assert await whole(store, key) == LARGE


async def test_s56_s57_a_crash_between_blob_and_row_lists_nothing_and_is_collected(
    store: SessionStore, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    await say(store, key, "i0", artifact=("kept", b"kept"))
    stored: Callable[[Any], Awaitable[str]] = incoming._Kept.store

    async def crash(received: Any) -> str:
        await stored(received)
        raise ConnectionError("crash")

    with monkeypatch.context() as patched:
        patched.setattr(incoming._Kept, "store", crash)
        with pytest.raises(ConnectionError, match="crash"):
            await save(store, key, in_pieces(LARGE))
    assert [found.name for found in await store.list_artifacts(key, event_id="i1:x")] == ["kept"]
    assert len(await blobs_of(store)) == 2
    assert await store.collect_blobs(older_than=NOW) == 1
    assert await blobs_of(store) == [blob_key(key, b"kept")]


async def test_s57_a_stream_whose_blob_a_cleaner_took_is_stored_again(
    store: SessionStore, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cleaner comes when the bytes are there and the row is not."""
    send = incoming._Kept.send

    async def overtaken(received: Any) -> None:
        await send(received)
        await store.collect_blobs(older_than=NOW)
        assert [blob for blob in await blobs_of(store) if not is_draft(blob)] == []

    await store._blobs.write(key, LARGE)
    monkeypatch.setattr(incoming._Kept, "send", overtaken)
    await save(store, key, in_pieces(LARGE))
    assert await whole(store, key) == LARGE
    assert await blobs_of(store) == [blob_key(key, LARGE)]


async def test_s57_the_event_loop_goes_on_while_a_filesystem_is_slow(
    store: SessionStore, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call of the filesystem is made off the loop's thread."""
    threads: set[int] = set()
    fs = store._blobs._fs
    for name in ("info", "exists", "pipe_file", "cat_file", "open", "find", "ls", "rm_file"):
        call = getattr(fs, name)

        def noting(*args: Any, _call: Any = call, **kwargs: Any) -> Any:
            threads.add(threading.get_ident())
            return _call(*args, **kwargs)

        monkeypatch.setattr(fs, name, noting)
    await save(store, key, in_pieces(LARGE))
    assert await whole(store, key) == LARGE
    await store.collect_blobs(older_than=NOW)
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.parametrize(("filesystem", "size", "most"), [("file", 1024, 64), ("s3", 96, 75), ("gs", 96, 75)])
def test_s57_a_gigabyte_needs_no_more_memory_than_a_few_chunks(url: str, size: int, most: int) -> None:
    """A gigabyte in a folder, and enough of one on S3 and GCS to tell."""
    command = [sys.executable, "-m", "tests.conformance.big", url, str(size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < most


@pytest.mark.parametrize("filesystem", ["file", "s3", "gs"])
async def test_s57_a_process_that_is_killed_halfway_leaves_what_is_collected_later(
    store: SessionStore, key: SessionKey, url: str, filesystem: str
) -> None:
    command = [sys.executable, "-m", "tests.conformance.big", url, "9", "hang"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"hanging\n"
    process.kill()
    await process.wait()
    left = [blob for blob in await blobs_of(store) if is_draft(blob)]
    assert len(left) == (1 if filesystem == "file" else 0)
    await store.collect_blobs(older_than=NOW)
    assert [blob for blob in await blobs_of(store) if is_draft(blob)] == left, "it may be under way"
    for blob in left:
        os.utime(store._blobs._path(blob), (0, 0))
    assert await store.collect_blobs(older_than=NOW) == len(left)
    await nothing_is_left(store)


@pytest.mark.parametrize("filesystem", ["s3"])
async def test_s57_parts_that_a_crash_left_on_s3_are_given_up(
    store: SessionStore, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_upload: uploads.Upload) -> None:
        raise ConnectionError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(uploads.Upload, "finish", die)
        patched.setattr(uploads.Upload, "give_up", lambda upload: setattr(upload._remote, "closed", True))
        with pytest.raises(ConnectionError, match="killed"):
            await save(store, key, in_pieces(LARGE))
    store._blobs._fs.call_s3("create_multipart_upload", Bucket="perdure-tests", Key="not-ours")
    assert await blobs_of(store) == []
    assert await store._blobs.drop_uploads(LONG_AGO) == 0, "it may be under way"
    assert await store.collect_blobs(dry_run=True) == 1
    assert await store.collect_blobs() == 1
    assert await store.collect_blobs() == 0
    await save(store, key, in_pieces(LARGE))
    assert await whole(store, key) == LARGE


@pytest.mark.parametrize("filesystem", ["memory"])
async def test_s56_blobs_are_collected_where_uploads_may_not_be_listed(
    store: SessionStore, key: SessionKey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def denied(*_args: Any, **_kwargs: Any) -> int:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(store._blobs, "drop_uploads", denied)
    await store._blobs.write(key, b"orphan")
    assert await store.collect_blobs(older_than=NOW) == 1
    assert "uploads that were broken off are left in the bucket: Access Denied" in caplog.text
