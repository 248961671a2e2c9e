"""Writers in processes of their own, on one SQLite file or one PostgreSQL database.

A store in memory is one process's; what several callers may do in it at once is in
``test_store_concurrency``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from perdure.types import Json
from storage.sessions import SessionStore
from tests.conformance.conftest import NewDatabase
from tests.conformance.events import say
from tests.conformance.writer import KEY, ROUNDS, session

ROOT = Path(__file__).parents[2]
NAMES = ("a", "b", "c")


@pytest.fixture(params=["sqlite", "postgres"])
async def url(request: pytest.FixtureRequest, new_database: NewDatabase) -> str:
    """A fresh database that processes can share."""
    kind: str = request.param
    return await new_database(kind)


@pytest.fixture
async def store(url: str) -> AsyncIterator[SessionStore]:
    """A store on it in this process."""
    store = await SessionStore.open(url, "memory://processes")
    yield store
    await store.close()


async def test_s8_s9_whoever_comes_late_is_refused_and_no_version_is_left_out(
    url: str, store: SessionStore
) -> None:
    await store.create(KEY, state={"n": 0})
    refused = await together(url, "counts", meet=True)
    made = await store.get(KEY)
    assert (made.state["n"], made.version, made.head) == (3 * ROUNDS, 1 + 3 * ROUNDS, 3 * ROUNDS)
    assert [event.state_delta["n"] for event in made.events] == list(range(1, 3 * ROUNDS + 1))
    assert sum(refused) >= 2, "all had seen the same when the first of them wrote"


async def test_s11_sessions_that_set_their_own_app_keys_keep_them_all(url: str, store: SessionStore) -> None:
    names = [name for mine in await together(url, "shares", ("a", "b", "c", "d")) for name in mine]
    await store.create(KEY)
    state = dict((await store.get(KEY)).state)
    assert f"app:{state.pop('app:all')}" in names
    assert state == dict.fromkeys(names, 1)
    assert len(names) == 20


async def test_s12_of_creates_at_once_one_wins(url: str, store: SessionStore) -> None:
    won = await together(url, "creates")
    assert sorted(number for mine in won for number in mine) == list(range(ROUNDS))
    for name, mine in zip(NAMES, won, strict=True):
        for number in mine:
            made = await store.get(session(number))
            assert (made.version, made.state["by"]) == (1, name)
    shared = {f"app:{name}{number}" for name, mine in zip(NAMES, won, strict=True) for number in mine}
    assert {name for name in made.state if name.startswith("app:")} == shared


async def test_s4_of_events_under_one_id_one_is_stored(url: str, store: SessionStore) -> None:
    await store.create(KEY)
    refused = await together(url, "repeats")
    made = await store.get(KEY)
    assert (made.head, made.version) == (ROUNDS, 1 + ROUNDS)
    assert sum(refused) == 2 * (ROUNDS // 2)


async def test_s13_nothing_of_a_rewound_turn_comes_after_the_marker(url: str, store: SessionStore) -> None:
    await say(store, KEY, "before", delta={"n": "as it was"})
    for name in NAMES:
        async with started(url, "goes_on", name) as writer:
            assert await line(writer) == "going"
            done = await store.rewind(KEY, before=name, request_id=f"r-{name}")
            written = json.loads(await line(writer))
        log = await store.log(KEY, after=done.event.seq)
        assert log == []
        made = await store.get(KEY)
        assert made.state == {"n": "as it was"}
        assert not any(event.invocation_id == name for event in made.events)
        assert sum(event.invocation_id == name for event in await store.log(KEY)) == written + 1


async def together(url: str, role: str, names: tuple[str, ...] = NAMES, *, meet: bool = False) -> list[Json]:
    """Let processes play a role at the same time; what each says.

    With ``meet``, none of them goes on from what it has seen first before all have seen it.
    """

    async def one(name: str) -> Json:
        async with started(url, role, name, gate) as writer:
            if meet:
                assert await line(writer) == "seen"
                await gate.wait()
                await go(writer)
            return json.loads(await line(writer))

    gate = asyncio.Barrier(len(names))
    return await asyncio.gather(*(one(name) for name in names))


@asynccontextmanager
async def started(
    url: str, role: str, name: str, gate: asyncio.Barrier | None = None
) -> AsyncIterator[Process]:
    """A process that has begun, together with those of the same gate, and ends well."""
    command = [sys.executable, "-W", "error", "-m", "tests.conformance.writer", url, role, name]
    writer = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE)
    try:
        assert await line(writer) == "ready"
        if gate is not None:
            await gate.wait()
        await go(writer)
        yield writer
        assert await writer.wait() == 0
    finally:
        if writer.returncode is None:
            writer.kill()
            await writer.wait()


async def go(writer: Process) -> None:
    """Let a process go on."""
    assert writer.stdin is not None
    writer.stdin.write(b"go\n")
    await writer.stdin.drain()


async def line(writer: Process) -> str:
    """The next line that a process prints."""
    assert writer.stdout is not None
    return (await writer.stdout.readline()).decode().strip()
