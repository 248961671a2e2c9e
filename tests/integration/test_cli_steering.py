"""``perdure sessions send``, ``cancel``, ``schedule``, ``schedules`` and ``unschedule``."""

from __future__ import annotations

import json

import pytest

from perdure.testing import call, say
from tests.integration.agents import gate
from tests.integration.harness import until
from tests.integration.test_cli_waiting import Command, Here, here, perdure

__all__ = ["here", "perdure"]


@pytest.fixture(autouse=True)
def _fresh_gate() -> None:
    gate.reset()


async def test_a_message_is_sent_joins_and_interrupts(here: Here, perdure: Command) -> None:
    world, key = here.world, here.world.key("clerk")
    world.gemini.script(say("hello"), call("wait_at_gate", label="m2"), say("both done"))
    assert await perdure("send", str(key), "Hi.") == (0, "hello\n", "")
    sent = await perdure("send", str(key), "Work.", "--id", "m2", "--no-wait")
    assert sent == (0, f"sent to {key} as m2\n", "")
    await gate.held()
    await perdure("send", str(key), "And this.", "--id", "m3", "--during", "join", "--no-wait", "--json")
    gate.open.set()
    code, out, _ = await perdure("send", str(key), "And this.", "--id", "m3", "--json")
    told = json.loads(out)
    assert (code, told["invocation_id"], told["status"], told["text"]) == (0, "m2", "answered", "both done")
    assert told["spent"]["model_calls"] == 2
    world.gemini.script(call("transfer", to="ann", amount=5), say("instead"))
    code, out, _ = await perdure("send", str(key), "Pay.", "--id", "m4")
    assert (code, out.startswith("turn m4: waiting, approval of transfer since 20")) == (0, True)
    assert (await perdure("send", str(key), "No.", "--during", "interrupt"))[1] == "instead\n"
    assert await perdure("send", str(key), "Pay.", "--id", "m4") == (1, "", "turn m4: cancelled\n")


async def test_a_script_is_told_of_a_turn_that_failed(here: Here, perdure: Command) -> None:
    key = here.world.key("clerk")
    here.world.gemini.fail(400, "no such thing")
    code, out, err = await perdure("send", str(key), "Pay.", "--id", "m1")
    assert (code, out) == (1, "")
    assert err.startswith("turn m1: failed, ")
    assert "no such thing" in err
    code, out, err = await perdure("send", str(key), "Pay.", "--id", "m1", "--json")
    told = json.loads(out)
    assert (code, told["status"], told["failure"]["type"], err) == (1, "failed", "ModelRefused", "")


async def test_a_turn_is_cancelled(here: Here, perdure: Command) -> None:
    world, key = here.world, here.world.key("clerk")
    world.gemini.hang()
    await perdure("send", str(key), "Work.", "--id", "m1", "--no-wait")
    await world.gemini.wait_in_flight()
    assert await perdure("cancel", str(key)) == (0, f"{key} is told to end its turn\n", "")
    assert (await world.runner.ask(key, "Work.", message_id="m1")).status == "cancelled"


async def test_messages_by_the_clock(here: Here, perdure: Command) -> None:
    key = here.world.key("clerk")
    assert (await perdure("schedules", str(key)))[1] == "nothing is scheduled\n"
    code, out, _ = await perdure("schedule", str(key), "0 9 * * *", "Report.", "--id", "daily")
    assert code == 0
    assert out.splitlines()[-1] == f"  perdure sessions unschedule {key} daily"

    async def listed() -> bool:
        return len(await here.world.runner.schedules(key)) == 1

    await until(listed)
    lines = (await perdure("schedules", str(key)))[1].splitlines()
    assert lines[0] == "daily  0 9 * * * (UTC), 0 so far"
    assert lines[1].startswith("  next: 20")
    assert lines[2] == "  Report."
    [told] = json.loads((await perdure("schedules", str(key), "--json"))[1])["schedules"]
    assert (told["schedule_id"], told["key"], told["text"]) == ("daily", str(key), "Report.")
    rests, heading, *shown = (await perdure("status", str(key)))[1].splitlines()
    assert (rests, heading) == ("no workflow is open: the session rests", "by the clock:")
    assert shown == [f"  {line}" for line in lines]
    assert json.loads((await perdure("status", str(key), "--json"))[1])["schedules"] == [told]
    assert (await perdure("unschedule", str(key), "daily"))[1] == "the schedule is removed\n"
    assert (await perdure("unschedule", str(key), "daily"))[1] == "there is no such schedule\n"
    code, _, err = await perdure("schedule", str(key), "tomorrow", "Report.")
    assert code == 1
    assert "tomorrow" in err
