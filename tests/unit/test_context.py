"""ToolContext: ids, artifacts, the way from a thread to the loop."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perdure import Artifact, State, ToolContext, tool
from perdure.errors import ArtifactNotFound, InvalidContent
from perdure.sources import CHUNK, Source, chunks_of
from perdure.types import SessionKey


class Shelf:
    """Artifacts in a dict, for these tests."""

    def __init__(self) -> None:
        self.saved: list[Artifact] = []
        self.threads: set[str] = set()

    async def save(self, name: str, data: Source, mime_type: str) -> int:
        data = b"".join([chunk async for chunk in chunks_of(name, data)])
        self.threads.add(threading.current_thread().name)
        version = 1 + sum(artifact.name == name for artifact in self.saved)
        self.saved.append(Artifact(name=name, version=version, mime_type=mime_type, data=data))
        return version

    async def load(
        self, name: str, version: int | None, *, start: int = 0, length: int | None = None
    ) -> Artifact:
        for artifact in reversed(self.saved):
            if artifact.name == name and version in (None, artifact.version):
                stop = None if length is None else start + length
                return replace(artifact, data=artifact.data[start:stop], size=len(artifact.data))
        raise ArtifactNotFound(name)

    async def names(self) -> list[str]:
        return sorted({artifact.name for artifact in self.saved})


def test_ids() -> None:
    key = SessionKey(app="counter", user_id="ada", session_id="s/1")
    context = ToolContext(key=key, invocation_id="i", call_id="c", attempt=2)
    assert (context.app, context.user_id, context.session_id) == ("counter", "ada", "s/1")
    assert (context.invocation_id, context.call_id, context.attempt) == ("i", "c", 2)
    assert context.key is key
    assert repr(context) == "ToolContext(counter/ada/s%2F1, invocation_id='i', call_id='c')"


def test_the_idempotency_key_is_the_same_for_every_attempt_and_no_other_call() -> None:
    assert ToolContext(attempt=1).idempotency_key == ToolContext(attempt=2).idempotency_key
    keys = {
        ToolContext(
            call_id=call, invocation_id=turn, key=SessionKey(app="a", user_id=user, session_id="s")
        ).idempotency_key
        for call in ("c1", "c2")
        for turn in ("i1", "i2")
        for user in ("u1", "u2")
    }
    assert len(keys) == 8
    assert ToolContext(idempotency_key="given").idempotency_key == "given"


def test_state_may_be_a_mapping() -> None:
    assert ToolContext(state={"a": 1}).state["a"] == 1
    state = State()
    assert ToolContext(state=state).state is state


def test_cancelled_follows_the_event() -> None:
    stop = threading.Event()
    context = ToolContext(stop=stop)
    assert not context.cancelled
    stop.set()
    assert context.cancelled
    assert not ToolContext().cancelled


async def test_artifacts() -> None:
    context = ToolContext(artifacts=Shelf())
    assert await context.save_artifact("notes/größe.txt", "größe") == 1
    assert await context.save_artifact("notes/größe.txt", "") == 2
    assert await context.save_artifact("user:a.bin", b"\xff") == 1
    first = await context.load_artifact("notes/größe.txt", 1)
    assert (first.text, first.data, first.mime_type) == ("größe", "größe".encode(), "text/plain")
    assert (await context.load_artifact("notes/größe.txt")).text == ""
    assert await context.list_artifacts() == ["notes/größe.txt", "user:a.bin"]
    with pytest.raises(ArtifactNotFound):
        await context.load_artifact("other")
    with pytest.raises(
        InvalidContent, match=r"version 1 of artifact 'user:a.bin' .* is not UTF-8 text \(byte 0\)"
    ):
        _ = (await context.load_artifact("user:a.bin")).text
    with pytest.raises(InvalidContent, match="artifact 'x' has a lone surrogate at 1"):
        await context.save_artifact("x", "a\ud800")


async def test_s57_artifacts_come_from_files_and_iterables_and_are_read_in_ranges(tmp_path: Path) -> None:
    data = bytes(range(251)) * (2 * CHUNK // 251) + b"the end"
    path = tmp_path / "a.csv"
    path.write_bytes(data)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 100_000):
            yield data[start : start + 100_000]

    shelf = Shelf()
    context = ToolContext(artifacts=shelf)
    sources: list[Source] = [path, pieces(), io.BytesIO(data)]
    for version, source in enumerate(sources, 1):
        assert await context.save_artifact("a.csv", source) == version
    assert {(saved.mime_type, saved.data) for saved in shelf.saved} == {("text/csv", data)}
    part = await context.load_artifact("a.csv", 1, start=10, length=20)
    assert (part.data, part.size) == (data[10:30], len(data))
    assert (await context.load_artifact("a.csv", start=len(data))).data == b""
    chunks = []
    async for chunk in context.stream_artifact("a.csv"):
        chunks.append(chunk)
        await context.save_artifact("a.csv", "saved meanwhile")
    assert (len(chunks), b"".join(chunks)) == (2, data)
    wrong: list[Any] = [5, None, io.StringIO("text"), ["text"]]
    for source in wrong:
        with pytest.raises(InvalidContent, match=r"artifact 'a.csv'.* give"):
            await context.save_artifact("a.csv", source)
    with pytest.raises(FileNotFoundError):
        await context.save_artifact("a.csv", tmp_path / "missing")


@pytest.mark.parametrize("size", [0, CHUNK, CHUNK + 1])
async def test_s57_a_sync_tool_streams_too(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"x" * size)

    @tool
    def copy(context: ToolContext) -> list[int]:
        context.blocking.save_artifact("a.bin", path)
        part = context.blocking.load_artifact("a.bin", start=1, length=2)
        return [len(part.data), *(len(chunk) for chunk in context.blocking.stream_artifact("a.bin"))]

    lengths = (await copy.call({}, ToolContext(artifacts=Shelf())))["result"]
    assert lengths == {0: [0], CHUNK: [2, CHUNK], CHUNK + 1: [2, CHUNK, 1]}[size]


@pytest.mark.parametrize(
    ("name", "data", "mime_type"),
    [
        ("report.txt", "x", "text/plain"),
        ("report", "x", "text/plain"),
        ("report", b"x", "application/octet-stream"),
        ("folder.txt/image.png", b"x", "image/png"),
        ("user:data.json", "{}", "application/json"),
        ("page.html", "x", "text/html"),
        ("backup.tar.gz", b"x", "application/gzip"),
        ("archive.tar.xz", b"x", "application/octet-stream"),
        ("data:text/html,x", b"x", "application/octet-stream"),
        (".txt", b"x", "application/octet-stream"),
    ],
)
async def test_mime_types_are_guessed_from_names(name: str, data: str | bytes, mime_type: str) -> None:
    shelf = Shelf()
    await ToolContext(artifacts=shelf).save_artifact(name, data)
    assert shelf.saved[0].mime_type == mime_type
    await ToolContext(artifacts=shelf).save_artifact(name, data, "a/b")
    assert shelf.saved[1].mime_type == "a/b"


async def test_a_context_without_artifacts_says_so() -> None:
    with pytest.raises(RuntimeError, match=r"made without artifacts; pass ToolContext\(artifacts="):
        await ToolContext().list_artifacts()


async def test_a_sync_tool_reaches_artifacts_from_its_thread() -> None:
    @tool
    def report(context: ToolContext) -> list[object]:
        version = context.blocking.save_artifact("a.txt", "text")
        artifact = context.blocking.load_artifact("a.txt", version)
        return [version, artifact.text, context.blocking.list_artifacts(), threading.current_thread().name]

    shelf = Shelf()
    version, text, names, thread = (await report.call({}, ToolContext(artifacts=shelf)))["result"]
    assert (version, text, names) == (1, "text", ["a.txt"])
    assert shelf.threads == {threading.current_thread().name} != {thread}


async def test_an_error_reaches_the_thread() -> None:
    @tool
    def load(context: ToolContext) -> str:
        return context.blocking.load_artifact("missing").text

    with pytest.raises(ArtifactNotFound, match="missing"):
        await load.call({}, ToolContext(artifacts=Shelf()))


async def test_a_context_made_elsewhere_belongs_to_the_loop_of_the_call() -> None:
    shelf = Shelf()
    context = await asyncio.to_thread(ToolContext, artifacts=shelf)

    @tool
    def save(context: ToolContext) -> int:
        return context.blocking.save_artifact("a", "b")

    await save.call({}, context)
    assert shelf.threads == {threading.current_thread().name}


async def test_blocking_on_the_loop_is_refused_and_says_what_to_do() -> None:
    context = ToolContext(artifacts=Shelf())
    with pytest.raises(RuntimeError, match="in async code await the same method of the context itself"):
        context.blocking.save_artifact("a", "b")


def test_a_unit_test_without_a_loop_may_use_blocking() -> None:
    context = ToolContext(artifacts=Shelf())
    assert context.blocking.save_artifact("a", "b") == 1
    assert context.blocking.list_artifacts() == ["a"]
