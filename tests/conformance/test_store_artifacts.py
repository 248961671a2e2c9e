"""Artifacts: names, versions, what is listed when."""

from __future__ import annotations

import asyncio
import io
import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from perdure.errors import ArtifactNotFound, InvalidContent, InvalidName, SessionEnded
from perdure.sources import Source
from perdure.types import ArtifactVersion, SessionKey
from storage.artifacts import DELETED
from storage.blob_keys import blob_key
from storage.sessions import SessionStore
from tests.conformance.conftest import Backend
from tests.conformance.events import event, say
from tests.conformance.watch import Broken, breaking


@pytest.fixture
async def everywhere(backend: Backend, url: str) -> SessionStore:
    """A store on a fresh database of each kind, with its blobs on each filesystem."""
    backend.artifacts_url = url
    return await backend.open(pool_size=5, max_overflow=20)


async def save(store: SessionStore, key: SessionKey, name: str, data: bytes, event_id: str) -> int:
    """Stage and commit, as a tool that saves one artifact."""
    version = await store.stage_artifact(key, name, data, "text/plain", event_id=event_id)
    await store.append(key, event(event_id, artifact_delta={name: version}))
    return version


async def test_a_saved_artifact_is_listed_and_loads(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    version = await store.stage_artifact(key, "a.png", b"\x89PNG\0", "image/png", event_id="i1:x")
    await store.append(key, event("i1:x", artifact_delta={"a.png": version}))
    found, data = await store.load_artifact(key, "a.png")
    assert data == b"\x89PNG\0"
    assert (found.name, found.version, found.mime_type, found.size) == ("a.png", 1, "image/png", 5)
    assert found.created_at.utcoffset() is not None
    assert await store.list_artifacts(key) == [found] == await store.artifact_versions(key, "a.png")
    assert (await store.get(key)).events[0].artifact_delta == {"a.png": 1}


async def test_each_save_is_a_version_and_all_stay(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    for number in range(1, 4):
        assert await save(store, key, "a", b"%d" % number, f"i{number}:x") == number
    assert [item.version for item in await store.artifact_versions(key, "a")] == [1, 2, 3]
    for version, data in ((1, b"1"), (2, b"2"), (3, b"3"), (None, b"3")):
        assert (await store.load_artifact(key, "a", version=version))[1] == data
    for missing in (0, 4, -1):
        with pytest.raises(ArtifactNotFound, match=f"version {missing} of artifact 'a'"):
            await store.load_artifact(key, "a", version=missing)
    with pytest.raises(ArtifactNotFound, match="'b'"):
        await store.load_artifact(key, "b")
    assert await store.artifact_versions(key, "b") == []


async def test_s56_a_crash_before_the_event_lists_nothing(everywhere: SessionStore, key: SessionKey) -> None:
    await everywhere.create(key)
    before = await everywhere.get(key)
    assert await everywhere.stage_artifact(key, "a", b"1", "text/plain", event_id="i1:x") == 1
    assert await everywhere.list_artifacts(key) == []
    assert await everywhere.artifact_versions(key, "a") == []
    with pytest.raises(ArtifactNotFound):
        await everywhere.load_artifact(key, "a")
    assert await everywhere.get(key) == before


@pytest.mark.parametrize("version", [1.0, True, "1", None])
async def test_a_version_that_is_no_whole_number_is_refused(
    store: SessionStore, key: SessionKey, version: Any
) -> None:
    await store.create(key)
    assert await store.stage_artifact(key, "a", b"1", "x/y", event_id="i1:x") == 1
    with pytest.raises(InvalidContent, match="artifact_delta of event i1:x"):
        await store.append(key, event("i1:x", artifact_delta={"a": version}))


async def test_a_staged_artifact_is_seen_by_its_own_event(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    await save(store, key, "a", b"old", "i0:x")
    await store.stage_artifact(key, "a", b"new", "text/plain", event_id="i1:x")
    assert (await store.load_artifact(key, "a", event_id="i1:x"))[1] == b"new"
    assert [item.version for item in await store.list_artifacts(key, event_id="i1:x")] == [2]
    for other in (None, "i2:x"):
        assert (await store.load_artifact(key, "a", event_id=other))[1] == b"old"
        assert [item.version for item in await store.list_artifacts(key, event_id=other)] == [1]


async def test_a_retry_finds_its_version_and_its_bytes_count(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    for data in (b"first try", b"second try"):
        assert await store.stage_artifact(key, "a", data, "text/plain", event_id="i1:x", ordinal=3) == 1
    assert await store.stage_artifact(key, "b", b"", "text/plain", event_id="i1:x", ordinal=3) == 1
    assert await store.stage_artifact(key, "a", b"other", "text/plain", event_id="i1:x", ordinal=4) == 2
    await store.append(key, event("i1:x", artifact_delta={"a": 1}))
    assert (await store.load_artifact(key, "a"))[1] == b"second try"
    assert [item.version for item in await store.artifact_versions(key, "a")] == [1]


async def test_an_attempt_that_lost_cannot_change_what_was_committed(
    store: SessionStore, key: SessionKey
) -> None:
    await store.create(key)
    await save(store, key, "a", b"winner", "i1:x")
    assert await store.stage_artifact(key, "a", b"zombie", "image/png", event_id="i1:x") == 1
    found, data = await store.load_artifact(key, "a")
    assert (found.mime_type, data) == ("text/plain", b"winner")


async def test_one_event_may_save_a_name_twice(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    for ordinal, data in enumerate((b"1", b"2")):
        version = await store.stage_artifact(key, "a", data, "text/plain", event_id="i1:x", ordinal=ordinal)
        assert version == ordinal + 1
    await store.append(key, event("i1:x", artifact_delta={"a": 2}))
    assert [item.version for item in await store.artifact_versions(key, "a")] == [1, 2]
    assert (await store.load_artifact(key, "a"))[1] == b"2"


async def test_s6_an_event_cannot_name_what_was_not_staged_for_it(
    store: SessionStore, key: SessionKey
) -> None:
    await store.create(key)
    await store.stage_artifact(key, "a", b"", "text/plain", event_id="i1:x")
    for delta in ({"a": 2}, {"b": 1}):
        with pytest.raises(ArtifactNotFound):
            await store.append(key, event("i1:x", artifact_delta=delta, state_delta={"n": 1}))
    with pytest.raises(ArtifactNotFound):
        await store.append(key, event("i2:x", artifact_delta={"a": 1}))
    session = await store.get(key)
    assert (session.version, session.head, session.state) == (1, 0, {})


NAMES = [
    "report.txt",
    "folder/sub folder/März 2026.txt",
    "日本語/файл.bin",
    "a..b",
    "...",
    ".hidden",
    "user:shared/x",
    "a\\b",
    "%2e%2e",
    "'; DROP TABLE artifacts; --",
    "n" * 512,
]
REFUSED = [
    "",
    " ",
    "user:",
    "..",
    "../a",
    "a/../b",
    "a/..",
    "..\\a",
    "a\\..\\b",
    "user:../a",
    "/etc/passwd",
    "\\windows",
    "user:/abs",
    "a\0b",
    "\ud800",
    "n" * 513,
]


async def test_s54_names_that_work(everywhere: SessionStore, key: SessionKey) -> None:
    await everywhere.create(key)
    for number, name in enumerate(NAMES):
        await save(everywhere, key, name, name.encode(), f"i{number}:x")
    for name in NAMES:
        assert (await everywhere.load_artifact(key, name))[1] == name.encode()
    assert [item.name for item in await everywhere.list_artifacts(key)] == sorted(NAMES)


async def test_s54_names_that_are_refused(everywhere: SessionStore, key: SessionKey) -> None:
    await everywhere.create(key)
    for name in REFUSED:
        for call in (
            everywhere.stage_artifact(key, name, b"", "text/plain", event_id="i1:x"),
            everywhere.stage_artifact(key, name, io.BytesIO(b""), "text/plain", event_id="i1:x"),
            everywhere.load_artifact(key, name),
            everywhere.stream_artifact(key, name),
            everywhere.artifact_versions(key, name),
        ):
            with pytest.raises(InvalidName):
                await call
    assert await everywhere._blobs.prefixes() == []


async def test_s55_empty_bytes_load_as_empty(everywhere: SessionStore, key: SessionKey) -> None:
    await everywhere.create(key)
    await save(everywhere, key, "empty", b"", "i1:x")
    found, data = await everywhere.load_artifact(key, "empty")
    assert (found.size, data) == (0, b"")
    assert await everywhere.list_artifacts(key) == [found]


async def test_s56_s57_bytes_are_equal_and_the_mime_type_is_kept(
    everywhere: SessionStore, key: SessionKey
) -> None:
    await everywhere.create(key)
    kept = [b"", b"\x89PNG\0", bytes(range(256)) * 400]
    sources: list[Source] = [*kept, *(io.BytesIO(data) for data in kept)]
    for number, source in enumerate(sources):
        version = await everywhere.stage_artifact(key, "f", source, f"x/{number}", event_id=f"i{number}:x")
        await everywhere.append(key, event(f"i{number}:x", artifact_delta={"f": version}))
    for number, data in enumerate(kept * 2):
        found, loaded = await everywhere.load_artifact(key, "f", version=number + 1)
        assert (loaded, found.mime_type, found.size) == (data, f"x/{number}", len(data))
        _, chunks = await everywhere.stream_artifact(key, "f", version=number + 1, start=1, length=300)
        assert b"".join([chunk async for chunk in chunks]) == data[1:301]


async def test_s56_a_crash_between_blob_and_row_at_every_statement(
    everywhere: SessionStore, key: SessionKey
) -> None:
    await everywhere.create(key)
    await save(everywhere, key, "f", b"kept", "i0:x")
    listed = await everywhere.list_artifacts(key)
    for at in itertools.count(1):
        data = b"%d" % at
        try:
            with breaking(everywhere, at):
                await everywhere.stage_artifact(key, "f", data, "x/y", event_id="i1:x")
            break
        except Broken:
            assert await everywhere.list_artifacts(key, event_id="i1:x") == listed
    assert at > 3
    assert await everywhere.collect_blobs() == 0, "they are young"
    await everywhere.collect_blobs(older_than=timedelta(0))
    assert await everywhere._blobs.keys("counter/ada") == sorted(
        [blob_key(key, b"kept"), blob_key(key, data)]
    )
    await everywhere.append(key, event("i1:x", artifact_delta={"f": 2}))
    assert (await everywhere.load_artifact(key, "f"))[1] == data


async def test_s53_saves_at_once_get_distinct_versions(everywhere: SessionStore, key: SessionKey) -> None:
    await everywhere.create(key)
    ids = [f"i{number}:x" for number in range(20)]
    versions = await asyncio.gather(*(save(everywhere, key, "a", each.encode(), each) for each in ids))
    assert sorted(versions) == list(range(1, 21))
    for version, each in zip(versions, ids, strict=True):
        assert (await everywhere.load_artifact(key, "a", version=version))[1] == each.encode()


async def test_s53_sessions_of_one_user_share_the_versions_of_a_user_name(
    store: SessionStore, key: SessionKey
) -> None:
    keys = [replace(key, session_id=f"s{number}") for number in range(10)]
    await asyncio.gather(*(store.create(each) for each in keys))
    # The same event id everywhere: it is unique in a session only.
    versions = await asyncio.gather(*(save(store, each, "user:a", b"x", "i1:x") for each in keys))
    assert sorted(versions) == list(range(1, 11))
    assert [item.version for item in await store.artifact_versions(keys[3], "user:a")] == sorted(versions)


async def test_s21_a_user_artifact_is_the_users_alone(store: SessionStore, key: SessionKey) -> None:
    sibling = replace(key, session_id="s2")
    strangers = [replace(key, user_id="bob"), replace(key, app="other")]
    for each in (key, sibling, *strangers):
        await store.create(each)
    await save(store, key, "user:a", b"mine", "i1:x")
    await save(store, key, "a", b"mine", "i2:x")
    assert [item.name for item in await store.list_artifacts(sibling)] == ["user:a"]
    assert (await store.load_artifact(sibling, "user:a"))[1] == b"mine"
    for each in strangers:
        assert await store.list_artifacts(each) == []
        with pytest.raises(ArtifactNotFound):
            await store.load_artifact(each, "user:a")


async def test_the_list_is_by_name_and_newest_only(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    for number, name in enumerate(["b", "a", "user:c", "b", "B"]):
        await save(store, key, name, b"%d" % number, f"i{number}:x")
    listed = [(item.name, item.version) for item in await store.list_artifacts(key)]
    assert listed == [("B", 1), ("a", 1), ("b", 2), ("user:c", 1)]


async def delete(store: SessionStore, key: SessionKey, name: str, event_id: str) -> None:
    """Delete an artifact, as google-adk's services do it."""
    version = await store.stage_artifact(key, name, b"", DELETED, event_id=event_id)
    await store.append(key, event(event_id, artifact_delta={name: version}))


async def test_what_was_deleted_is_not_found_by_anybody(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    for number in (1, 2):
        await save(store, key, "a", b"%d" % number, f"i{number}:x")
    await save(store, key, "b", b"b", "i3:x")
    await delete(store, key, "a", "i4:x")
    assert [item.name for item in await store.list_artifacts(key)] == ["b"]
    assert await store.artifact_versions(key, "a") == []
    for version in (None, 1, 2, 3):
        with pytest.raises(ArtifactNotFound, match="deleted"):
            await store.load_artifact(key, "a", version=version)
    assert [item.name for item in await store.list_artifacts(key, before="i4")] == ["a", "b"]
    copy = replace(key, session_id="copy")
    await store.fork(key, copy)
    assert [item.name for item in await store.list_artifacts(copy)] == ["b"]


async def test_a_deleted_name_may_be_saved_again_and_a_rewind_brings_it_back(
    store: SessionStore, key: SessionKey
) -> None:
    await store.create(key)
    await save(store, key, "a", b"1", "i1:x")
    await delete(store, key, "a", "i2:x")
    assert await save(store, key, "a", b"3", "i3:x") == 3, "no number is used twice"
    assert [item.version for item in await store.artifact_versions(key, "a")] == [3]
    with pytest.raises(ArtifactNotFound):
        await store.find_artifact(key, "a", version=1)
    await store.rewind(key, before="i2", request_id="r1")
    assert [item.version for item in await store.artifact_versions(key, "a")] == [1]


@pytest.mark.parametrize("data", ["text", None, 5])
async def test_only_bytes_are_saved(store: SessionStore, key: SessionKey, data: Any) -> None:
    await store.create(key)
    with pytest.raises(InvalidContent, match="give bytes"):
        await store.stage_artifact(key, "a", data, "text/plain", event_id="i1:x")


@pytest.mark.parametrize("mime_type", ["", "a\0", "x" * 300])
async def test_an_unusable_mime_type_is_refused(store: SessionStore, key: SessionKey, mime_type: str) -> None:
    await store.create(key)
    with pytest.raises(InvalidContent, match="MIME"):
        await store.stage_artifact(key, "a", b"", mime_type, event_id="i1:x")


async def test_the_same_bytes_are_one_blob_a_user(store: SessionStore, key: SessionKey) -> None:
    bob = replace(key, user_id="bob")
    blobs: list[ArtifactVersion] = []
    for each in (key, replace(key, session_id="s2"), bob):
        await say(store, each, "i1", artifact=("a", b"same"))
        blobs += await store.list_artifacts(each)
    assert blobs[0].blob == blobs[1].blob != blobs[2].blob
    assert [blob.blob.split("/")[:2] for blob in blobs] == [["counter", "ada"]] * 2 + [["counter", "bob"]]


async def test_an_ended_session_lists_no_new_artifact(store: SessionStore, key: SessionKey) -> None:
    await say(store, key, "i1", artifact=("a", b"1"))
    await store.end(key)
    version = await store.stage_artifact(key, "a", b"2", "text/plain", event_id="i2:x")
    with pytest.raises(SessionEnded):
        await store.append(key, event("i2:x", artifact_delta={"a": version}))
    assert (await store.load_artifact(key, "a"))[1] == b"1"
