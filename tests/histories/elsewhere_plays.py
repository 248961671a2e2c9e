"""The session that is recorded of tools that run on other task queues."""

from __future__ import annotations

from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from perdure import Agent, tool
from perdure.testing import call, say
from tests.histories.play import Play

__all__ = ["PAINTER", "elsewhere"]


@tool(task_queue="paint", activity="paint")
def paint(scene: str) -> dict[str, Any]:
    """An activity of another worker."""
    raise AssertionError("it runs elsewhere")


@tool(task_queue="nobody", activity="paint", start_timeout=0.1)
def neglected(scene: str) -> dict[str, Any]:
    """One that nobody begins."""
    raise AssertionError("it runs nowhere")


@tool(task_queue="nobody", start_timeout=0.1)
def forsaken(scene: str) -> str:
    """Nobody begins this one either."""
    raise AssertionError("it runs nowhere")


PAINTER = Agent(name="painter", tools=[paint, neglected, forsaken])


@activity.defn(name="paint")
async def _paint(given: dict[str, Any]) -> dict[str, str]:
    if given["arguments"]["scene"] == "night":
        raise ApplicationError("no light", type="TooDark")
    return {"url": given["arguments"]["scene"]}


async def elsewhere(play: Play) -> None:
    """A result and an error, beside each other; and two that nobody begins."""
    script = play.world.gemini.script
    client = await Client.connect(play.world.client.service_client.config.target_host)
    async with Worker(client, task_queue="paint", activities=[_paint]):
        script([call("paint", scene="day"), call("paint", scene="night")], say("one"))
        await play.ask("paint", "m1")
    script([call("neglected", scene="day"), call("forsaken", scene="day")], say("two"))
    await play.ask("paint", "m2")
