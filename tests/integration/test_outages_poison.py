"""A session that cannot go on holds up no other, says why, and can be rewound, ended and deleted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio.client import WorkflowUpdateFailedError

from activities import runtime
from activities.failures import perdure_error
from embedded.stack import environment_of
from embedded.temporal import TemporalServer
from gateway.runner import Runner, connect
from perdure import Agent
from perdure.errors import InternalError, SessionEnded, SessionNotFound
from perdure.settings import Settings
from perdure.testing import StandIn, call, say
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.integration.attempts import more_attempts
from tests.integration.crashes import ForkedWorker
from tests.integration.harness import World, open_world, until
from tests.integration.outages import AGENTS, PATIENCE, Talk

NEEDY = Agent(name="needy", instruction="Speak to {name}.")


@pytest_asyncio.fixture(scope="module", autouse=True)
async def deadly(
    temporal: TemporalServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[asyncio.Task[None]]:
    """It plays beside the other tests: that a worker is dead is noticed after ten seconds, twice."""
    task = asyncio.create_task(ends_its_worker_each_time(temporal, tmp_path_factory.mktemp("deadly")))
    yield task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest_asyncio.fixture
async def world(
    temporal: TemporalServer, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    """On each database; it reads what it is asked for anew, and gives up soon what nobody foresaw."""
    monkeypatch.setattr(runtime, "UNFORESEEN_TRIES", 3)
    settings = Settings(_env_file=None, context_cache=0)
    async with open_world(temporal.address, store, [*AGENTS, NEEDY], settings=settings) as world:
        yield world


async def damage(talk: Talk, event_id: str, content: str) -> None:
    """As a hand slip in psql, or a bad block, would."""
    key = talk.key
    statement = (
        f"UPDATE events SET content = '{content}' WHERE app = '{key.app}' AND user_id = '{key.user_id}' "
        f"AND session_id = '{key.session_id}' AND event_id = '{event_id}'"
    )
    done = await talk.store._db.write(lambda conn: conn.exec_driver_sql(statement))
    assert done.rowcount == 1


async def damaged(world: World, content: str) -> Talk:
    """A session of three turns, the second of which cannot be read."""
    talk = Talk(world)
    for message_id in ("m1", "m2", "m3"):
        await talk.goes_on(message_id)
    await damage(talk, "m2:m1", content)
    return talk


@pytest.mark.parametrize("content", ['"a text"', '[{"text": "a list"}]'])
async def test_a_log_that_cannot_be_read(world: World, content: str) -> None:
    poison, calm = await damaged(world, content), [Talk(world) for _ in range(3)]
    turn = poison.ask("m4")
    for message_id in ("m1", "m2"):
        await asyncio.gather(*(talk.goes_on(message_id) for talk in calm))
    answer = await turn
    assert answer.status == "failed"
    assert answer.failure is not None
    assert answer.failure.type == "InternalError"
    assert poison.key.workflow_id in answer.failure.message
    status = await world.runner.status(poison.key)
    assert (status.status, status.last_error) == ("error", answer.failure)
    assert (await poison.again("m4")).failure == answer.failure, "sent again, it is told the same"
    assert len(poison.asked()) == 3
    await world.runner.rewind(poison.key, "m2")
    await poison.goes_on("m5")
    for talk in calm:
        await talk.exact("m1", "m2", models=2)


async def test_a_damaged_session_can_be_ended_and_deleted(world: World) -> None:
    ended, deleted = await damaged(world, '"a text"'), await damaged(world, '"a text"')
    turns = [ended.ask("m4"), deleted.ask("m4")]

    async def under_way() -> bool:
        statuses = [await world.runner.status(talk.key) for talk in (ended, deleted)]
        # It may be over already: it is given up within seconds.
        return all(status.invocation_id == "m4" or status.status == "error" for status in statuses)

    await until(under_way, within=PATIENCE)
    assert (await world.runner.end(ended.key)).ended_at is not None
    with pytest.raises(SessionEnded):
        await ended.ask("m5")
    assert await world.runner.delete(deleted.key)
    with pytest.raises(SessionNotFound):
        await world.store.get(deleted.key)
    await asyncio.gather(*turns, return_exceptions=True)
    assert turns[0].result().status == "failed"
    await deleted.goes_on("m1")


async def test_what_is_asked_of_a_row_that_cannot_be_read_is_refused(world: World) -> None:
    """A rewind that would need it; the session goes on otherwise."""
    talk = Talk(world)
    await talk.goes_on("m1")
    key = talk.key
    where = f"app = '{key.app}' AND user_id = '{key.user_id}' AND id = '{key.session_id}'"
    spoil = f"UPDATE sessions SET projection = '[[\"a\", {{}}]]' WHERE {where}"
    mend = f"UPDATE sessions SET projection = '[[1, null]]' WHERE {where}"
    await talk.store._db.write(lambda conn: conn.exec_driver_sql(spoil))
    with pytest.raises(WorkflowUpdateFailedError) as refused:
        await world.handle(key).execute_update("rewind", {"before": "m1"}, id="r1")
    assert isinstance(perdure_error(refused.value.cause), InternalError)
    await talk.store._db.write(lambda conn: conn.exec_driver_sql(mend))
    await talk.goes_on("m2")


async def test_an_instruction_that_cannot_be_rendered(world: World) -> None:
    needy, calm = Talk(world, app="needy"), Talk(world)
    answers = await asyncio.gather(needy.ask("m1"), calm.ask("m1"))
    assert [answer.status for answer in answers] == ["failed", "answered"]
    assert answers[0].failure is not None
    assert answers[0].failure.type == "InvalidInstruction"
    assert (await world.runner.status(needy.key)).last_error == answers[0].failure
    await world.store.update(needy.key, request_id="u1", state={"name": "Ada"})
    await needy.goes_on("m2")


async def ends_its_worker_each_time(temporal: TemporalServer, tmp_path: Path) -> None:
    """Others on the worker wait for the next one, and are answered; the tool is tried no more than it may."""
    async with StandIn() as gemini, contextlib.AsyncExitStack() as cleaning:
        settings = Settings(
            _env_file=None,
            database_url=f"sqlite:///{tmp_path / 'p.db'}",
            artifacts_url=f"file://{tmp_path}",
            temporal_address=temporal.address,
            task_queue=f"deadly-{tmp_path.name}",
            agents=(str(Path(__file__).with_name("outage_agents.py")),),
            model_base_url=gemini.url,
        )
        store = await SessionStore.open(settings.database_url, settings.artifacts_url, migrate=True)
        cleaning.push_async_callback(store.close)
        runner = Runner(await connect(settings), store, task_queue=settings.task_queue)
        worker = ForkedWorker(environment_of(settings), tmp_path / "worker.log")
        cleaning.push_async_callback(worker.kill)
        deaths = 0

        async def supervise() -> None:
            nonlocal deaths
            while True:
                worker.start()
                code = await worker.wait()
                assert code == 139, (tmp_path / "worker.log").read_text()[-3000:]
                deaths += 1

        supervising = asyncio.create_task(supervise())

        async def give_up() -> None:
            supervising.cancel()
            await asyncio.gather(supervising, return_exceptions=True)

        cleaning.push_async_callback(give_up)
        tries = tmp_path / "tries.txt"
        poison = SessionKey(app="deadly", user_id="u", session_id=tmp_path.name)
        gemini.script(call("die", path=str(tries)), say("it was not to be"), contains="die")
        turn = asyncio.create_task(runner.ask(poison, "die", message_id="m1"))
        talks = 0
        while not turn.done():
            key = SessionKey(app="calm", user_id="u", session_id=f"s{talks % 3}")
            assert (await runner.ask(key, f"number {talks}")).status == "answered"
            talks += 1
            await asyncio.wait([turn], timeout=0.5)
        assert (await turn).text == "it was not to be"
        assert deaths == 2
        assert len(set(tries.read_text().split())) == 1
        event = await store.event(poison, "m1:t1.0")
        assert event is not None
        assert "The worker died in each of 2 tries" in str(event.content)
        # A model call that was in flight when the worker died, or was taken for dead, was asked for again.
        keys = [
            poison,
            *(SessionKey(app="calm", user_id="u", session_id=f"s{n}") for n in range(min(talks, 3))),
        ]
        more = sum([await more_attempts(runner.client, key.workflow_id) for key in keys])
        assert talks + 2 <= len(gemini.model_calls()) <= talks + 2 + more


async def test_a_tool_that_ends_its_worker_each_time(deadly: asyncio.Task[None]) -> None:
    await deadly
