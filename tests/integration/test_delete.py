"""``Runner.delete``: the session goes with its workflow, whatever either of them was doing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import WorkflowExecutionStatus

from cli import sessions as cli
from cli import users as users_cli
from gateway import closing
from gateway.runner import Runner
from perdure.errors import Busy, SessionNotFound
from perdure.testing import call, say
from perdure.types import SessionKey
from storage.blob_keys import prefix_of
from storage.schema import artifacts, events, sessions, state
from storage.session_row import lock
from tests.integration.agents import gate
from tests.integration.harness import World, until


@pytest.fixture(autouse=True)
def _fresh_gate() -> None:
    gate.reset()


pytestmark = pytest.mark.usefixtures("time_to_close")


async def rows(world: World, key: SessionKey) -> int:
    """How many rows the database has of the session, in all tables."""

    async def work(conn: AsyncConnection) -> int:
        count = 0
        for table, column in (
            (sessions, sessions.c.id),
            (events, events.c.session_id),
            (state, state.c.session_id),
            (artifacts, artifacts.c.session_id),
        ):
            query = select(func.count()).select_from(table)
            mine = (table.c.app == key.app, table.c.user_id == key.user_id, column == key.session_id)
            count += (await conn.execute(query.where(*mine))).scalar_one()
        return count

    return await world.store._db.read(work)


async def status(world: World, key: SessionKey) -> WorkflowExecutionStatus | None:
    return (await world.handle(key).describe()).status


async def pending(world: World, key: SessionKey) -> Sequence[PendingActivityInfo]:
    """The activities of the session's workflow that are under way, or will be tried again."""
    return (await world.handle(key).describe()).raw_description.pending_activities


async def talked(world: World) -> SessionKey:
    """A session with a log, state, metadata and a file."""
    key = world.key("tester")
    world.gemini.script(call("add", name="n"), say("one"))
    await world.runner.ask(key, "count", message_id="m1")
    await world.runner.save_artifact(key, "f.txt", key.session_id.encode(), "text/plain")
    await world.store.update(key, request_id="u1", metadata={"colour": "red"})
    return key


async def held_turn(world: World, key: SessionKey, message_id: str) -> asyncio.Task[object]:
    """A turn that is held in its tool."""
    world.gemini.script(call("wait_at_gate", label=message_id), say("went through"))
    task: asyncio.Task[object] = asyncio.create_task(world.runner.ask(key, "hold", message_id=message_id))
    await gate.held()
    return task


async def answers_as_new(world: World, key: SessionKey) -> None:
    """The id is free: a message begins a session with nothing of the old one in it."""
    world.gemini.clear()
    world.gemini.script(call("add", name="n"), say("anew"))
    answer = await world.runner.ask(key, "hello again", message_id="m1")
    assert answer.text == "anew"
    session = await world.session(key)
    assert session.state == {"n": 1}
    assert session.metadata == {}
    assert [event.id for event in session.events] == ["m1:user", "m1:m1", "m1:t1.0", "m1:m2"]
    assert await world.store.list_artifacts(key) == []
    first = world.gemini.model_calls()[-2]
    assert [content["parts"][0].get("text") for content in first.contents] == ["hello again"]


async def test_s22_a_delete_takes_everything_and_closes_the_workflow(world: World) -> None:
    key = await talked(world)
    assert await world.runner.delete(key)
    assert await rows(world, key) == 0
    assert await world.store._blobs.keys(prefix_of(key)) == []
    assert await status(world, key) is WorkflowExecutionStatus.CANCELED
    with pytest.raises(SessionNotFound):
        await world.store.get(key)
    await answers_as_new(world, key)


async def test_s22_twice_is_the_same_as_once(world: World) -> None:
    key = await talked(world)
    assert await world.runner.delete(key)
    assert not await world.runner.delete(key)
    assert not await world.runner.delete(world.key()), "a session that never was"
    assert await rows(world, key) == 0


async def test_s22_two_deletes_at_once(world: World) -> None:
    key = await talked(world)
    done = await asyncio.gather(world.runner.delete(key), world.runner.delete(key))
    assert any(done)
    assert await rows(world, key) == 0
    await answers_as_new(world, key)


async def test_s22_an_ended_session_is_deleted(world: World) -> None:
    key = await talked(world)
    await world.runner.end(key)
    assert await world.runner.delete(key)
    assert await rows(world, key) == 0
    await answers_as_new(world, key)


async def test_s22_a_delete_that_died_halfway_is_finished_by_another(sqlite_world: World) -> None:
    world = sqlite_world
    rows_only, workflow_only = await talked(world), await talked(world)
    assert await closing.close_workflow(world.client, rows_only)  # died before the rows
    await world.store.delete(workflow_only)  # as somebody does it who has no Temporal
    for key in (rows_only, workflow_only):
        assert await world.runner.delete(key)
        assert await rows(world, key) == 0
        assert await status(world, key) is WorkflowExecutionStatus.CANCELED
        await answers_as_new(world, key)


async def test_s22_blobs_that_another_session_names_stay(world: World) -> None:
    key = await talked(world)
    other = SessionKey(app=key.app, user_id=key.user_id, session_id=f"{key.session_id}-b")
    await world.store.fork(key, other.session_id)
    await world.runner.delete(key)
    assert (await world.store.load_artifact(other, "f.txt"))[1] == key.session_id.encode()
    await world.runner.delete(other)
    assert await world.store._blobs.keys(prefix_of(key)) == []


async def test_s23_while_a_tool_is_running(world: World) -> None:
    key = await talked(world)
    epoch = (await world.session(key)).epoch
    task = await held_turn(world, key, "m2")
    assert await world.runner.delete(key)
    gate.open.set()
    assert getattr(await task, "status", None) == "cancelled", "who waited is told"
    assert await status(world, key) is WorkflowExecutionStatus.CANCELED
    assert await rows(world, key) == 0
    await answers_as_new(world, key)
    assert (await world.session(key)).epoch > epoch, "what is left of the old turn cannot write"


@pytest.mark.parametrize("first", [True, False], ids=["first turn", "later turn"])
async def test_s23_while_a_model_call_is_running(world: World, first: bool) -> None:
    key = world.key("tester") if first else await talked(world)
    before = len(world.gemini.requests)
    world.gemini.hang(contains="hold")
    task = asyncio.create_task(world.runner.ask(key, "hold", message_id="m2"))
    await world.gemini.wait_for_requests(before + 1)
    assert await world.runner.delete(key)
    assert (await task).status == "cancelled"
    assert await status(world, key) is WorkflowExecutionStatus.CANCELED
    assert await rows(world, key) == 0, "the end marker of a first turn does not make the session anew"
    await answers_as_new(world, key)


async def test_s23_while_the_first_model_call_is_between_two_tries(world: World) -> None:
    """Its next try would begin the turn, and so the session, once more."""
    key = world.key("tester")
    world.gemini.fail(503, retry_after=60, contains="try")
    before = len(world.gemini.requests)
    task = asyncio.create_task(world.runner.ask(key, "try", message_id="m2"))
    await world.gemini.wait_for_requests(before + 1)

    async def waits_to_try_again() -> bool:
        return any(activity.attempt == 2 for activity in await pending(world, key))

    await until(waits_to_try_again)
    assert await world.runner.delete(key)
    assert (await task).status == "cancelled"
    assert await rows(world, key) == 0
    await answers_as_new(world, key)


async def test_s23_while_messages_are_queued(world: World) -> None:
    key = await talked(world)
    task = await held_turn(world, key, "m2")
    asked = [asyncio.create_task(world.runner.ask(key, "later", message_id=f"a{n}")) for n in range(2)]
    for n in range(3):
        await world.runner.message(key, "later", message_id=f"s{n}")

    async def queued() -> bool:
        return (await world.runner.status(key)).queued == 5

    await until(queued)
    ending = asyncio.create_task(world.runner.end(key))

    async def ending_too() -> bool:
        return (await world.runner.status(key)).queued == 6

    await until(ending_too)
    assert await world.runner.delete(key)
    gate.open.set()
    assert [(await each).status for each in asked] == ["cancelled", "cancelled"]
    assert getattr(await task, "status", None) == "cancelled"
    with pytest.raises(Busy, match="cancelled before the session could end"):
        await ending
    assert await status(world, key) is WorkflowExecutionStatus.CANCELED
    assert await rows(world, key) == 0
    await answers_as_new(world, key)


@pytest.mark.parametrize("store", ["postgres"], indirect=True)  # SQLite's work cannot be held from here
async def test_s23_while_the_session_is_being_ended(world: World) -> None:
    """The activity that ends it waits for the session's row, and is cancelled there."""
    key = await talked(world)
    locked, let_go = asyncio.Event(), asyncio.Event()

    async def hold(conn: AsyncConnection) -> None:
        await lock(conn, key)
        locked.set()
        await let_go.wait()

    holding = asyncio.create_task(world.store._db.write(hold))
    await locked.wait()
    ending = asyncio.create_task(world.runner.end(key))
    await until(lambda: pending(world, key))  # the workflow is there since the talk
    deleting = asyncio.create_task(world.runner.delete(key))
    with pytest.raises(Exception, match="cancel"):
        await ending
    let_go.set()
    await holding
    assert await deleting
    assert await status(world, key) is WorkflowExecutionStatus.CANCELED
    assert await rows(world, key) == 0


async def test_s22_a_workflow_that_no_worker_serves_is_terminated(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = sqlite_world
    monkeypatch.setattr(closing.close_workflow, "__kwdefaults__", {"within": 0.2})
    key = world.key("tester")
    nobody = Runner(world.client, world.store, task_queue="nobody-polls-this")
    await nobody.message(key, "hello")
    assert await nobody.delete(key)
    assert await status(world, key) is WorkflowExecutionStatus.TERMINATED


async def test_s22_the_command_deletes(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    one, two, never = await talked(world), await talked(world), world.key()
    await cli.delete_all(world.runner, [one, never], json=False)
    said = capsys.readouterr().out
    assert said.splitlines() == [f"{one} is deleted.", f"{never}: there is no such session."]
    await cli.delete_all(world.runner, [one, two], json=True)
    assert json.loads(capsys.readouterr().out) == {"deleted": [str(two)]}
    assert await rows(world, one) == await rows(world, two) == 0


async def test_s22_a_user_goes_with_all_sessions_and_what_they_shared(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also the session whose turn runs, and the one that was deleted before."""
    key = await talked(world)
    other = replace(key, user_id=f"{key.user_id} other")
    for mine in (key, other):
        await world.store.create(replace(mine, session_id="more"), state={"user:likes": "red"})
        await world.store.remember(mine if mine is key else replace(mine, session_id="more"))
    before = replace(key, session_id="before")
    await world.store.create(before)
    await world.store.remember(before)
    await world.runner.delete(before)
    running = replace(key, session_id="running")
    turn = await held_turn(world, running, "m1")
    for told in ({"sessions": 3, "remembered": 2}, {"sessions": 0, "remembered": 0}):
        await users_cli.delete_user(world.runner, key.app, key.user_id, json=True)
        assert json.loads(capsys.readouterr().out) == told
    assert isinstance((await asyncio.gather(turn, return_exceptions=True))[0], object)
    assert (await world.store.list_sessions(key.app, key.user_id)).sessions == []
    assert await status(world, running) is WorkflowExecutionStatus.CANCELED
    assert await world.store._blobs.keys(prefix_of(key)) == []
    [left] = (await world.store.list_sessions(key.app, other.user_id)).sessions
    assert (await world.store.get(left.key)).state == {"user:likes": "red"}
    await answers_as_new(world, key)


async def test_s22_a_user_of_whom_the_store_has_nothing_yet(world: World) -> None:
    """A message waits for its turn, which has not begun."""
    key = world.key("tester")
    world.gemini.hang()
    await world.runner.message(key, "red", message_id="m1")
    await world.gemini.wait_in_flight()
    await world.store.delete(key)

    async def is_listed() -> bool:
        return await world.runner._open_workflows(key.app, key.user_id) == [key]

    await until(is_listed)
    await world.runner.delete_user(key.app, key.user_id)
    assert await status(world, key) is WorkflowExecutionStatus.CANCELED
    world.gemini.release()
