"""The sessions that are recorded of messages that come while a turn runs, and by the clock."""

from __future__ import annotations

from collections.abc import Callable

from perdure.testing import call, say
from tests.histories.play import Play
from tests.integration.agents import gate
from tests.integration.harness import until
from workflows.messages import Status

__all__ = ["called_off", "interrupting", "joined", "joining", "scheduled"]


async def joining(play: Play) -> None:
    """Messages that join a turn, one that cannot, and one that is left for a turn of its own."""
    runner = play.world.runner
    first = await play.held("m1")
    for message_id in ("m2", "m3"):
        await runner.message(play.key, message_id, message_id=message_id, during="join")
    await _status(play, lambda status: status.queued == 2)
    gate.open.set()
    await first
    await play.ask("m2", "m2")
    second = await play.held("m4")
    await runner.message(play.key, "m1 again", message_id="m1", during="join")
    await runner.message(play.key, "m5", message_id="m5", during="join")
    await _status(play, lambda status: status.queued == 2)
    gate.open.set()
    await second
    third = await play.held("m6")
    await runner.message(play.key, "m7", message_id="m7", during="join")
    await _status(play, lambda status: status.queued == 1)
    await runner.cancel(play.key)
    await third
    gate.open.set()
    await play.ask("m7", "m7")


async def called_off(play: Play) -> None:
    """Messages that are cancelled while they wait for their turn: one new, one that was answered before."""
    runner = play.world.runner
    play.world.gemini.script(say("zero"))
    await play.ask("m0", "m0")
    first = await play.held("m1")
    for message_id in ("m2", "m0"):
        await runner.message(play.key, message_id, message_id=message_id)
    await _status(play, lambda status: status.queued == 2)
    for message_id in ("m2", "m0", "never-was"):
        await runner.cancel(play.key, message_id)
    gate.open.set()
    await first
    assert await play.ask("m2", "m2") == "cancelled"


async def interrupting(play: Play) -> None:
    """A message that interrupts a turn, and the same again, which interrupts no other."""
    runner = play.world.runner
    first = await play.held("m1")
    await runner.message(play.key, "m2", message_id="m2")
    await runner.message(play.key, "m3", message_id="m3", during="interrupt")
    await first
    await play.ask("m2", "m2")
    play.world.gemini.clear()
    second = await play.held("m4")
    await runner.message(play.key, "m3", message_id="m3", during="interrupt")
    await _status(play, lambda status: status.queued == 1)
    gate.open.set()
    await second
    await play.ask("m3", "m3")


async def joined(play: Play) -> None:
    """A turn that waits, which two messages are to join, carried into the next run."""
    runner = play.world.runner
    play.world.gemini.script(
        call("wait_for_event", name="go"), call("transfer", to="ann", amount=5), say("done")
    )
    await play.ask("pay", "m1")
    await runner.message(play.key, "m2", message_id="m2", during="join")
    await runner.notify(play.key, "go", notification_id="go")
    await _status(play, lambda status: list(status.joined) == ["m2"] and status.status == "waiting")
    await runner.message(play.key, "m3", message_id="m3", during="join")
    first = (await play.handle.describe()).run_id
    for n in range(80):
        await runner.notify(play.key, f"early-{n % 3}", n, notification_id=f"n{n}")

    async def renewed() -> bool:
        return (await play.handle.describe()).run_id != first

    await until(renewed)
    for message_id in ("m2", "m3"):
        answer = await runner.ask(play.key, message_id, message_id=message_id, during="join")
        assert (answer.status, answer.invocation_id) == ("waiting", "m1")
    await runner.approve(play.key, "m1:t2.0")
    for message_id in ("m1", "m2", "m3"):
        text = "pay" if message_id == "m1" else message_id
        answer = await runner.ask(play.key, text, message_id=message_id)
        assert (answer.text, answer.invocation_id) == ("done", "m1")


async def scheduled(play: Play) -> None:
    """A delivery by the clock."""
    await play.world.runner.schedule(play.key, "0 9 * * *", "Report.", schedule_id="daily")
    await play.world.client.get_schedule_handle(f"perdure-schedule/{play.key}/daily").trigger()
    query = f"WorkflowType = 'ScheduledMessage' AND TaskQueue = '{play.world.settings.task_queue}'"

    async def listed() -> list[str]:
        found = [each async for each in play.world.client.list_workflows(query)]
        return [each.id for each in found if each.close_time is not None]

    [play.workflow_id] = await until(listed)


async def _status(play: Play, wanted: Callable[[Status], bool]) -> None:
    """The session's status is as wanted."""

    async def looked() -> bool:
        return wanted(await play.world.runner.status(play.key))

    await until(looked)
