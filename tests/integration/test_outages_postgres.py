"""Postgres is killed, cut off, read-only, full: a session waits, and nothing is lost or doubled."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import event as listening
from sqlalchemy.ext.asyncio import AsyncEngine

from activities import tool_artifacts
from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from gateway.runner import Answer
from perdure.errors import StorageUnavailable
from storage.sessions import SessionStore
from tests.integration.harness import World, open_world, until
from tests.integration.outages import AGENTS, PATIENCE, Talk
from tests.integration.proxy import Proxy


@dataclass(kw_only=True)
class Stage:
    """A worker whose way to Postgres leads through a proxy."""

    world: World
    proxy: Proxy
    server: PostgresServer
    url: str
    direct: SessionStore
    """Not through the proxy."""
    errors: list[str] = field(default_factory=list)
    """What the worker's database said."""

    def talk(self) -> Talk:
        return Talk(self.world, self.direct)

    @asynccontextmanager
    async def sql(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await asyncpg.connect(self.url)
        try:
            yield connection
        finally:
            await connection.close()

    async def fails(self, words: str, times: int = 1) -> None:
        """The worker meets this error of the database, so many times from now on."""
        before = len(self.errors)

        async def met() -> bool:
            return sum(words in error for error in self.errors[before:]) >= times

        await until(met, within=PATIENCE)


@pytest_asyncio.fixture(scope="module")
async def stage(temporal: TemporalServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with PostgresServer(fsync=False) as server, Proxy(server.port) as proxy:
        url = await server.create_database("outages")
        artifacts = f"file://{tmp_path_factory.mktemp('outages')}"
        direct = await SessionStore.open(url, artifacts, migrate=True)
        store = await SessionStore.open(proxy.url(url), artifacts)
        async with open_world(temporal.address, store, AGENTS) as world:
            stage = Stage(world=world, proxy=proxy, server=server, url=url, direct=direct)
            listening.listen(
                store._db.engine.sync_engine,
                "handle_error",
                lambda context: stage.errors.append(str(context.original_exception)),
            )
            yield stage
        await store.close()
        await direct.close()


async def test_s59_postgres_is_killed_while_tools_run(stage: Stage) -> None:
    talks = [stage.talk() for _ in range(4)]
    turns = [talk.ask("m1", "hold") for talk in talks]
    await asyncio.gather(*(talk.held() for talk in talks))
    await stage.server.kill()
    late = stage.talk()
    turns.append(late.ask("m1"))
    for talk in talks:
        talk.let_go()
    before = stage.proxy.refused
    await until(lambda: _more(stage.proxy, before + 5), within=PATIENCE)
    await stage.server.start()
    assert [answer.status for answer in await asyncio.gather(*turns)] == ["answered"] * 5
    for talk in talks:
        await talk.exact("m1:1", models=2, tries=1, n=1)
        await talk.goes_on("m2")
    await late.exact("m1", models=1)


async def test_s59_a_tool_that_saves_while_postgres_is_away_runs_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that is away is no error of the tool's: the model is not told of it."""
    monkeypatch.setattr(tool_artifacts, "STORAGE_TRIES", 1)
    talk = stage.talk()
    turn = talk.ask("m1", "keep_later")
    await talk.held()
    await stage.server.kill()
    before = stage.proxy.refused
    talk.let_go()
    await until(lambda: _more(stage.proxy, before + 3), within=PATIENCE)
    await stage.server.start()
    assert (await turn).status == "answered"
    await talk.exact("m1:1", models=2, tries=2)
    [kept] = await talk.store.list_artifacts(talk.key)
    assert (kept.name, kept.version) == ("kept.txt", 1)
    response = await talk.store.event(talk.key, "m1:t1.0")
    assert response is not None
    assert response.error is None


async def _more(proxy: Proxy, count: int) -> bool:
    return proxy.refused >= count


@pytest.mark.parametrize("after", [0, 9])
@pytest.mark.parametrize("tool", ["work", "keep"])
async def test_s59_the_answer_to_a_commit_is_lost(stage: Stage, tool: str, after: int) -> None:
    """It was done, and nobody knows: every transaction of a turn in turn, by what stands in it."""
    talk = stage.talk()
    commits: dict[str, list[tuple[str, ...]]] = {
        "work": [(f"worked {talk.mark}",)],
        "keep": [("kept.txt", "COMMIT"), ("functionResponse", "COMMIT")],
    }
    wanted: list[tuple[str, ...]] = [
        (talk.says("m1"),),
        ("functionCall",),
        *commits[tool],
        (f"answer {talk.mark}",),
    ]
    turns: list[asyncio.Task[Answer]] = []
    for markers in wanted:
        stage.proxy.cut_the_answer_to(*(marker.encode() for marker in markers), after=after)
        turns = turns or [talk.ask("m1", tool)]
        await asyncio.wait_for(stage.proxy.happened.wait(), PATIENCE)
    await turns[0]
    await talk.exact("m1:1", models=2, tries=1)
    if tool == "keep":
        [row] = await talk.store.artifact_versions(talk.key, "kept.txt")
        assert row.version == 1
    await talk.goes_on("m2")


@pytest.mark.parametrize("after", [0, 1, 5, 20, 60])
async def test_s59_a_connection_is_cut_after_some_bytes(stage: Stage, after: int) -> None:
    """Of whatever is answered next: a beginning, a snapshot, a commit."""
    talk = stage.talk()
    turn = talk.ask("m1", "work", "keep")
    for _ in range(3):
        stage.proxy.cut_the_answer_to(b"", after=after)
        await asyncio.wait(
            [asyncio.create_task(stage.proxy.happened.wait()), turn], return_when="FIRST_COMPLETED"
        )
    assert (await turn).status == "answered"
    stage.proxy.cut_the_answer_to(b"no such request")
    await talk.exact("m1:2", models=2, tries=2, n=1)
    await talk.goes_on("m2")


async def test_s59_a_backend_is_terminated_during_an_append(stage: Stage) -> None:
    talk = stage.talk()
    turn = talk.ask("m1", "hold")
    await talk.held()
    terminated = """
        SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND application_name = 'perdure' LIMIT 1
    """
    async with stage.sql() as keeper, keeper.transaction():
        await keeper.execute("LOCK TABLE events IN EXCLUSIVE MODE")
        talk.let_go()
        assert await until(lambda: keeper.fetchval(terminated), within=PATIENCE)
    assert (await turn).status == "answered"
    await talk.exact("m1:1", models=2, tries=1, n=1)


async def test_s59_a_tool_that_could_not_begin_was_not_tried(stage: Stage) -> None:
    """Attempts that never got as far as the tool do not count against its limit, which is two."""
    talk = stage.talk()
    before = stage.proxy.refused
    stage.proxy.go_down_after_the_answer_to(b"functionCall")
    turn = talk.ask("m1", "work")
    await until(lambda: _more(stage.proxy, before + 3), within=PATIENCE)
    assert not turn.done()
    stage.proxy.up()
    assert (await turn).status == "answered"
    await talk.exact("m1:1", models=2, tries=1, n=1)


@asynccontextmanager
async def read_only(stage: Stage) -> AsyncIterator[None]:
    """As after a fail-over, or where somebody has stopped all writes."""
    async with stage.sql() as admin:
        await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await _reload(admin, "on")
        yield
        await admin.execute("SET default_transaction_read_only = off")
        await admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
        await admin.execute("RESET default_transaction_read_only")
        await _reload(admin, "off")


async def _reload(admin: asyncpg.Connection, value: str) -> None:
    await admin.execute("SELECT pg_reload_conf()")

    async def took() -> bool:
        return bool(await admin.fetchval("SHOW default_transaction_read_only") == value)

    await until(took, within=PATIENCE)


@asynccontextmanager
async def disk_full(stage: Stage) -> AsyncIterator[None]:
    """No event finds room any more. A trigger says what PostgreSQL says when it cannot extend a file."""
    async with stage.sql() as admin:
        await admin.execute(
            """
            CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                RAISE EXCEPTION 'could not extend file "base/1/2": No space left on device'
                USING ERRCODE = 'disk_full', HINT = 'Check free disk space.';
            END $$;
            CREATE TRIGGER full_disk BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION full_disk();
            """
        )
        yield
        await admin.execute("DROP FUNCTION full_disk CASCADE")


OUTAGES = {
    "read-only": (read_only, "read-only transaction", "read-only"),
    "full": (disk_full, "No space left on device", "disk is full"),
}


@pytest.mark.parametrize("name", OUTAGES)
async def test_s59_what_cannot_be_written_now_waits(stage: Stage, name: str) -> None:
    outage, words, said = OUTAGES[name]
    held, asking, late = stage.talk(), stage.talk(), stage.talk()
    await asking.goes_on("m0")
    turns = [held.ask("m1", "hold")]
    await held.held()
    stage.world.gemini.hang(contains=asking.mark)
    turns.append(asking.ask("m1"))
    await stage.world.gemini.wait(lambda: len(asking.asked()) == 2, "the model to be asked", PATIENCE)
    async with outage(stage):
        held.let_go()
        stage.world.gemini.release()
        turns.append(late.ask("m1"))
        await stage.fails(words, times=5)
        with pytest.raises(StorageUnavailable, match=said):
            await stage.world.store.update(asking.key, request_id="u1", state={"x": 1})
        assert await asking.ids() == ["m0:user", "m0:m1", "m1:user"], "what is there can be read"
        assert not any(turn.done() for turn in turns)
    assert [answer.status for answer in await asyncio.gather(*turns)] == ["answered"] * 3
    await held.exact("m1:1", models=2, tries=1, n=1)
    await asking.exact("m0", "m1", models=2)
    await late.exact("m1", models=1)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="the system has no such option")
async def test_a_server_that_vanishes_with_its_machine_is_noticed(stage: Stage) -> None:
    """Nobody would end the connection: without these a turn would wait for a quarter of an hour."""
    engine = stage.world.store._db.engine
    assert isinstance(engine, AsyncEngine)
    async with engine.connect() as connection:
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        line = driver._transport.get_extra_info("socket")
        assert line.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert line.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 60_000
