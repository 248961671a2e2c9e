"""The sessions that are recorded of turns that wait for a person or the world."""

from __future__ import annotations

from perdure.testing import call, say
from tests.histories.play import Play
from tests.integration.agents import gate
from tests.integration.harness import until

__all__ = ["approval", "events", "parked", "paused", "released", "tickets", "undecided"]


async def approval(play: Play) -> None:
    """A yes, a no, a yes with other arguments; two of one step; by update and by signal; late ones."""
    transfer = call("transfer", to="ann", amount=5)
    for n, decided in enumerate(({"decision": "yes"}, {"decision": "no", "reason": "x"}), start=1):
        play.world.gemini.script(transfer, say("done"))
        await play.ask("pay", f"m{n}")
        await play.handle.signal("approve", {"call_id": "none", **decided})
        await play.handle.signal("approve", {"call_id": f"m{n}:t1.0", **decided})
        await play.ask("pay", f"m{n}")
    runner = play.world.runner
    play.world.gemini.script([transfer, call("big", size=1), transfer], say("done"))
    await play.ask("pay twice", "m3")
    await runner.approve(play.key, "m3:t1.2", by="boss")
    await runner.approve(play.key, "m3:t1.0", arguments={"to": "bob", "amount": 1})
    await play.ask("pay twice", "m3")


async def undecided(play: Play) -> None:
    """Approvals that nobody decides about: refused, approved, and the end of the turn."""
    for n, name in enumerate(("refused_in_time", "approved_in_time", "failed_in_time"), start=1):
        play.world.gemini.script(call(name, note="x"), say("done"))
        await play.ask("go", f"m{n}")
        await _turns(play, n)
        play.world.gemini.clear()


async def released(play: Play) -> None:
    """Turns that wait, and are cancelled, rewound and, with the session, ended."""
    runner = play.world.runner
    for n in range(1, 4):
        play.world.gemini.clear()
        play.world.gemini.script(call("transfer", to="ann", amount=5))
        await play.ask("pay", f"m{n}")
        if n == 1:
            await runner.cancel(play.key)
            await _turns(play, 1)
        elif n == 2:
            await runner.rewind(play.key, "m2", request_id="r1")
    await runner.end(play.key, request_id="e1")
    await play.closed()


async def events(play: Play) -> None:
    """Notifications: early, awaited, too late and twice; a sleep; a tool that waits by what it returns."""
    runner, script = play.world.runner, play.world.gemini.script
    script(say("hello"))
    await play.ask("hello", "m1")
    await runner.notify(play.key, "paid", 1, notification_id="n1")
    script(call("wait_for_event", name="paid"), call("wait_for_event", name="paid"), say("done"))
    await play.ask("wait", "m2")
    await runner.notify(play.key, "paid", 1, notification_id="n1")
    await runner.notify(play.key, "paid", 2, notification_id="n2")
    await play.ask("wait", "m2")
    script(
        call("wait_for_event", name="never", timeout_seconds=0.5), call("sleep_for", seconds=0.5), say("on")
    )
    await play.ask("wait in vain", "m3")
    await _turns(play, 3)
    script([call("charge", amount=7), call("sleep_for", seconds=0)], say("charged"))
    await play.ask("charge", "m4")
    await runner.notify(play.key, "payment:7", notification_id="n3")
    await play.ask("charge", "m4")


async def tickets(play: Play) -> None:
    """Long-running tools: a result after progress, an error, none in time, one that needs approval first."""
    runner, script = play.world.runner, play.world.gemini.script
    script(
        call("render", scene="sea"), call("render", scene="sky"), call("render_fast", scene="x"), say("done")
    )
    await play.ask("render", "m1")
    await runner.tool_progress(play.key, "m1:t1.0", "half", percent=50)
    await runner.tool_result(play.key, "m1:t1.0", {"url": "x"})
    await play.ask("render", "m1")
    await play.handle.signal("tool_result", {"call_id": "m1:t2.0", "error": "no light"})
    await _turns(play, 1)
    script(call("render_costly", scene="sea"), say("done"))
    await play.ask("render", "m2")
    await runner.approve(play.key, "m2:t1.0")
    await play.ask("render", "m2")
    await runner.tool_result(play.key, "m2:t1.0", 1)
    await play.ask("render", "m2")


async def parked(play: Play) -> None:
    """A run that ends while its turn waits, with a message behind it, and the run that goes on."""
    runner = play.world.runner
    calls = [
        call("transfer", to="ann", amount=5),
        call("weekly", note="x"),
        call("wait_for_event", name="paid"),
    ]
    play.world.gemini.script(calls, say("done"), say("next"))
    await play.ask("pay", "m1")
    await runner.message(play.key, "next", message_id="m2")
    first = (await play.handle.describe()).run_id
    for n in range(80):
        await runner.notify(play.key, f"early-{n % 3}", n, notification_id=f"n{n}")

    async def renewed() -> bool:
        return (await play.handle.describe()).run_id != first

    await until(renewed)
    await runner.approve(play.key, "m1:t1.0")
    await runner.decline(play.key, "m1:t1.1")
    await runner.notify(play.key, "paid", notification_id="last")
    await play.ask("next", "m2")


async def paused(play: Play) -> None:
    """A turn whose time stands still while it waits, and runs on after."""
    play.world.gemini.script(call("transfer", to="ann", amount=5), call("wait_at_gate", label="x"))
    gate.reset()
    await play.ask("go", "m1")
    await play.world.runner.approve(play.key, "m1:t1.0")
    await play.failed("go", "m1")
    gate.open.set()


async def _turns(play: Play, turns: int) -> None:
    """So many turns are over."""

    async def done() -> bool:
        return (await play.world.runner.status(play.key)).turns == turns

    await until(done)
