"""Retention as a workflow and a Temporal Schedule, over real sessions."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio.client import WorkflowExecutionStatus

from cli import retention as cli
from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from examples import counter
from gateway import retention
from perdure.errors import InvalidOption, SessionNotFound
from perdure.testing import call, say
from perdure.types import SessionKey
from storage.schema import sessions
from storage.sessions import SessionStore
from tests.integration.agents import AGENTS, gate
from tests.integration.harness import World, open_world, until

DAY = timedelta(days=1)


@pytest.fixture(params=["sqlite", "postgres"])
def server(request: pytest.FixtureRequest) -> PostgresServer | None:
    """Where the database is made; None for a file."""
    found = request.getfixturevalue("postgres") if request.param == "postgres" else None
    assert found is None or isinstance(found, PostgresServer)
    return found


@pytest_asyncio.fixture
async def own_world(
    server: PostgresServer | None, temporal: TemporalServer, tmp_path: Path
) -> AsyncIterator[World]:
    """A database of its own: retention looks at all there is."""
    url = f"sqlite:///{tmp_path / 'perdure.db'}"
    if server is not None:
        url = await server.create_database(f"r{uuid.uuid4().hex[:8]}")
    store = await SessionStore.open(url, f"file://{tmp_path / 'artifacts'}", migrate=True)
    try:
        async with open_world(temporal.address, store, [counter.agent, *AGENTS]) as opened:
            yield opened
    finally:
        await store.close()


async def age(world: World, key: SessionKey, days: int) -> None:
    """Let the session's last change be so long ago."""

    async def work(conn: AsyncConnection) -> None:
        then = datetime.now(UTC) - timedelta(days=days)
        await conn.execute(update(sessions).where(sessions.c.id == key.session_id).values(updated_at=then))

    await world.store._db.write(work)


async def talk(world: World, days: int) -> SessionKey:
    key = world.key()
    await world.runner.ask(key, "hello")
    await world.runner.save_artifact(key, "f.txt", key.session_id.encode(), "text/plain")
    await age(world, key, days)
    return key


async def status(world: World, key: SessionKey) -> WorkflowExecutionStatus | None:
    return (await world.handle(key).describe()).status


async def exists(world: World, key: SessionKey) -> bool:
    try:
        await world.store.get(key, max_events=0)
    except SessionNotFound:
        return False
    return True


async def test_s50_s22_a_run_deletes_what_expired_and_closes_its_workflows(own_world: World) -> None:
    world = own_world
    old, older, young = await talk(world, 31), await talk(world, 90), await talk(world, 29)
    queue = world.settings.task_queue
    done = await retention.run_now(world.client, queue, days=30)
    assert (done.deleted, done.kept) == (2, 0)
    assert abs(datetime.now(UTC) - 30 * DAY - done.before) < timedelta(minutes=2)
    for key in (old, older):
        assert not await exists(world, key)
        assert await status(world, key) is WorkflowExecutionStatus.TERMINATED
    assert await status(world, young) is WorkflowExecutionStatus.RUNNING
    assert (await world.store.load_artifact(young, "f.txt"))[1] == young.session_id.encode()
    blobs = world.store._blobs
    left = [len(await blobs.keys(prefix)) for prefix in await blobs.prefixes()]
    assert sum(left) == 1, "the young one's"
    assert (await retention.run_now(world.client, queue, days=30)).deleted == 0
    answer = await world.runner.ask(old, "hello again")
    assert answer.status == "answered", "the id is free for a session of its own"
    assert len((await world.session(old)).events) == 2


async def test_s50_a_session_with_a_turn_under_way_stays(own_world: World) -> None:
    world = own_world
    key = world.key("tester")
    gate.reset()
    world.gemini.script(call("wait_at_gate", label="held"), say("done"))
    await world.runner.message(key, "wait")
    await gate.held()
    await age(world, key, 90)
    done = await retention.run_now(world.client, world.settings.task_queue, days=30)
    assert done.deleted == 0
    gate.open.set()

    async def answered() -> bool:
        return (await world.runner.status(key)).turns == 1

    await until(answered)
    assert (await world.session(key)).events[-1].text == "done"


async def test_s50_a_schedule_is_made_changed_triggered_and_removed(own_world: World) -> None:
    world = own_world
    client, queue = world.client, world.settings.task_queue
    assert await retention.plan(client, queue) is None
    assert not await retention.unschedule(client, queue)
    await retention.schedule(client, queue, days=90, every=timedelta(hours=24))
    await retention.schedule(client, queue, days=30, every=timedelta(hours=6))
    try:
        plan = await retention.plan(client, queue)
        assert plan is not None
        assert (plan.days, plan.every, plan.paused, plan.runs) == (30, timedelta(hours=6), False, 0)
        key = await talk(world, 31)
        await client.get_schedule_handle(retention.schedule_id(queue)).trigger()

        async def gone() -> bool:
            return not await exists(world, key)

        await until(gone)

        async def closed() -> bool:
            return await status(world, key) is WorkflowExecutionStatus.TERMINATED

        await until(closed)
    finally:
        assert await retention.unschedule(client, queue)
    assert await retention.plan(client, queue) is None


async def test_s50_the_command_sets_shows_runs_and_removes(
    own_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    world = own_world
    settings = world.settings.model_copy(
        update={"temporal_address": world.client.service_client.config.target_host}
    )
    await cli._set(settings, 30, 6)
    await cli._show(settings)
    said = capsys.readouterr().out
    assert said.count("sessions go 30 days after their last change; looked at every 6 hours") == 2
    assert "next: 20" in said
    key = await talk(world, 31)
    await cli._run(settings, None)
    said = capsys.readouterr().out
    assert ": 1 deleted, 0 kept" in said
    assert not await exists(world, key)
    await cli._off(settings)
    await cli._off(settings)
    await cli._show(settings)
    said = capsys.readouterr().out
    assert said.splitlines() == [
        "the schedule is removed: nothing is deleted by itself",
        "there is no schedule",
        "no schedule: nothing is deleted by itself",
    ]
    with pytest.raises(InvalidOption, match="give --days"):
        await cli._run(settings, None)
