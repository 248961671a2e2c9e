"""What the outage tests share: agents whose tools are held, and one conversation that counts what it cost."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict

from gateway.runner import Answer
from perdure import Agent, Limits, ToolContext, tool
from perdure.testing import Request, call, say
from perdure.types import JsonObject, SessionKey
from storage.sessions import SessionStore
from tests.integration.harness import PATIENCE, World, until

__all__ = ["AGENTS", "APP", "HASTY", "PATIENCE", "Gate", "Talk", "gate"]

APP = "outages"
HASTY = "hasty"
"""An agent that waits for its model no longer than a second."""

_numbers = itertools.count(1)


class Gate:
    """Holds the tools of sessions, each by its mark, and notes their tries."""

    def __init__(self) -> None:
        self.tries: dict[str, list[str]] = defaultdict(list)
        self._held: dict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def enter(self, mark: str, key: str) -> None:
        """A tool is tried, and waits until its gate is open."""
        self.tries[mark].append(key)
        await self._held[mark].wait()

    def open(self, mark: str) -> None:
        """Let the tools of a session pass from now on."""
        self._held[mark].set()


gate = Gate()


@tool
async def hold(mark: str, context: ToolContext) -> str:
    """Count, and wait at the gate.

    Args:
        mark: whose gate.
    """
    context.state["n"] = int(context.state.get("n", 0)) + 1
    await gate.enter(mark, context.idempotency_key)
    return f"held {mark}"


@tool
async def work(mark: str, context: ToolContext) -> str:
    """Count.

    Args:
        mark: whose work.
    """
    context.state["n"] = int(context.state.get("n", 0)) + 1
    gate.tries[mark].append(context.idempotency_key)
    return f"worked {mark}"


@tool
async def keep(mark: str, context: ToolContext) -> int:
    """Save a file.

    Args:
        mark: what is in it.
    """
    gate.tries[mark].append(context.idempotency_key)
    return await context.save_artifact("kept.txt", f"kept {mark}")


keep_briefly = tool(keep, name="keep_briefly", timeout=20)
"""The same, or give up: an object store's client tries for minutes."""


@tool
async def keep_later(mark: str, context: ToolContext) -> int:
    """Wait at the gate, and save a file.

    Args:
        mark: what is in it.
    """
    await gate.enter(mark, context.idempotency_key)
    return await context.save_artifact("kept.txt", f"kept {mark}")


@tool
async def fill(mark: str) -> str:
    """Return more than a prompt holds.

    Args:
        mark: whose.
    """
    gate.tries[mark].append("")
    return f"{mark} " * 400


AGENTS = [
    Agent(
        name=APP,
        instruction="Use your tools.",
        tools=[hold, work, keep, keep_briefly, keep_later, fill],
        limits=Limits(
            model_timeout=200, model_attempts=3, tool_attempts=2, tool_timeout=200, result_chars=1_000
        ),
    ),
    Agent(
        name=HASTY,
        instruction="Use your tools.",
        tools=[work],
        # More tries than faults: on a busy machine a second is not always enough for a good answer. One that
        # comes too late is lost, so no script is for this agent: see :meth:`Talk.work`.
        limits=Limits(model_timeout=1, model_attempts=20),
    ),
]


class Talk:
    """A session of :data:`APP`.

    Args:
        world: where it runs.
        store: to look at it past what is broken; None is the world's own.
        longer: so many characters longer is each of its messages and answers.
    """

    def __init__(
        self, world: World, store: SessionStore | None = None, app: str = APP, *, longer: int = 0
    ) -> None:
        self.mark = f"mark{next(_numbers)}x"
        self.world = world
        self.store = store or world.store
        self.longer = longer
        self.key = SessionKey(app=app, user_id=f"user-{self.mark}", session_id=self.mark)

    def says(self, message_id: str) -> str:
        """The text of a message."""
        return f"{self.mark} {message_id}." + "z" * self.longer

    def script(self, message_id: str, *tools: str) -> None:
        """The model answers a message with calls of these tools, in one step, and then in words."""
        calls: list[JsonObject] = [call(name, mark=self.mark) for name in tools]
        steps = [calls] if calls else []
        self.world.gemini.script(
            *steps, say(f"answer {self.says(message_id)}"), contains=self.says(message_id)
        )

    def ask(self, message_id: str, *tools: str) -> asyncio.Task[Answer]:
        """Send a message that makes the model call these tools."""
        self.script(message_id, *tools)
        return self.again(message_id)

    def work(self, message_id: str) -> asyncio.Task[Answer]:
        """Send a message that makes the model call ``work``, however often it is asked."""
        return self.send(f"Work on '{self.mark}'.", message_id)

    def again(self, message_id: str) -> asyncio.Task[Answer]:
        """Send a message once more."""
        return self.send(self.says(message_id), message_id)

    def send(self, text: str, message_id: str) -> asyncio.Task[Answer]:
        """Send a message of any text."""
        return asyncio.create_task(self.world.runner.ask(self.key, text, message_id=message_id))

    async def held(self, tries: int = 1) -> None:
        """A tool waits at the gate."""

        async def entered() -> bool:
            return len(gate.tries[self.mark]) >= tries

        await until(entered, within=PATIENCE)

    def let_go(self) -> None:
        """Open the gate."""
        gate.open(self.mark)

    def asked(self) -> list[Request]:
        """What the model was asked in this session."""
        return [request for request in self.world.gemini.requests if self.mark in request.last_user_text]

    async def ids(self) -> list[str]:
        """The whole log, by event ids."""
        return [event.id for event in await self.store.log(self.key)]

    async def exact(self, *turns: str, models: int, tries: int | None = None, n: int | None = None) -> None:
        """The log is these turns and nothing else, at this cost.

        Args:
            turns: each ``message`` or ``message:calls``, with the number of calls of its one step.
            models: calls of the model, in all.
            tries: of tools, in all.
            n: what the tools counted.
        """
        expected: list[str] = []
        for turn in turns:
            name, _, calls = turn.partition(":")
            expected += [f"{name}:user", f"{name}:m1"]
            if calls:
                expected += [*(f"{name}:t1.{index}" for index in range(int(calls))), f"{name}:m2"]
        assert await self.ids() == expected
        assert len(self.asked()) == models, "model calls"
        if tries is not None:
            assert len(gate.tries[self.mark]) == tries, "tries of tools"
        if n is not None:
            assert (await self.store.get(self.key, max_events=0)).state == {"n": n}

    async def goes_on(self, message_id: str) -> None:
        """One more turn is as any other."""
        answer = await self.ask(message_id)
        assert (answer.status, answer.text) == ("answered", f"answer {self.says(message_id)}")
