"""What a delete takes with it, what expires, and which blobs are collected."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import InvalidOption, SessionNotFound
from perdure.types import SessionKey
from storage.blob_keys import blob_key
from storage.blobs import BlobStore
from storage.engine import Database
from storage.retention_store import GRACE
from storage.schema import sessions
from storage.sessions import SessionStore
from tests.conformance.conftest import Backend
from tests.conformance.events import answer, asked, event, say, summary, user
from tests.conformance.watch import Broken, breaking

CUTOFF = datetime(2026, 6, 1, tzinfo=UTC)
LONG_AGO = CUTOFF - timedelta(days=1)
NOW = timedelta(0)


def named(key: SessionKey, session_id: str) -> SessionKey:
    return replace(key, session_id=session_id)


async def touched(store: SessionStore, key: SessionKey, at: datetime = LONG_AGO) -> None:
    """Let the session's last change have been then."""

    async def work(conn: AsyncConnection) -> None:
        mine = (sessions.c.app == key.app, sessions.c.user_id == key.user_id, sessions.c.id == key.session_id)
        await conn.execute(update(sessions).where(*mine).values(updated_at=at))

    await store._db.write(work)


async def expired(store: SessionStore, app: str | None = None) -> list[str]:
    return [key.session_id for key in (await store.expired(app, CUTOFF)).keys]


async def blobs_of(store: SessionStore, key: SessionKey) -> set[str]:
    prefixes = await store._blobs.prefixes()
    return {blob for prefix in prefixes for blob in await store._blobs.keys(prefix)}


async def test_s22_a_delete_takes_the_blobs_that_nothing_names_any_more(
    store: SessionStore, key: SessionKey
) -> None:
    await say(store, key, "i1", artifact=("f", b"mine"))
    await store.stage_artifact(key, "user:staged", b"staged", "text/plain", event_id="i9:x")
    assert await blobs_of(store, key) == {blob_key(key, b"mine"), blob_key(key, b"staged")}
    await store.delete(key)
    assert await blobs_of(store, key) == set()
    await store.delete(key)


async def test_s22_a_blob_that_another_session_names_stays(store: SessionStore, key: SessionKey) -> None:
    other = named(key, "s2")
    await say(store, key, "i1", artifact=("f", b"shared"))
    await say(store, other, "i1", artifact=("g", b"shared"))
    await say(store, named(key, "s3"), "i1", artifact=("user:f", b"the user's"))
    await store.fork(key, "fork")
    await say(store, key, "i2", artifact=("f", b"the user's"))
    await store.delete(key)
    await store.delete(named(key, "s3"))
    for each, name, data in (
        (other, "g", b"shared"),
        (other, "user:f", b"the user's"),
        (named(key, "fork"), "f", b"shared"),
    ):
        assert (await store.load_artifact(each, name))[1] == data
    await store.delete(other)
    assert (await store.load_artifact(named(key, "fork"), "f"))[1] == b"shared"
    await store.delete(named(key, "fork"))
    assert await blobs_of(store, key) == {blob_key(key, b"the user's")}


async def test_s22_a_delete_counts_though_its_blobs_stay_for_later(
    store: SessionStore, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    await say(store, key, "i1", artifact=("f", b"mine"))

    async def away(_self: BlobStore, _key: str) -> bool:
        raise OSError("the bucket is away")

    with monkeypatch.context() as patched:
        patched.setattr(BlobStore, "remove", away)
        await store.delete(key)
    with pytest.raises(SessionNotFound):
        await store.get(key)
    assert await blobs_of(store, key) == {blob_key(key, b"mine")}
    assert await store.collect_blobs(older_than=NOW) == 1
    assert await blobs_of(store, key) == set()


async def test_s56_the_orphan_of_a_crash_between_blob_and_row_is_collected(
    store: SessionStore, key: SessionKey
) -> None:
    await say(store, key, "i1", artifact=("f", b"kept"))
    with pytest.raises(Broken), breaking(store, 1):
        await store.stage_artifact(key, "f", b"orphan", "text/plain", event_id="i2:x")
    assert [item.version for item in await store.list_artifacts(key)] == [1]
    assert await store.collect_blobs(older_than=GRACE) == 0, "it is young"
    assert await store.collect_blobs(older_than=NOW, dry_run=True) == 1
    assert len(await blobs_of(store, key)) == 2, "a dry run takes nothing"
    assert await store.collect_blobs(older_than=NOW) == 1
    assert await store.collect_blobs(older_than=NOW) == 0
    assert await blobs_of(store, key) == {blob_key(key, b"kept")}
    assert (await store.load_artifact(key, "f"))[1] == b"kept"


async def test_s56_names_too_long_to_be_spelled_out_keep_their_blobs(store: SessionStore) -> None:
    key = SessionKey(app="é" * 120, user_id="~" * 120, session_id="s")
    await say(store, key, "i1", artifact=("f", b"kept"))
    assert await store.collect_blobs(older_than=NOW) == 0
    assert (await store.load_artifact(key, "f"))[1] == b"kept"


async def test_s56_a_save_that_found_its_bytes_there_keeps_them_though_a_cleaner_runs(
    backend: Backend, store: SessionStore, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cleaner comes between the bytes and the row, the worst moment for the save."""
    await store.create(key)
    await store._blobs.write(key, b"old orphan")
    cleaner = store if backend.name == "memory" else await backend.open()
    wrote = store._blobs.write
    writes = 0

    async def write_and_be_overtaken(owner: SessionKey, data: bytes) -> str:
        nonlocal writes
        writes += 1
        name = await wrote(owner, data)
        if writes == 1:
            assert await cleaner.collect_blobs(older_than=NOW) == 1
        return name

    monkeypatch.setattr(store._blobs, "write", write_and_be_overtaken)
    version = await store.stage_artifact(key, "f", b"old orphan", "text/plain", event_id="i1:x")
    await store.append(key, event("i1:x", artifact_delta={"f": version}))
    assert (await store.load_artifact(key, "f"))[1] == b"old orphan"


async def test_s56_saves_and_cleaners_at_once_lose_nothing(
    backend: Backend, store: SessionStore, key: SessionKey
) -> None:
    cleaner = store if backend.name == "memory" else await backend.open()
    done = asyncio.Event()

    async def clean() -> None:
        while not done.is_set():
            await cleaner.collect_blobs(older_than=NOW)
            await asyncio.sleep(0)

    async def live(session_id: str) -> None:
        for round_ in range(5):
            mine = named(key, session_id)
            await say(store, mine, "i1", artifact=("f", b"the same for all"))
            assert (await store.load_artifact(mine, "f"))[1] == b"the same for all"
            if round_ < 4:
                await store.delete(mine)

    async with asyncio.TaskGroup() as group:
        cleaning = group.create_task(clean())
        await asyncio.gather(*(live(f"s{number}") for number in range(4)))
        done.set()
        await cleaning
    for number in range(4):
        found, data = await store.load_artifact(named(key, f"s{number}"), "f")
        assert (found.version, data) == (1, b"the same for all")


async def test_s50_by_last_activity_with_its_cutoff_stated_exactly(
    store: SessionStore, key: SessionKey
) -> None:
    instant = timedelta(microseconds=1)
    for name, moment in (("before", CUTOFF - instant), ("at", CUTOFF), ("after", CUTOFF + instant)):
        await say(store, named(key, name), "i1")
        await touched(store, named(key, name), moment)
    assert await expired(store) == ["before"]
    assert await expired(store, "counter") == ["before"]
    assert await expired(store, "another") == []
    assert await store.delete_expired(named(key, "at"), CUTOFF) == "kept"
    assert await store.delete_expired(named(key, "before"), CUTOFF) == "deleted"
    assert await store.delete_expired(named(key, "before"), CUTOFF) == "gone"
    assert len((await store.list_sessions("counter")).sessions) == 2


async def test_s50_never_an_active_or_waiting_session(store: SessionStore, key: SessionKey) -> None:
    async def make(name: str, *more: Any) -> None:
        await say(store, named(key, name), "i1")
        for item in more:
            await store.append(named(key, name), item)

    call = event("i2:t1.0", content={"role": "user", "parts": [{"functionResponse": {"name": "increment"}}]})
    active = {
        "asked": [user("i2")],
        "calls": [user("i2"), asked("i2")],
        "called": [user("i2"), asked("i2"), call],
        "summed up meanwhile": [user("i2"), summary("i1", 1, 2)],
    }
    idle = {
        "answered": [user("i2"), answer("i2")],
        "summed up": [summary("i1", 1, 2)],
        "an artifact after it": [event("a:artifact", author="user")],
    }
    for name, more in {**active, **idle}.items():
        await make(name, *more)
    for name in ("ended", "rewound", "interrupted"):
        await make(name, user("i2"))
    await store.end(named(key, "ended"))
    await store.rewind(named(key, "rewound"), before="i2", request_id="r1")
    await store.interrupt(named(key, "interrupted"), "i2", epoch=None, reason="cancelled")
    await store.create(named(key, "empty"))
    names = [*active, *idle, "ended", "rewound", "interrupted", "empty"]
    for name in names:
        await touched(store, named(key, name))
    assert sorted(await expired(store)) == sorted(set(names) - set(active))
    for name in names:
        wanted = "kept" if name in active else "deleted"
        assert await store.delete_expired(named(key, name), CUTOFF) == wanted, name


async def test_s50_the_end_of_a_turn_is_found_behind_many_changes(
    store: SessionStore, key: SessionKey
) -> None:
    await store.begin_turn(key, user("i1"), epoch=None)
    for number in range(45):
        await store.update(key, request_id=f"u{number}", state={"n": number})
    await touched(store, key)
    assert await expired(store) == []
    await store.append(key, answer("i1"))
    await store.update(key, request_id="last", state={"n": -1})
    await touched(store, key)
    assert await expired(store) == [key.session_id]


async def test_s50_in_batches(store: SessionStore, key: SessionKey) -> None:
    for number in range(7):
        mine = replace(key, app=f"app{number % 2}", session_id=f"s{number}")
        await say(store, mine, "i1")
        if number == 2:
            await store.begin_turn(mine, user("i2"), epoch=None)
        await touched(store, mine, LONG_AGO - timedelta(hours=number))
    found: list[str] = []
    sizes: list[int] = []
    cursor: str | None = None
    while True:
        page = await store.expired(None, CUTOFF, limit=2, cursor=cursor)
        found += [each.session_id for each in page.keys]
        sizes.append(len(page.keys))
        for each in page.keys:
            assert await store.delete_expired(each, CUTOFF) == "deleted"
        if page.next_cursor is None:
            break
        cursor = page.next_cursor
    assert found == ["s6", "s4", "s0", "s5", "s3", "s1"], "by app, the oldest first"
    assert max(sizes) <= 2
    assert [each.key.session_id for each in (await store.list_sessions("app0")).sessions] == ["s2"]


async def test_s50_two_cleaners_at_once_do_no_harm(
    backend: Backend, store: SessionStore, key: SessionKey
) -> None:
    keys = [named(key, f"s{number}") for number in range(8)]
    for each in keys:
        await say(store, each, "i1", artifact=("f", b"shared"))
        await touched(store, each)
    other = store if backend.name == "memory" else await backend.open()
    done = await asyncio.gather(
        *(each.delete_expired(mine, CUTOFF) for mine in keys for each in (store, other))
    )
    for number in range(8):
        assert sorted(done[2 * number : 2 * number + 2]) == ["deleted", "gone"]
    assert await blobs_of(store, key) == set()


async def test_s50_a_session_touched_after_it_was_found_stays(store: SessionStore, key: SessionKey) -> None:
    await say(store, key, "i1")
    await touched(store, key)
    assert await expired(store) == [key.session_id]
    await store.begin_turn(key, user("i2"), epoch=None)
    assert await store.delete_expired(key, CUTOFF) == "kept"
    await store.append(key, answer("i2"))
    assert await store.delete_expired(key, CUTOFF) == "kept"


async def test_s50_what_makes_no_sense_is_refused(store: SessionStore, key: SessionKey) -> None:
    naive = CUTOFF.replace(tzinfo=None)
    for wrong in (
        store.expired(None, naive),
        store.delete_expired(key, naive),
        store.expired(None, datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))),
        store.expired(None, CUTOFF, limit=0),
        store.expired(None, CUTOFF, cursor="x"),
        store.collect_blobs(older_than=timedelta(seconds=-1)),
    ):
        with pytest.raises(InvalidOption):
            await wrong


async def test_two_holders_of_a_name_share_it_and_one_alone_waits(backend: Backend) -> None:
    from storage.sql import lock_name

    if backend.name != "postgres":
        pytest.skip("a writer of SQLite is alone anyhow")
    first, second = await backend.open(), await backend.open()
    order: list[str] = []
    held = asyncio.Event()

    async def share(database: Database, other: Database) -> None:
        async def work(conn: AsyncConnection) -> None:
            await lock_name(conn, "n", shared=True)
            await other.write(lambda conn: lock_name(conn, "n", shared=True))
            held.set()
            await asyncio.sleep(0.1)
            order.append("shared")

        await database.write(work)

    async def alone(database: Database) -> None:
        async def work(conn: AsyncConnection) -> None:
            await lock_name(conn, "n", shared=False)
            order.append("alone")

        await held.wait()
        await database.write(work)

    await asyncio.gather(share(first._db, second._db), alone(second._db))
    assert order == ["shared", "alone"]
