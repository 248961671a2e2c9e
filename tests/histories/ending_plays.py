"""The sessions that are recorded of how a session ends, or never begins."""

from __future__ import annotations

from gateway.retention import run_now
from perdure.errors import SessionNotFound, UnknownAgent
from perdure.testing import say
from tests.histories.play import Play
from tests.integration.agents import gate
from tests.integration.harness import until

__all__ = ["deleted", "end", "refused", "reopened", "retention", "stopped"]


async def end(play: Play) -> None:
    """A turn, an artifact from outside, and the end: the workflow closes."""
    play.world.gemini.script(say("one"))
    await play.ask("hello", "m1")
    await play.world.runner.save_artifact(play.key, "a.txt", b"a", "text/plain")
    await play.world.runner.end(play.key, request_id="e1")
    await play.closed()


async def reopened(play: Play) -> None:
    """An end as a signal, and the workflow of a message that opens the session again."""
    play.world.gemini.script(say("one"))
    await play.ask("hello", "m1")
    await play.handle.signal("end", {"request_id": "e1"})
    await play.closed()
    play.world.gemini.script(say("two"), say("three"))
    await play.world.runner.ask(play.key, "wake up", message_id="m2", reopen=True)
    await play.ask("hello again", "m3")


async def refused(play: Play) -> None:
    """A session of an agent that nobody serves: the workflow closes, having done nothing."""
    try:
        await play.ask("hello", "m1")
    except UnknownAgent:
        return
    raise AssertionError("there is no agent of that name")


async def stopped(play: Play) -> None:
    """A workflow that an operator cancels during a turn, with another message waiting."""
    turn = await play.held("m1")
    await play.world.runner.message(play.key, "never taken", message_id="m2")
    await play.handle.cancel()
    await turn
    gate.open.set()
    await play.closed()


async def deleted(play: Play) -> None:
    """A session that is deleted in the store during a turn: the workflow closes."""
    turn = await play.held("m1")
    await play.world.store.delete(play.key)
    gate.open.set()
    try:
        await turn
    except SessionNotFound:
        await play.closed()
        return
    raise AssertionError("the session is gone")


async def retention(play: Play) -> None:
    """A cleaning that finds one session to delete."""
    await play.ask("hello", "m1")
    await run_now(play.world.client, play.world.settings.task_queue, days=0)
    query = f"WorkflowType = 'Retention' AND TaskQueue = '{play.world.settings.task_queue}'"

    async def listed() -> list[str]:
        return [found.id async for found in play.world.client.list_workflows(query)]

    [play.workflow_id] = await until(listed)
