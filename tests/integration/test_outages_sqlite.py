"""SQLite's file is locked for long by another process, or has no room: a session waits, and goes on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import event as listening

from embedded.temporal import TemporalServer
from perdure.errors import StorageUnavailable
from storage import engine
from storage.sessions import SessionStore
from tests.integration.harness import World, open_world, until
from tests.integration.outages import AGENTS, PATIENCE, Talk

HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""


class Stage:
    """A worker on a SQLite file whose size can be held."""

    def __init__(self, world: World, path: Path) -> None:
        self.world = world
        self.path = path
        self.errors: list[str] = []
        self.pages = 2**30
        database = world.store._db
        sync, write = database.engine.sync_engine, database.write

        # Not SQLAlchemy's own event: what is said to the driver itself passes it by.
        async def noted(*args: Any, **options: Any) -> Any:
            try:
                return await write(*args, **options)
            except StorageUnavailable as error:
                self.errors.append(str(error))
                raise

        setattr(database, "write", noted)  # noqa: B010 - its type is the database's own, and generic

        @listening.listens_for(sync, "checkout")
        def limit(connection: Any, _record: Any, _proxy: Any) -> None:
            connection.execute(f"PRAGMA max_page_count = {self.pages}")

    async def fails(self, words: str, times: int) -> None:
        """The worker meets this error of the database, so many times from now on."""
        before = len(self.errors)

        async def met() -> bool:
            return sum(words in error for error in self.errors[before:]) >= times

        await until(met, within=PATIENCE)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Another process is in a transaction that it does not end."""
        command = [sys.executable, "-c", HOLD, str(self.path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"locked\n"
            yield
            process.communicate()

    @contextmanager
    def full(self) -> Iterator[None]:
        """The file may not grow; SQLite says the same of a disk."""
        self.pages = 1  # it takes this as: no more than there are
        yield
        self.pages = 2**30


@pytest_asyncio.fixture(scope="module")
async def stage(temporal: TemporalServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("outages")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "BUSY_TIMEOUT", 0.2)
        store = await SessionStore.open(f"sqlite:///{folder / 'p.db'}", f"file://{folder}", migrate=True)
    async with open_world(temporal.address, store, AGENTS) as world:
        yield Stage(world, folder / "p.db")
    await store.close()


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [("locked", "database is locked", "locked"), ("full", "disk is full", "disk is full")],
)
async def test_s59_what_cannot_be_written_now_waits(stage: Stage, name: str, words: str, said: str) -> None:
    # More than can be free in the pages that a full file has.
    held, asking, late = (Talk(stage.world, longer=20_000) for _ in range(3))
    await asking.goes_on("m0")
    turns = [held.ask("m1", "hold")]
    await held.held()
    stage.world.gemini.hang(contains=asking.mark)
    turns.append(asking.ask("m1"))
    await stage.world.gemini.wait(lambda: len(asking.asked()) == 2, "the model to be asked", PATIENCE)
    with getattr(stage, name)():
        held.let_go()
        stage.world.gemini.release()
        late.script("m1")
        turns.append(late.again("m1"))
        await stage.fails(words, 5)
        with pytest.raises(StorageUnavailable, match=said):
            await stage.world.store.update(asking.key, request_id="u1", state={"x": "y" * 100_000})
        assert await asking.ids() == ["m0:user", "m0:m1", "m1:user"], "what is there can be read"
        assert not any(turn.done() for turn in turns)
    assert [answer.status for answer in await asyncio.gather(*turns)] == ["answered"] * 3
    await held.exact("m1:1", models=2, tries=1, n=1)
    await asking.exact("m0", "m1", models=2)
    await late.exact("m1", models=1)
