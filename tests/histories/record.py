"""Records the histories that ``tests/integration/test_replay.py`` replays in every run.

    python -m tests.histories.record              # all of them
    python -m tests.histories.record text cancel  # some

Run it when the workflow's commands were changed on purpose, before a release. Histories of
a release stay as they are for as long as sessions of that release may be running: a later
workflow has to replay them, so what it adds is recorded beside them.

It starts a dev server, a worker and the stand-in, and plays one session for each kind of
turn. What tells of the machine and the moment is taken out (see :func:`cleaned`).
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHistory

from embedded.temporal import TemporalServer
from perdure import Agent, Compaction
from perdure.errors import UnknownAgent
from perdure.testing import call, say
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.integration.agents import AGENTS, gate
from tests.integration.harness import World, open_world, until

__all__ = ["FOLDER", "PLAYS", "cleaned", "main"]

FOLDER = Path(__file__).parent
BRIEF = Agent(name="brief", compaction=Compaction(interval=2, overlap=1))
RENEW_AT = 100
"""Events after which the server suggests to continue as new; only one play is that long."""

_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


@dataclass
class Play:
    """One session to record."""

    world: World
    key: SessionKey
    runs: list[str] = field(default_factory=list[str])
    """The runs whose histories are wanted; the last one goes by itself."""

    async def ask(self, text: str, message_id: str) -> str:
        """A turn; how it ended."""
        return (await self.world.runner.ask(self.key, text, message_id=message_id)).status

    async def held(self, message_id: str) -> asyncio.Task[str]:
        """A turn that is held in its tool."""
        gate.reset()
        self.world.gemini.script(call("wait_at_gate", label=message_id), say("went through"))
        task = asyncio.create_task(self.ask("hold", message_id))
        await asyncio.wait_for(gate.entered.wait(), 20)
        return task

    async def note_run(self) -> None:
        """The run of now is wanted."""
        run_id = (await self.world.handle(self.key).describe()).run_id
        if run_id not in self.runs:
            self.runs.append(run_id)


async def text(play: Play) -> None:
    """Two turns without a tool."""
    play.world.gemini.script(say("one"), say("two"))
    await play.ask("hello", "m1")
    await play.ask("hello again", "m2")


async def tool(play: Play) -> None:
    """A turn with one call, and one with two steps of calls."""
    play.world.gemini.script(call("add", name="n"), say("one"))
    await play.ask("add", "m1")
    play.world.gemini.script(call("add", name="n"), call("big", size=10_000), say("two"))
    await play.ask("add, then big", "m2")


async def parallel_tools(play: Play) -> None:
    """Calls of one step: some beside each other, some one after the other."""
    play.world.gemini.script(
        [
            call("big", size=10),
            call("add", name="n"),
            call("add_parallel", name="p"),
            call("add", name="n"),
            call("big", size=20),
            call("add_parallel", name="p"),
        ],
        say("done"),
    )
    await play.ask("all at once", "m1")


async def tool_fails(play: Play) -> None:
    """A tool that raises, one that is tried again, one that is not there."""
    play.world.gemini.script([call("flaky", label="recorded"), call("explode", reason="x"), call("none")])
    play.world.gemini.script(say("sorry"))
    await play.ask("go", "m1")


async def cancel(play: Play) -> None:
    """A cancel during a tool, and a turn after it."""
    turn = await play.held("m1")
    await play.world.runner.cancel(play.key)
    await turn
    gate.open.set()
    play.world.gemini.clear()
    play.world.gemini.script(say("next"))
    await play.ask("go on", "m2")


async def rewind(play: Play) -> None:
    """A rewind during a turn, as a signal; redo, as an update; both refused once; a turn after it."""
    play.world.gemini.script(say("one"))
    await play.ask("one", "m1")
    turn = await play.held("m2")
    await play.world.handle(play.key).signal("rewind", {"before": "never-was", "request_id": "r0"})
    await play.world.handle(play.key).signal("rewind", {"before": "m1", "request_id": "r1"})
    await turn
    gate.open.set()
    await play.world.runner.rewind(play.key, "r1", request_id="r2")
    play.world.gemini.clear()
    play.world.gemini.script(say("three"))
    await play.ask("three", "m3")


async def compaction(play: Play) -> None:
    """Two compactions, one of them failing for good."""
    for n in range(1, 4):
        if n == 3:
            play.world.gemini.block(kind="summarise")
        await play.ask(f"number {n}", f"m{n}")
        await _settled(play)
    await play.ask("number 4", "m4")
    await _settled(play)


async def failed(play: Play) -> None:
    """A model call that is tried again, one that is refused, and a turn after it."""
    play.world.gemini.fail(503, retry_after=0)
    play.world.gemini.script(say("one"))
    await play.ask("hello", "m1")
    play.world.gemini.fail(400)
    await play.ask("hello", "m2")
    play.world.gemini.clear()
    play.world.gemini.script(say("three"))
    await play.ask("hello", "m3")


async def end(play: Play) -> None:
    """A turn, an artifact from outside, and the end: the workflow closes."""
    play.world.gemini.script(say("one"))
    await play.ask("hello", "m1")
    await play.world.runner.save_artifact(play.key, "a.txt", b"a", "text/plain")
    await play.world.runner.end(play.key, request_id="e1")

    async def closed() -> bool:
        return (await play.world.handle(play.key).describe()).close_time is not None

    await until(closed)


async def refused(play: Play) -> None:
    """A session of an agent that nobody serves: the workflow closes, having done nothing."""
    try:
        await play.ask("hello", "m1")
    except UnknownAgent:
        return
    raise AssertionError("there is no agent of that name")


async def continued(play: Play) -> None:
    """A run that ends with messages waiting, and the run that they were carried into."""
    turn = await play.held("m0")
    await play.note_run()
    for n in range(1, 16):
        await play.world.runner.message(play.key, f"number {n}", message_id=f"m{n}")
    play.world.gemini.script(say("went on"))
    gate.open.set()
    await turn

    async def answered() -> bool:
        log = await play.world.log(play.key)
        return log[-1].invocation_id == "m15" and "step" in log[-1].meta

    await until(answered)
    await play.ask("number 16", "m16")
    await play.note_run()
    assert len(play.runs) == 2, f"it took {len(play.runs)} runs; RENEW_AT is off"


PLAYS: dict[str, Callable[[Play], Awaitable[None]]] = {
    play.__name__: play
    for play in (
        text,
        tool,
        parallel_tools,
        tool_fails,
        cancel,
        rewind,
        compaction,
        failed,
        end,
        refused,
        continued,
    )
}


async def _settled(play: Play) -> None:
    async def done() -> bool:
        return not (await play.world.runner.status(play.key)).compacting

    await until(done)


def cleaned(history: WorkflowHistory) -> str:
    """The history as JSON without what is of no use to a replay: who, where, and random ids.

    Identities become ``worker@host``, queues ``perdure`` and ``sticky``, build ids and stack traces
    nothing, and UUIDs are numbered in the order in which they come.
    """
    found = json.loads(history.to_json())
    _clean(found)
    numbers: dict[str, int] = {}

    def numbered(match: re.Match[str]) -> str:
        number = numbers.setdefault(match[0], len(numbers) + 1)
        return f"00000000-0000-4000-8000-{number:012d}"

    return _UUID.sub(numbered, json.dumps(found, indent=1, ensure_ascii=False)) + "\n"


def _clean(node: Any) -> None:
    if isinstance(node, list):
        for item in node:
            _clean(item)
    if not isinstance(node, dict):
        return
    for name, value in node.items():
        if name == "identity":
            node[name] = "worker@host"
        elif name == "stackTrace":
            node[name] = ""
        elif name == "taskQueue":
            sticky = value.get("kind") == "TASK_QUEUE_KIND_STICKY"
            node[name] = {**value, "name": "sticky" if sticky else "perdure"}
            if sticky:
                node[name]["normalName"] = "perdure"
        elif name in ("workerVersion", "prevAutoResetPoints"):
            node[name] = {}
        else:
            _clean(value)


async def _record(name: str, world: World) -> None:
    app = {"compaction": "brief", "refused": "nobody"}.get(name, "tester")
    play = Play(world, SessionKey(app=app, user_id="alice", session_id=name))
    world.gemini.clear()
    await PLAYS[name](play)
    await play.note_run()
    for number, run_id in enumerate(play.runs, start=1):
        handle = world.client.get_workflow_handle(play.key.workflow_id, run_id=run_id)
        suffix = f"_{number}" if len(play.runs) > 1 else ""
        file = FOLDER / f"{name}{suffix}.json"
        history = await handle.fetch_history()
        file.write_text(cleaned(history))
        print(f"{file.name}: {len(history.events)} events")


async def _run(names: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = {"limit.historyCount.suggestContinueAsNew": RENEW_AT}
        async with TemporalServer(Path(folder) / "temporal", dynamic_config=config) as temporal:
            database = f"sqlite:///{folder}/perdure.db"
            store = await SessionStore.open(database, f"file://{folder}/artifacts", migrate=True)
            try:
                async with open_world(temporal.address, store, [*AGENTS, BRIEF]) as world:
                    for name in names:
                        await _record(name, world)
            finally:
                await store.close()


def main(names: Sequence[str]) -> None:
    """Record these, or all."""
    if unknown := set(names) - set(PLAYS):
        sys.exit(f"no play {', '.join(sorted(unknown))}; there are {', '.join(PLAYS)}")
    asyncio.run(_run(names or list(PLAYS)))


if __name__ == "__main__":
    main(sys.argv[1:])
