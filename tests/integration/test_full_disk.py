"""A disk that is really full, under a SQLite file or a Postgres's tables: a turn waits for room."""

from __future__ import annotations

import errno
import os
import pwd
import random
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from io import FileIO
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from perdure.errors import StorageUnavailable
from perdure.testing import say
from storage.sessions import SessionStore
from tests.integration.harness import World, open_world, until
from tests.integration.outages import AGENTS, PATIENCE, Talk

MEGABYTES = 48


@pytest.fixture
def disk() -> Iterator[Path]:
    """A small filesystem, where one can be mounted."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a filesystem")
    # Not pytest's own folder: Postgres runs as nobody here, who must get there.
    folder = Path(tempfile.mkdtemp(prefix="perdure-disk-", dir="/tmp"))
    folder.chmod(0o755)
    command = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m,mode=0755", "tmpfs", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode != 0:
        folder.rmdir()
        pytest.skip(f"no filesystem can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def _write_on_and_on(file: FileIO) -> None:
    while True:
        file.write(bytes(4096))


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Somebody else's file takes all the room that is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space") as full:
        _write_on_and_on(file)
    assert full.value.errno == errno.ENOSPC
    try:
        yield
    finally:
        filler.unlink()


def _give_to_nobody(folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)


@asynccontextmanager
async def database_on(disk: Path, postgres: PostgresServer) -> AsyncIterator[str]:
    """A database whose tables are on the disk; the server's own files are not, and it stays up."""
    space = disk / "space"
    space.mkdir()
    _give_to_nobody(space)
    admin = await asyncpg.connect(postgres.url)
    try:
        await admin.execute(f"CREATE TABLESPACE small LOCATION '{space}'")
        await admin.execute("CREATE DATABASE on_small_disk TABLESPACE small")
        yield postgres.url_of("on_small_disk")
        await postgres.drop_database("on_small_disk")
        await admin.execute("DROP TABLESPACE small")
    finally:
        await admin.close()


@pytest_asyncio.fixture(params=["sqlite", "postgres"])
async def world(
    request: pytest.FixtureRequest,
    temporal: TemporalServer,
    postgres: PostgresServer,
    disk: Path,
    tmp_path: Path,
) -> AsyncIterator[World]:
    """Its database is on the small disk, and nothing else."""
    async with AsyncExitStack() as stack:
        url = f"sqlite:///{disk / 'perdure.db'}"
        if request.param == "postgres":
            url = await stack.enter_async_context(database_on(disk, postgres))
        store = await SessionStore.open(url, f"file://{tmp_path}", migrate=True)
        stack.push_async_callback(store.close)
        yield await stack.enter_async_context(open_world(temporal.address, store, AGENTS))


def noise(size: int) -> str:
    """A text that no database makes any smaller."""
    return random.Random(size).randbytes(size // 2).hex()


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder that is not on the small disk, where nobody gets to."""
    with tempfile.TemporaryDirectory(prefix="perdure-journal-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@asynccontextmanager
async def journal_on(disk: Path, elsewhere: Path) -> AsyncIterator[PostgresServer]:
    """A Postgres whose journal, and nothing else, is on the disk; and none of it is ever thrown away."""
    server = PostgresServer(elsewhere / "cluster", fsync=False)
    await server.start()
    try:
        admin = await asyncpg.connect(server.url)
        await admin.execute("SELECT pg_create_physical_replication_slot('nobody_reads_it', true)")
        await admin.close()
        await server.stop()
        journal = elsewhere / "cluster" / "data" / "pg_wal"
        shutil.move(journal, disk / "journal")
        _give_to_nobody(disk / "journal")
        journal.symlink_to(disk / "journal")
        await server.start()
        yield server
    finally:
        await server.stop()


async def _keep_much(talk: Talk) -> None:
    """As much as there is room for: where what is large finds none any more, what is small still may."""
    for size in (100_000, 10_000, 1_000):
        with pytest.raises(StorageUnavailable, match="its disk is full: make room"):
            await _keep_so_much(talk, size)


async def _keep_so_much(talk: Talk, size: int) -> None:
    for number in range(100):
        key = f"k{size}.{number}"
        await talk.store.update(talk.key, request_id=key, state={key: noise(size)})


async def test_s59_a_turn_waits_until_there_is_room(world: World, disk: Path) -> None:
    talk = Talk(world)
    await talk.goes_on("m0")
    said = f"{talk.mark} {noise(30_000)}"
    with filled(disk):
        await _keep_much(talk)
        world.gemini.script(say("there you are"), contains=talk.mark)
        turn = talk.send(said, "m1")

        async def says_so() -> bool:
            why = (await world.runner.status(talk.key)).held_up
            return why is not None and "its disk is full: make room" in why.message

        await until(says_so, within=PATIENCE)
        assert not turn.done()
    answer = await turn
    assert (answer.status, answer.text) == ("answered", "there you are")
    ids = [one for one in await talk.ids() if one.startswith("m")]
    assert ids == ["m0:user", "m0:m1", "m1:user", "m1:m1"]
    assert len(talk.asked()) == 2
    await talk.goes_on("m2")


async def _keep_on(talk: Talk, kept: list[str]) -> None:
    while True:
        request_id = f"k{len(kept)}"
        await talk.store.update(
            talk.key, request_id=request_id, state={"noise": noise(1_000_000 + len(kept))}
        )
        kept.append(request_id)


async def test_s59_the_journal_of_postgres_finds_no_room(
    temporal: TemporalServer, disk: Path, elsewhere: Path, tmp_path: Path
) -> None:
    """Then the server ends itself, and does not come back before there is room."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(journal_on(disk, elsewhere))
        url = await server.create_database("journal")
        store = await SessionStore.open(url, f"file://{tmp_path}", migrate=True)
        stack.push_async_callback(store.close)
        world = await stack.enter_async_context(open_world(temporal.address, store, AGENTS))
        talk = Talk(world)
        await talk.goes_on("m0")
        world.gemini.script(say("there you are"), contains=f"{talk.mark} again")
        kept: list[str] = []
        with filled(disk):
            with pytest.raises(StorageUnavailable):
                await _keep_on(talk, kept)
            turn = talk.send(f"{talk.mark} again", "m1")

            async def held_up() -> bool:
                return (await world.runner.status(talk.key)).held_up is not None

            await until(held_up, within=PATIENCE)
            assert not turn.done()
        assert "No space left on device" in server.log.read_text(errors="replace")
        await server.restart()
        answer = await turn
        assert (answer.status, answer.text) == ("answered", "there you are")
        ids = await talk.ids()
        assert [one for one in ids if one.startswith("m")] == ["m0:user", "m0:m1", "m1:user", "m1:m1"]
        assert len(ids) - 4 in (len(kept), len(kept) + 1), "what was acknowledged is there"
        await talk.goes_on("m2")
