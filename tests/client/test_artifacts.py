"""Files with the client: by version, in ranges, large ones streamed both ways."""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.services import GatewayOptions
from perdure.errors import (
    ArtifactNotFound,
    GatewayUnavailable,
    InvalidContent,
    InvalidName,
    InvalidOption,
    SessionNotFound,
    TooLarge,
)
from storage.artifacts import DELETED
from tests.client.cutter import cutter
from tests.client.faces import Face, all_raise
from tests.gateway.harness import Gateway, open_gateway, path_of

MEGABYTE = bytes(range(256)) * 4096


async def with_session(client: Any, gateway: Gateway) -> Any:
    key = gateway.key()
    return await client.sessions.create(key.app, key.user_id, key.session_id)


def pieces(face: Face, count: int) -> Iterator[bytes] | AsyncIterator[bytes]:
    """So many megabytes, piece by piece, as the face takes them."""

    async def awaited() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield MEGABYTE

    return awaited() if face.kind == "async" else (MEGABYTE for _ in range(count))


async def test_versions_are_saved_listed_and_loaded(client: Any, sqlite_gateway: Gateway) -> None:
    session = await with_session(client, sqlite_gateway)
    first = await session.artifacts.save("notes/a b.txt", "größer")
    second = await session.artifacts.save("notes/a b.txt", b"\x00\xff", "application/x-two")
    assert (first.version, first.mime_type, first.size) == (1, "text/plain", 8)
    assert second.sha256 == hashlib.sha256(b"\x00\xff").hexdigest()
    assert await session.artifacts.versions("notes/a b.txt") == [first, second]
    assert await session.artifacts.list() == [second]
    assert await session.artifacts.find("notes/a b.txt") == second
    assert await session.artifacts.find("notes/a b.txt", 1) == first
    newest = await session.artifacts.load("notes/a b.txt")
    assert (newest.version, newest.data, newest.mime_type, newest.size) == (
        2,
        b"\x00\xff",
        "application/x-two",
        2,
    )
    old = await session.artifacts.load("notes/a b.txt", 1)
    assert (old.name, old.version, old.text) == ("notes/a b.txt", 1, "größer")
    await all_raise(
        ArtifactNotFound,
        lambda: session.artifacts.load("notes/a b.txt", 3),
        lambda: session.artifacts.load("b"),
        lambda: session.artifacts.find("notes/a b.txt", 3),
        lambda: anext(session.artifacts.stream("b")),
    )


async def test_what_google_adks_route_deleted_is_not_there(client: Any, sqlite_gateway: Gateway) -> None:
    session = await with_session(client, sqlite_gateway)
    await session.artifacts.save("a.txt", "one")
    gone = await sqlite_gateway.http.delete(path_of(session.key, "/artifacts/a.txt"))
    assert gone.status_code == 200
    assert list(await session.artifacts.list()) == list(await session.artifacts.versions("a.txt")) == []
    await all_raise(
        ArtifactNotFound,
        lambda: session.artifacts.find("a.txt"),
        lambda: session.artifacts.load("a.txt"),
        lambda: session.artifacts.load("a.txt", 1),
    )
    again = await session.artifacts.save("a.txt", "two")
    assert list(await session.artifacts.list()) == [again]


async def test_no_upload_says_that_it_is_a_deletion(client: Any, sqlite_gateway: Gateway) -> None:
    session = await with_session(client, sqlite_gateway)
    saved = await session.artifacts.save("a.txt", "one")
    with pytest.raises(InvalidContent, match="reserved"):
        await session.artifacts.save("a.txt", b"", DELETED)
    assert list(await session.artifacts.list()) == [saved]


@pytest.mark.parametrize("name", ["a.txt", "x/./y", "...", "ü 汉字/%2F?#&.txt", "user:me.txt", "a//b"])
async def test_s54_a_name_comes_back_as_it_was(client: Any, sqlite_gateway: Gateway, name: str) -> None:
    session = await with_session(client, sqlite_gateway)
    assert (await session.artifacts.save(name, b"x")).name == name
    assert (await session.artifacts.load(name)).data == b"x"
    assert [file.name for file in await session.artifacts.list()] == [name]
    assert [file.version for file in await session.artifacts.versions(name)] == [1]


@pytest.mark.parametrize("name", ["", "..", "a/../b", "/etc/passwd", "a\x00b", "half \udc00"])
async def test_s54_a_name_that_leads_elsewhere_is_refused(
    client: Any, sqlite_gateway: Gateway, name: str
) -> None:
    session = await with_session(client, sqlite_gateway)
    with pytest.raises(InvalidName):
        await session.artifacts.save(name, b"x")
    with pytest.raises(InvalidName):
        await session.artifacts.load(name)
    assert await session.artifacts.list() == []


async def test_s55_nothing_is_something(client: Any, sqlite_gateway: Gateway) -> None:
    session = await with_session(client, sqlite_gateway)
    assert (await session.artifacts.save("empty", b"")).size == 0
    empty = await session.artifacts.load("empty")
    assert (empty.version, empty.data, empty.size) == (1, b"", 0)
    assert [chunk async for chunk in session.artifacts.stream("empty")] == []


async def test_ranges(client: Any, sqlite_gateway: Gateway) -> None:
    session = await with_session(client, sqlite_gateway)
    await session.artifacts.save("a", b"0123456789")
    for start, length, expected in (
        (0, 3, b"012"),
        (7, None, b"789"),
        (8, 100, b"89"),
        (3, 0, b""),
        (10, 1, b""),
        (99, None, b""),
    ):
        found = await session.artifacts.load("a", start=start, length=length)
        assert (found.data, found.version, found.size) == (expected, 1, 10), (start, length)
        chunks = [chunk async for chunk in session.artifacts.stream("a", start=start, length=length)]
        assert b"".join(chunks) == expected
    for start, length in ((-1, None), (0, -1)):
        with pytest.raises(InvalidOption):
            await session.artifacts.load("a", start=start, length=length)


async def test_s57_large_ones_stream_both_ways(face: Face, gateway: Gateway, tmp_path: Path) -> None:
    file, expected = tmp_path / "big.bin", hashlib.sha256(MEGABYTE * 9).hexdigest()
    file.write_bytes(MEGABYTE * 9)
    async with face.client(gateway.url, gateway.tokens.give()) as client:
        session = await with_session(client, gateway)
        with file.open("rb") as opened:
            for source in (pieces(face, 9), file, opened, MEGABYTE * 9):
                saved = await session.artifacts.save("big.bin", source)
                assert (saved.size, saved.sha256) == (9 * len(MEGABYTE), expected)
        digest, largest = hashlib.sha256(), 0
        async for chunk in session.artifacts.stream("big.bin", 2):
            digest.update(chunk)
            largest = max(largest, len(chunk))
        assert digest.hexdigest() == expected
        assert largest < 9 * len(MEGABYTE)
        middle = [chunk async for chunk in session.artifacts.stream("big.bin", start=300, length=5_000_000)]
        assert b"".join(middle) == (MEGABYTE * 9)[300:5_000_300]


async def test_a_download_that_is_cut_goes_on_where_it_was(face: Face, sqlite_gateway: Gateway) -> None:
    async with (
        cutter(sqlite_gateway.url) as between,
        face.client(between.url, sqlite_gateway.tokens.give()) as client,
    ):
        session = await with_session(client, sqlite_gateway)
        await session.artifacts.save("big", MEGABYTE * 3)
        between.requests.clear()
        between.bytes_until_cut = 1_500_000
        loaded = b""
        async for chunk in session.artifacts.stream("big"):
            if not loaded:
                await session.artifacts.save("big", b"another version")
            loaded += chunk
        assert loaded == MEGABYTE * 3
        assert between.requests[-1].endswith("?version=1")


async def test_an_upload_that_is_cut_is_done_again_only_from_its_beginning(
    face: Face, sqlite_gateway: Gateway, tmp_path: Path
) -> None:
    file = tmp_path / "a"
    file.write_bytes(MEGABYTE)
    async with (
        cutter(sqlite_gateway.url) as between,
        face.client(between.url, sqlite_gateway.tokens.give()) as client,
    ):
        session = await with_session(client, sqlite_gateway)
        for source in (file, MEGABYTE):
            between.replies_to_cut = 1
            assert (await session.artifacts.save("a", source)).size == len(MEGABYTE)
        for once in (pieces(face, 1), io.BytesIO(MEGABYTE)):
            between.replies_to_cut = 1
            with pytest.raises(GatewayUnavailable) as raised:
                await session.artifacts.save("b", once)
            # It was saved all the same, under the id that the error tells.
            again = await session.artifacts.save("b", MEGABYTE, request_id=raised.value.request_id)
            assert again.sha256 == hashlib.sha256(MEGABYTE).hexdigest()
        assert [each.version for each in await session.artifacts.versions("a")] == [1, 2]
        assert [each.version for each in await session.artifacts.versions("b")] == [1, 2]


async def test_what_is_no_source_is_refused(client: Any, sqlite_gateway: Gateway, tmp_path: Path) -> None:
    session = await with_session(client, sqlite_gateway)
    for wrong in (7, ["text"], io.StringIO("text"), "half \ud800"):
        with pytest.raises(InvalidContent):
            await session.artifacts.save("a", wrong)
    with pytest.raises(InvalidContent, match="MIME"):
        await session.artifacts.save("a", b"x", "text/plain\r\nx-evil: 1")
    with pytest.raises(FileNotFoundError):
        await session.artifacts.save("a", tmp_path / "not there")
    with pytest.raises(SessionNotFound):
        await client.session("counter", "nobody", "nowhere").artifacts.save("a", b"x")
    assert await session.artifacts.list() == []


async def test_more_than_the_gateway_takes_is_refused(face: Face, sqlite_gateway: Gateway) -> None:
    options = GatewayOptions(upload_limit=100)
    async with (
        open_gateway(sqlite_gateway.world, options=options) as small,
        face.client(small.url, small.tokens.give()) as client,
    ):
        session = await with_session(client, sqlite_gateway)
        with pytest.raises(TooLarge):
            await session.artifacts.save("a", b"x" * 101)
        with pytest.raises(TooLarge):
            await session.artifacts.save("a", pieces(face, 1))
