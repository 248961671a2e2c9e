"""The sessions that are recorded, one for each kind of turn; see :mod:`tests.histories.record`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from perdure import Agent, Compaction, Limits
from perdure.errors import InvocationRewound, ModelRefused
from perdure.testing import call, say
from tests.histories.agents_plays import (
    BOSS,
    DESK,
    MENDER,
    asked,
    awaited,
    awaiting,
    child,
    handed_over,
    mended,
)
from tests.histories.elsewhere_plays import PAINTER, elsewhere
from tests.histories.ending_plays import deleted, end, refused, reopened, retention, stopped
from tests.histories.play import Play
from tests.histories.steering_plays import called_off, interrupting, joined, joining, scheduled
from tests.histories.waiting_plays import (
    approval,
    events,
    parked,
    paused,
    released,
    tickets,
    undecided,
)
from tests.integration.agents import add, gate, wait_at_gate
from tests.integration.harness import until
from tests.integration.waiting_agents import WAITING_AGENTS

__all__ = ["APPS", "EXTRA_AGENTS", "PLAYS", "Play"]

APPS = {
    "compaction": "brief",
    "refused": "nobody",
    "limits": "bounded",
    **dict.fromkeys(("approval", "undecided", "released", "events", "tickets", "parked", "joined"), "clerk"),
    "paused": "hasty",
    "elsewhere": "painter",
    "asked": "boss",
    **dict.fromkeys(("child", "awaited", "awaiting"), "boss"),
    "handed_over": "desk",
    "mended": "mender",
}
"""The agent of a play, where it is not the tester."""
EXTRA_AGENTS = [
    *WAITING_AGENTS,
    PAINTER,
    BOSS,
    DESK,
    MENDER,
    Agent(name="brief", compaction=Compaction(interval=2, overlap=1)),
    Agent(
        name="bounded",
        tools=[add, wait_at_gate],
        limits=Limits(steps=3, tokens=3_000, turn_timeout=4, model_timeout=60),
    ),
]


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


async def compact(play: Play) -> None:
    """Summaries asked for: during a turn, as a signal; after it; with nothing to sum up; refused."""
    play.world.gemini.script(say("one"))
    await play.ask("hello", "m1")
    turn = await play.held("m2")
    await play.world.handle(play.key).signal("compact", {"request_id": "c1"})

    async def summed_up() -> bool:
        return await play.world.store.event(play.key, "c1:compact") is not None

    await until(summed_up)
    gate.open.set()
    await turn
    await _settled(play)
    play.world.gemini.fail(400, kind="summarise")
    try:
        await play.world.runner.compact(play.key, request_id="c2")
    except ModelRefused:
        await play.world.runner.compact(play.key, request_id="c3")
    assert await play.world.runner.compact(play.key, request_id="c4") is None
    play.world.gemini.script(say("three"))
    await play.ask("go on", "m3")


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


async def continued(play: Play) -> None:
    """A run that ends with messages waiting, and the run that they were carried into."""
    turn = await play.held("m0")
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


async def artifacts(play: Play) -> None:
    """Files saved by a tool, one of them twice, and from outside during a turn."""
    play.world.gemini.script(
        [call("save", name="a.txt", text="one"), call("save", name="b.txt", text="two")],
        call("save", name="a.txt", text="three"),
        say("saved"),
    )
    await play.ask("save", "m1")
    turn = await play.held("m2")
    await play.world.runner.save_artifact(play.key, "c.txt", b"c", "text/plain")
    gate.open.set()
    await turn


async def large(play: Play) -> None:
    """A message that the store carries, and a result and an answer that are put away."""
    play.world.gemini.script(call("big", size=100_000), say("a" * 50_000))
    await play.ask("words " * 10_000, "m1")


async def resent(play: Play) -> None:
    """Messages sent again: while the first runs, as an update and as a signal, and after it."""
    turn = await play.held("m1")
    again = asyncio.create_task(play.ask("hold", "m1"))
    await play.handle.signal("message", {"text": "hold", "message_id": "m1"})
    gate.open.set()
    await asyncio.gather(turn, again)
    await play.ask("hold", "m1")


async def resent_late(play: Play) -> None:
    """Messages sent again after a cancel and after a rewind."""
    turn = await play.held("m1")
    await play.world.runner.cancel(play.key)
    await turn
    gate.open.set()
    await play.ask("hold", "m1")
    await play.world.runner.rewind(play.key, "m1", request_id="r1")
    try:
        await play.ask("hold", "m1")
    except InvocationRewound:
        return
    raise AssertionError("it was rewound")


async def signals(play: Play) -> None:
    """A session that signals began and steer; most of what they carry makes no sense."""
    await play.world.runner.message(play.key, "hello", message_id="m1")
    for name in ("message", "rewind", "cancel", "end", "compact"):
        await play.handle.signal(name, "not an object")
    await play.handle.signal("message")
    await play.handle.signal("cancel")
    await play.handle.signal("message", {"text": "hello again", "message_id": "m2"})

    async def both() -> bool:
        return (await play.world.runner.status(play.key)).turns == 2

    await until(both)


async def taken_over(play: Play) -> None:
    """A session that somebody rewound past its workflow, between turns and during one."""
    play.world.gemini.script(say("one"), say("two"), say("three"))
    for n, said in enumerate(("one", "two"), start=1):
        await play.ask(said, f"m{n}")
    await play.world.store.rewind(play.key, before="m2", request_id="by-hand-1")
    await play.ask("three", "m3")
    turn = await play.held("m4")
    await play.world.store.rewind(play.key, before="m3", request_id="by-hand-2", interrupt="m4")
    gate.open.set()
    await turn
    play.world.gemini.clear()
    play.world.gemini.script(say("five"))
    await play.ask("five", "m5")


async def limits(play: Play) -> None:
    """A turn within its limits, and one past each: time, in a tool and in the first call; tokens; steps."""
    play.world.gemini.script(call("wait_at_gate", label="open"), say("in time"))
    gate.reset()
    gate.open.set()
    await play.ask("hold", "m1")
    await play.held_too_long("m2")
    play.world.gemini.clear()
    play.world.gemini.hang()
    await play.failed("hang", "m3")
    play.world.gemini.clear()
    play.world.gemini.script(call("add", name="n"))
    await play.failed("x" * 20_000, "m4")
    play.world.gemini.script(*[call("add", name="n")] * 3)
    await play.world.runner.rewind(play.key, "m4", request_id="r1")
    await play.failed("loop", "m5")
    play.world.gemini.script(say("and on"))
    await play.ask("go on", "m6")


async def many_tools(play: Play) -> None:
    """More parallel calls in one step than run at a time."""
    play.world.gemini.script([*[call("big", size=10)] * 20, *[call("add", name="n")] * 2], say("done"))
    await play.ask("all of them", "m1")


async def full(play: Play) -> None:
    """More signals than may wait: what is too much is refused, in the run and in the next."""
    turn = await play.held("m0")
    for n in range(1, 6):
        text = f"{n}" * 240_000
        await play.handle.signal("message", {"text": text, "message_id": f"m{n}"})

    async def refused() -> bool:
        return (await play.world.runner.status(play.key)).refused == 1

    await until(refused)
    gate.open.set()
    await turn

    async def answered() -> bool:
        return (await play.world.runner.status(play.key)).turns == 5

    await until(answered)


PLAYS: dict[str, Callable[[Play], Awaitable[None]]] = {
    play.__name__: play
    for play in (
        text,
        tool,
        parallel_tools,
        many_tools,
        tool_fails,
        artifacts,
        large,
        cancel,
        rewind,
        taken_over,
        resent,
        resent_late,
        compaction,
        compact,
        failed,
        limits,
        signals,
        full,
        end,
        reopened,
        refused,
        stopped,
        deleted,
        retention,
        approval,
        undecided,
        released,
        paused,
        events,
        tickets,
        parked,
        elsewhere,
        continued,
        joining,
        interrupting,
        called_off,
        joined,
        scheduled,
        asked,
        awaited,
        awaiting,
        child,
        handed_over,
        mended,
    )
}


async def _settled(play: Play) -> None:
    async def done() -> bool:
        return not (await play.world.runner.status(play.key)).compacting

    await until(done)
