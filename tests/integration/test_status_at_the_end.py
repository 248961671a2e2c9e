"""What ``status`` says of a run that closes while it is asked: what is so, or a typed error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowQueryRejectedError

from gateway import runner as runners
from gateway.held_up import Work, status_of, work_of
from perdure.errors import SessionNotFound
from perdure.testing import call, say
from perdure.types import SessionKey
from tests.integration.agents import gate
from tests.integration.harness import World
from workflows.messages import Status


@pytest.fixture(autouse=True)
def _fresh_gate() -> None:
    gate.reset()


@asynccontextmanager
async def a_running_turn(world: World) -> AsyncIterator[SessionKey]:
    """A session with a turn that is held in its tool."""
    key = world.key("tester")
    world.gemini.script(call("wait_at_gate", label="m1"), say("went through"))
    turn = asyncio.create_task(world.runner.ask(key, "hold", message_id="m1"))
    await gate.held()
    yield key
    gate.open.set()
    await asyncio.gather(turn, return_exceptions=True)


async def test_of_a_run_that_was_terminated_nothing_is_told_as_if_it_went_on(sqlite_world: World) -> None:
    async with a_running_turn(sqlite_world) as key:
        assert (await sqlite_world.runner.status(key)).doing == "tool wait_at_gate"
        await sqlite_world.handle(key).terminate()
        with pytest.raises(SessionNotFound, match=f"no workflow of session {key} is open"):
            await sqlite_world.runner.status(key)
        with pytest.raises(SessionNotFound):
            await sqlite_world.runner.waiting(key)


async def test_a_run_that_closes_between_the_two_questions_is_told_as_it_was(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def closed_first(client: Client, workflow_id: str, status: Status) -> Work:
        await client.get_workflow_handle(workflow_id).terminate()
        return await work_of(client, workflow_id, status)

    monkeypatch.setattr(runners, "work_of", closed_first)
    async with a_running_turn(sqlite_world) as key:
        work = await sqlite_world.runner.status(key)
        assert (work.doing, work.held_up) == ("tool wait_at_gate", None)


async def test_a_deleted_session_has_no_status_and_an_ended_one_says_so(sqlite_world: World) -> None:
    key = sqlite_world.key("tester")
    sqlite_world.gemini.script(say("hello"))
    await sqlite_world.runner.ask(key, "hi")
    await sqlite_world.runner.end(key)
    await sqlite_world.handle(key).result()
    assert (await sqlite_world.runner.status(key)).status == "ended"
    sqlite_world.gemini.script(say("hello"))
    await sqlite_world.runner.ask(key, "again", reopen=True)
    await sqlite_world.runner.delete(key)
    with pytest.raises(SessionNotFound):
        await sqlite_world.runner.status(key)


async def test_where_a_run_has_handed_over_meanwhile_the_next_one_is_asked() -> None:
    said: list[Any] = [
        WorkflowQueryRejectedError(WorkflowExecutionStatus.CONTINUED_AS_NEW),
        Status(status="open", turns=7),
    ]

    class Handle:
        async def query(self, *_: Any, **__: Any) -> Any:
            told = said.pop(0)
            if isinstance(told, Exception):
                raise told
            return told

    class Temporal:
        def get_workflow_handle(self, workflow_id: str) -> Handle:
            return Handle()

    key = SessionKey(app="tester", user_id="ada", session_id="s1")
    status = await status_of(Temporal(), key)  # type: ignore[arg-type]  # all that is asked of it
    assert status.turns == 7
