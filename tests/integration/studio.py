"""An agent whose tools run on other queues, and the worker of somebody else that runs some of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker

from embedded.temporal import TemporalServer
from perdure import Agent, Limits, Tool, ToolContext, tool

__all__ = ["AGENT", "AGENTS", "GPU", "START", "Studio", "foreign", "go_on", "lingers", "ran_on"]

GPU = "gpu"
START = 15
"""Seconds in which a call is begun that is to be lost afterwards: a worker may stand still meanwhile."""
ran_on: list[str] = []
"""The task queues on which ``embed`` has run."""
lingers, go_on = threading.Event(), threading.Event()
"""``linger`` has begun; it may come to its end."""


@tool(task_queue=GPU)
def embed(text: str, context: ToolContext) -> int:
    """Its own queue, our own worker."""
    ran_on.append(activity.info().task_queue)
    context.state["embedded"] = text
    return len(text)


@tool(task_queue=GPU)
def linger(text: str, context: ToolContext) -> str:
    """It does not look whether it is cancelled."""
    context.state["lingered"] = text
    lingers.set()
    go_on.wait()
    return text


@tool(task_queue=GPU, start_timeout=START)
def linger_briefly(text: str) -> str:
    """The same; and nobody takes it over."""
    lingers.set()
    go_on.wait()
    return text


@tool
async def quit_early(text: str) -> str:
    """It gives up by the wrong error."""
    raise asyncio.CancelledError("had enough")


@tool(task_queue="nobody", start_timeout=0.2)
def neglected(text: str) -> str:
    """Nobody serves its queue, and it says how long it waits."""
    raise AssertionError("it runs nowhere")


@tool(task_queue="nobody-for-ever")
def forsaken(text: str) -> str:
    """Nobody serves its queue, and it waits."""
    raise AssertionError("it runs nowhere")


@tool(task_queue="foreign", activity="render", retries=1, heartbeat_timeout=60, timeout=120)
def render(scene: str, width: int = 640) -> dict[str, Any]:
    """An activity of another worker."""
    raise AssertionError("it runs elsewhere")


@tool(task_queue="foreign", activity="render", retries=1, heartbeat_timeout=1)
def render_watched(scene: str) -> dict[str, Any]:
    """It is soon missed when it says nothing."""
    raise AssertionError("it runs elsewhere")


@tool(task_queue="foreign", activity="render", retries=2, timeout=1)
def render_briefly(scene: str) -> dict[str, Any]:
    """It has little time."""
    raise AssertionError("it runs elsewhere")


@tool(task_queue="foreign", activity="render", heartbeat_timeout=60)
def render_once(scene: str) -> dict[str, Any]:
    """It is not run again when it has failed."""
    raise AssertionError("it runs elsewhere")


@tool(task_queue="foreign", activity="render", heartbeat_timeout=60, start_timeout=START)
def render_lost(scene: str) -> dict[str, Any]:
    """Nobody takes it over."""
    raise AssertionError("it runs elsewhere")


@tool(task_queue="fragile", activity="render", heartbeat_timeout=2)
def render_fragile(scene: str) -> dict[str, Any]:
    """Its worker is killed."""
    raise AssertionError("it runs elsewhere")


@tool(task_queue="foreign", activity="render", confirm=True)
def render_dear(scene: str) -> dict[str, Any]:
    """The same, once a person said yes."""
    raise AssertionError("it runs elsewhere")


@tool(task_queue="foreign-unserved", activity="render", start_timeout=0.2)
def render_nowhere(scene: str) -> dict[str, Any]:
    """An activity that no worker has."""
    raise AssertionError("it runs nowhere")


RENDER: list[Tool] = [
    render,
    render_briefly,
    render_dear,
    render_lost,
    render_nowhere,
    render_once,
    render_watched,
]
TOOLS: list[Tool] = [embed, linger, linger_briefly, quit_early, neglected, forsaken, *RENDER]
AGENT = Agent(name="painter", tools=TOOLS, limits=Limits(tool_attempts=2))
# More lives than it needs: before it is killed, its worker may be taken for dead where it only stands still.
SCULPTOR = Agent(name="sculptor", tools=[render_fragile], limits=Limits(tool_attempts=20))
AGENTS = [AGENT, SCULPTOR]


class Studio:
    """The activity ``render``, as somebody else would write it: plain JSON in and out."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []
        self.running = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.endless = True
        self.release = asyncio.Event()
        self.answers: dict[str, Any] = {}
        self.errors: dict[str, Exception] = {
            "breaks": ApplicationError("no light", type="TooDark"),
            "breaks for good": ApplicationError("no lamp", type="NoLamp", non_retryable=True),
            "rants": ApplicationError('"' * 1_500_000, type="Rant"),
        }

    @activity.defn
    async def render(self, given: dict[str, Any]) -> Any:
        self.asked.append(given)
        self.running.set()
        scene = given["arguments"]["scene"]
        if scene in self.errors:
            raise self.errors[scene]
        if scene == "endless" and self.endless:
            await self._endless()
        if scene == "silent":
            await asyncio.Event().wait()
        if scene == "stubborn":
            await self._stubborn()
        return self.answers.get(scene, {"url": f"https://pictures/{scene}"})

    async def _stubborn(self) -> None:
        """It hears of a cancel, and goes on."""
        while not self.release.is_set():
            activity.heartbeat()
            try:
                await asyncio.sleep(0.05)
            except asyncio.CancelledError:
                self.cancelled.set()

    async def _endless(self) -> None:
        try:
            while True:
                activity.heartbeat()
                await asyncio.sleep(0.05)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


@asynccontextmanager
async def foreign(temporal: TemporalServer, studio: Studio) -> AsyncIterator[None]:
    """A worker that knows nothing of Perdure: no converter, no settings, no database."""
    client = await Client.connect(temporal.address)
    async with Worker(
        client,
        task_queue="foreign",
        activities=[studio.render],
        max_heartbeat_throttle_interval=timedelta(seconds=0.1),
    ):
        yield
