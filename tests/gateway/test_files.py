"""Artifacts as files: by version, in ranges, streamed both ways."""

from __future__ import annotations

import asyncio
import hashlib
import tracemalloc
from collections.abc import AsyncIterator

import httpx2
import pytest

from perdure.types import SessionKey
from tests.gateway.harness import Gateway, path_of
from tests.gateway.test_sessions_routes import is_problem

PIECE = bytes(range(256)) * 4096


async def with_session(gateway: Gateway) -> SessionKey:
    key = gateway.key()
    await gateway.world.store.create(key)
    return key


async def saved(
    gateway: Gateway, key: SessionKey, name: str, data: bytes, mime: str = "text/plain"
) -> httpx2.Response:
    path = path_of(key, f"/files/{name}")
    answer = await gateway.http.put(path, content=data, headers={"content-type": mime})
    assert answer.status_code == 201, answer.text
    return answer


async def test_versions_are_saved_listed_and_read(gateway: Gateway) -> None:
    key = await with_session(gateway)
    first = await saved(gateway, key, "notes/a b.txt", b"one")
    second = await saved(gateway, key, "notes/a b.txt", b"two!", "text/x-two; charset=utf-8")
    assert [answer.json()["version"] for answer in (first, second)] == [1, 2]
    assert second.json()["sha256"] == hashlib.sha256(b"two!").hexdigest()
    assert (await gateway.http.get(second.headers["location"])).content == b"two!"
    path = path_of(key, "/files/notes/a%20b.txt")
    newest = await gateway.http.get(path)
    assert (newest.content, newest.headers["content-type"]) == (b"two!", "text/x-two; charset=utf-8")
    assert newest.headers["x-artifact-version"] == "2"
    assert newest.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20b.txt"
    assert (await gateway.http.get(path, params={"version": 1})).content == b"one"
    is_problem(await gateway.http.get(path, params={"version": 3}), 404, "artifact-not-found")
    listed = (await gateway.http.get(path_of(key, "/files"))).json()["files"]
    assert [(file["name"], file["version"], file["size"]) for file in listed] == [("notes/a b.txt", 2, 4)]
    every = (await gateway.http.get(path_of(key, "/files"), params={"name": "notes/a b.txt"})).json()["files"]
    assert every == [first.json(), second.json()]


async def test_s33_one_that_was_rewound_is_gone(gateway: Gateway) -> None:
    key = await with_session(gateway)
    await gateway.http.post(path_of(key, "/messages"), json={"text": "Add one.", "messageId": "m1"})
    await saved(gateway, key, "a", b"x")
    await gateway.http.post(path_of(key, "/rewind"), json={"before": "m1"})
    is_problem(await gateway.http.get(path_of(key, "/files/a")), 404, "artifact-not-found")
    assert (await saved(gateway, key, "a", b"y")).json()["version"] == 2


async def test_a_range_is_that_span_of_it(sqlite_gateway: Gateway) -> None:
    key = await with_session(sqlite_gateway)
    etag = (await saved(sqlite_gateway, key, "a", b"0123456789")).headers["etag"]
    path = path_of(key, "/files/a")

    async def asked(**headers: str) -> httpx2.Response:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return await sqlite_gateway.http.get(path, headers=given)

    part = await asked(Range="bytes=2-4")
    assert (part.status_code, part.content) == (206, b"234")
    assert part.headers["content-range"] == "bytes 2-4/10"
    assert part.headers["etag"] == etag == f'"{hashlib.sha256(b"0123456789").hexdigest()}"'
    assert (await asked(Range="bytes=-3")).content == b"789"
    behind = await asked(Range="bytes=10-")
    is_problem(behind, 416, "range-not-satisfiable")
    assert behind.headers["content-range"] == "bytes */10"
    assert (await asked(Range="bytes=2-4", If_Range=etag)).status_code == 206
    assert (await asked(Range="bytes=2-4", If_Range='"another"')).content == b"0123456789"
    known = await asked(If_None_Match=f'"x", W/{etag}')
    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", etag)


async def test_its_headers_alone(sqlite_gateway: Gateway) -> None:
    key = await with_session(sqlite_gateway)
    await saved(sqlite_gateway, key, "a", b"0123456789", "application/x-ten")
    head = await sqlite_gateway.http.head(path_of(key, "/files/a"))
    assert (head.status_code, head.content) == (200, b"")
    assert (head.headers["content-length"], head.headers["content-type"]) == ("10", "application/x-ten")
    assert head.headers["accept-ranges"] == "bytes"
    assert (await sqlite_gateway.http.head(path_of(key, "/files/b"))).status_code == 404


async def test_s55_an_empty_one_is_empty_and_not_missing(sqlite_gateway: Gateway) -> None:
    key = await with_session(sqlite_gateway)
    await saved(sqlite_gateway, key, "empty", b"")
    answer = await sqlite_gateway.http.get(path_of(key, "/files/empty"))
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")


@pytest.mark.parametrize("name", ["%2e%2e/x", "a/%2e%2e/b", "/x", "%00", "x" * 2000])
async def test_s54_a_name_that_could_leave_its_folder_is_refused(sqlite_gateway: Gateway, name: str) -> None:
    key = await with_session(sqlite_gateway)
    url = httpx2.URL(sqlite_gateway.url).copy_with(raw_path=path_of(key, f"/files/{name}").encode())
    answer = await sqlite_gateway.http.put(url, content=b"x")
    assert (answer.status_code, answer.json()["code"]) in ((400, "invalid-name"), (400, "invalid-content"))


async def test_under_one_key_it_is_saved_once(gateway: Gateway) -> None:
    key = await with_session(gateway)
    headers = {"Idempotency-Key": "u1"}
    path = path_of(key, "/files/a")
    first, again = [await gateway.http.put(path, content=b"x", headers=headers) for _ in "ab"]
    assert first.json() == again.json()
    assert len((await gateway.http.get(path_of(key, "/files"), params={"name": "a"})).json()["files"]) == 1


async def test_an_upload_that_breaks_off_is_no_artifact(sqlite_gateway: Gateway) -> None:
    key = await with_session(sqlite_gateway)
    address = httpx2.URL(sqlite_gateway.url)
    _, writer = await asyncio.open_connection(address.host, address.port)
    token = sqlite_gateway.http.headers["authorization"]
    writer.write(
        f"PUT {path_of(key, '/files/a')} HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
        "Content-Length: 1000\r\n\r\nhalf".encode()
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await saved(sqlite_gateway, key, "b", b"after it")
    listed = (await sqlite_gateway.http.get(path_of(key, "/files"))).json()["files"]
    assert [file["name"] for file in listed] == ["b"]


async def test_s57_large_ones_stream_both_ways(sqlite_gateway: Gateway) -> None:
    """Of 128 MB no more than a few chunks are in this process, which is server and client at once."""
    key = await with_session(sqlite_gateway)
    count = 128

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield PIECE

    path = path_of(key, "/files/large")
    tracemalloc.start()
    answer = await sqlite_gateway.http.put(path, content=pieces())
    assert answer.json()["size"] == count * len(PIECE), answer.text
    digest, size = hashlib.sha256(), 0
    async with sqlite_gateway.http.stream("GET", path) as response:
        async for chunk in response.aiter_bytes():
            digest.update(chunk)
            size += len(chunk)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == count * len(PIECE)
    assert response.headers["etag"] == f'"{digest.hexdigest()}"'
    assert peak < 64_000_000, f"{peak} bytes"
