"""Whatever is killed, and whenever: one user event, one event a model step, one a tool call, and a reply.

The crash points have a test of their own, ``test_crash_matrix.py``. Here are the deaths that
it has no point for, and those in the middle of something else.

A killed worker's activity is started again once its heartbeats have been missing for ten
seconds. So the scenes play beside each other, from the first test on, and each test waits
for its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from temporalio.client import Client
from temporalio.service import RPCError

from activities.conversion import data_converter
from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from gateway.runner import Answer
from perdure.testing import StandIn
from storage.sessions import SessionStore
from tests.integration.crashes import STARTED_IN, Scene, Stage

AT_ONCE = 14
"""Scenes at a time: enough to wait for heartbeats together, few enough for two cores."""

TURN = ["m1:user", "m1:m1", "m1:t1.0", "m1:m2"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A place to die, and what the death may cost."""

    name: str
    play: Callable[[Scene], Awaitable[None]]
    point: str | None = None
    app: str = "crasher"
    command: bool = False


async def turn_is_exact(scene: Scene, *, models: int, tries: int) -> None:
    """The turn that was interrupted, and one more, left exactly what they should."""
    assert await scene.ids() == TURN
    assert await scene.state() == {"n": 1}
    assert await scene.versions() == [1]
    assert (await scene.store.load_artifact(scene.key, "work.txt"))[1] == b"worked 1"
    spare = await scene.spare()
    assert models <= len(scene.asked()) <= models + spare, "model calls"
    assert tries <= len(scene.tries()) <= tries + spare, "tries of the tool"
    assert len(set(scene.tries())) == 1, "all under one idempotency key"
    again = await scene.say("work", "m2")
    assert again.status == "answered"
    assert await scene.state() == {"n": 2}
    assert await scene.versions() == [1, 2], "no version was lost"


async def killed_during_the_model_call(scene: Scene) -> None:
    scene.gemini.hang(contains=scene.mark)
    turn = scene.say("work", "m1")
    await scene.model_is_asked(1)
    await scene.killed_and_started_again()
    assert (await turn).status == "answered"
    await turn_is_exact(scene, models=3, tries=1)


async def killed_during_the_second_model_call(scene: Scene) -> None:
    scene.gemini.slow(0, contains=scene.mark)
    scene.gemini.hang(contains=scene.mark)
    turn = scene.say("work", "m1")
    await scene.model_is_asked(2)
    await scene.killed_and_started_again()
    assert (await turn).status == "answered"
    await turn_is_exact(scene, models=3, tries=1)


async def killed_during_the_tool(scene: Scene) -> None:
    turn = scene.say("hold", "m1")
    await scene.tool_is_held()
    await scene.killed_and_started_again()
    assert (await turn).status == "answered"
    await turn_is_exact(scene, models=2, tries=2)


async def cancelled_while_no_worker_lives(scene: Scene) -> None:
    # If it takes long, the tool is tried again before the workflow hears of the cancel.
    turn = scene.say("linger", "m1")
    await scene.tool_is_held()
    await scene.worker.kill()
    await scene.runner.cancel(scene.key)
    await scene.start()
    assert (await turn).status == "cancelled"
    assert await scene.ids() == ["m1:user", "m1:m1", "m1:end"]
    assert (await scene.state(), await scene.versions()) == ({}, [])
    assert (await scene.say("work", "m2")).status == "answered"
    assert await scene.state() == {"n": 1}


def dies_in_a_compaction(*, summaries: int) -> Callable[[Scene], Awaitable[None]]:
    async def play(scene: Scene) -> None:
        assert (await scene.say("work", "m1")).status == "answered"
        await scene.dies_and_starts_again()
        await compaction_is_exact(scene, summaries)

    return play


async def killed_during_the_summary(scene: Scene) -> None:
    scene.gemini.hang(kind="summarise", contains=scene.mark)
    assert (await scene.say("work", "m1")).status == "answered"
    await scene.gemini.wait(lambda: bool(scene.asked("summarise")), "the summariser to be asked", STARTED_IN)
    await scene.killed_and_started_again()
    await compaction_is_exact(scene, 2)


async def compaction_is_exact(scene: Scene, summaries: int) -> None:
    """One summary, of the whole turn, after all of it; and the session goes on from it."""
    await scene.settled()
    assert await scene.ids() == [*TURN, "m1:compact"]
    spare = await scene.spare()
    assert summaries <= len(scene.asked("summarise")) <= summaries + spare
    asked = len(scene.asked())
    assert 2 <= asked <= 2 + spare
    assert await scene.state() == {"n": 1}
    assert (await scene.say("work", "m2")).status == "answered"
    first = scene.asked()[asked]
    assert len(first.contents) == 2, "one summary and the new message"


async def dies_while_a_result_is_put_away(scene: Scene) -> None:
    turn = scene.say("fill", "m1")
    await scene.dies_and_starts_again()
    assert (await turn).status == "answered"
    assert await scene.ids() == TURN
    spare, tries = await scene.spare(), len(scene.tries())
    assert 2 <= len(scene.asked()) <= 2 + spare
    assert 2 <= tries <= 2 + spare
    [listed] = await scene.store.list_artifacts(scene.key)
    assert (listed.name, listed.version) == ("results/m1-1.0.txt", 1)
    put_away = (await scene.store.load_artifact(scene.key, listed.name))[1].decode()
    said = put_away[: len("try 2 ")]
    assert put_away == said * 10_000, "of one try"
    assert said in [f"try {n} " for n in range(2, tries + 1)], "that of the worker that died is not listed"
    event = await scene.store.event(scene.key, "m1:t1.0")
    assert event is not None
    assert said in str(event.content), "with the words of the same try"


async def dies_in_a_rewind_of_the_running_turn(scene: Scene) -> None:
    # If it takes long, the tool is tried again before the workflow hears of the rewind.
    turn = scene.say("linger", "m1")
    await scene.tool_is_held()
    rewind = asyncio.create_task(scene.runner.rewind(scene.key, "m1", request_id="r1"))
    await scene.dies_and_starts_again()
    ack = await rewind
    assert (await turn).status == "cancelled"
    log = await scene.store.log(scene.key)
    assert [event.id for event in log] == ["m1:user", "m1:m1", "m1:end", "r1:rewind"]
    assert [event.id for event in log if event.live] == ["r1:rewind"]
    assert log[-1].seq == ack.seq
    assert (await scene.state(), await scene.versions()) == ({}, [])
    assert (await scene.say("work", "m2")).status == "answered"
    assert await scene.state() == {"n": 1}


CASES = [
    Case(
        name="rewind.after_commit in a turn",
        point="rewind.after_commit",
        play=dies_in_a_rewind_of_the_running_turn,
    ),
    Case(name="the model call", play=killed_during_the_model_call, command=True),
    Case(name="the second model call", play=killed_during_the_second_model_call),
    Case(name="the tool", play=killed_during_the_tool),
    Case(name="a cancel while dead", play=cancelled_while_no_worker_lives),
    Case(
        name="a large result is put away",
        point="stage_artifact.after_commit",
        play=dies_while_a_result_is_put_away,
    ),
    Case(
        name="a compaction behind the reply, before its commit",
        point="compaction.before_commit",
        app="summed",
        play=dies_in_a_compaction(summaries=2),
    ),
    Case(
        name="a compaction behind the reply, after its commit",
        point="compaction.after_commit",
        app="summed",
        play=dies_in_a_compaction(summaries=1),
    ),
    Case(name="the summary", app="summed", play=killed_during_the_summary),
]


@pytest_asyncio.fixture(scope="module")
async def gemini() -> AsyncIterator[StandIn]:
    async with StandIn() as stand_in:
        yield stand_in


async def open_stage(address: str, database_url: str, gemini: StandIn, folder: Path) -> Stage:
    artifacts_url = f"file://{folder / 'artifacts'}"
    return Stage(
        client=await Client.connect(address, data_converter=data_converter),
        address=address,
        store=await SessionStore.open(database_url, artifacts_url, migrate=True),
        database_url=database_url,
        artifacts_url=artifacts_url,
        gemini=gemini,
        folder=folder,
    )


@asynccontextmanager
async def held_turn(
    address: str, database_url: str, gemini: StandIn, folder: Path
) -> AsyncIterator[tuple[Stage, Scene, asyncio.Task[Answer]]]:
    """A scene on a stage of its own, with a turn whose model call hangs until it is released."""
    stage = await open_stage(address, database_url, gemini, folder)
    async with Scene(stage) as scene:
        gemini.hang(contains=scene.mark)
        turn = scene.say("work", "m1")
        await scene.model_is_asked(1)
        yield stage, scene, turn
    await stage.store.close()


@pytest_asyncio.fixture(scope="module")
async def played(
    request: pytest.FixtureRequest,
    temporal: TemporalServer,
    postgres: PostgresServer,
    gemini: StandIn,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[dict[tuple[str, str], asyncio.Task[None]]]:
    """The scenes whose tests were asked for, playing; by database and name."""
    folder = tmp_path_factory.mktemp("crashes")
    urls = {
        "sqlite": f"sqlite:///{folder / 'perdure.db'}",
        "postgres": await postgres.create_database("crashes"),
    }
    stages = {
        database: await open_stage(temporal.address, url, gemini, folder) for database, url in urls.items()
    }
    room = asyncio.Semaphore(AT_ONCE)

    async def play(stage: Stage, case: Case) -> None:
        async with room, Scene(stage, app=case.app, point=case.point, command=case.command) as scene:
            await case.play(scene)

    wanted = sorted(asked_for(request.session.items), key=lambda asked: CASES.index(asked[1]))
    tasks = {
        (database, case.name): asyncio.create_task(play(stages[database], case)) for database, case in wanted
    }
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    for stage in stages.values():
        await stage.store.close()


def asked_for(items: list[pytest.Item]) -> Iterator[tuple[str, Case]]:
    """What this run of pytest will ask for."""
    for item in items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if isinstance(params.get("case"), Case):
            yield params["database"], params["case"]


@pytest.mark.usefixtures("played")
async def test_s59_temporal_dies_during_a_turn(gemini: StandIn, tmp_path: Path) -> None:
    async with TemporalServer(tmp_path / "temporal") as temporal:
        url = f"sqlite:///{tmp_path / 'perdure.db'}"
        async with held_turn(temporal.address, url, gemini, tmp_path) as (_, scene, turn):
            await temporal.kill()
            gemini.release()
            await scene.model_has_answered(1)
            await temporal.start()
            # The caller may have been cut off, and asks again under the same id.
            answers = await asyncio.gather(turn, scene.say("work", "m1"), return_exceptions=True)
            assert getattr(answers[1], "status", None) == "answered", answers
            assert isinstance(answers[0], RPCError) or answers[0] == answers[1]
            await turn_is_exact(scene, models=2, tries=1)
            assert scene.worker.running, "a worker outlives the server it polls"


@pytest.mark.usefixtures("played")
async def test_s59_postgres_dies_during_a_model_call(
    temporal: TemporalServer, gemini: StandIn, tmp_path: Path
) -> None:
    async with (
        PostgresServer(fsync=False) as postgres,
        held_turn(temporal.address, postgres.url, gemini, tmp_path) as (_, scene, turn),
    ):
        await postgres.kill()
        await postgres.start()
        gemini.release()
        assert (await turn).status == "answered"
        await turn_is_exact(scene, models=2, tries=1)


@pytest.mark.usefixtures("played")
async def test_s59_postgres_dies_in_the_middle_of_a_commit(
    temporal: TemporalServer, gemini: StandIn, tmp_path: Path
) -> None:
    async with (
        PostgresServer(fsync=False) as postgres,
        held_turn(temporal.address, postgres.url, gemini, tmp_path) as (stage, scene, turn),
    ):
        keeper = await asyncpg.connect(postgres.url)
        await keeper.execute("BEGIN; LOCK TABLE events IN EXCLUSIVE MODE")
        gemini.release()
        await scene.waits_for_a_lock(postgres.url)
        await postgres.kill()
        await postgres.start()
        assert (await turn).status == "answered"
        await turn_is_exact(scene, models=2, tries=1)
        history = await stage.client.get_workflow_handle(scene.key.workflow_id).fetch_history()
        seen = b"".join(event.SerializeToString() for event in history.events)
        assert b"functionCall" not in seen, "what could not be written stays out of the error"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_s58_the_worker_dies_at(
    played: dict[tuple[str, str], asyncio.Task[None]], database: str, case: Case
) -> None:
    await played[database, case.name]
