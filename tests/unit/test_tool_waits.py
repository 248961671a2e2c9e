"""What a tool declares of waiting: who is asked, what a pause is, what cannot be declared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from perdure import Agent, Limits, ToolContext, tool
from perdure.errors import InvalidAgent, InvalidArguments
from perdure.pause import Sleep, WaitForEvent
from perdure.waiting import sleep_for, sleep_until, wait_for_event


def pay(to: str, context: ToolContext, amount: int = 1_000) -> str:
    """Pay."""
    return to


def test_a_person_is_asked_always_or_as_the_arguments_say() -> None:
    assert not tool(pay).needs_approval({"to": "ann"})
    assert tool(pay, confirm=True).needs_approval({"to": "ann"})
    large = tool(pay, confirm=lambda arguments: arguments["amount"] > 100)
    assert large.needs_approval({"to": "ann"}), "the default is in the arguments"
    assert not large.needs_approval({"to": "ann", "amount": 100})


def test_a_predicate_sees_the_arguments_checked_and_no_context() -> None:
    seen: list[dict[str, Any]] = []

    def ask(arguments: dict[str, Any]) -> bool:
        seen.append(arguments)
        return True

    asking = tool(pay, confirm=ask)
    assert asking.needs_approval({"to": "ann", "amount": 7})
    assert seen == [{"to": "ann", "amount": 7}]


def test_what_cannot_run_is_nobodys_to_decide() -> None:
    assert not tool(pay, confirm=True).needs_approval({"nonsense": 1})


def test_a_predicate_that_raises_asks() -> None:
    assert tool(pay, confirm=lambda arguments: arguments["none"]).needs_approval({"to": "ann"})


async def _later(arguments: dict[str, Any]) -> bool:
    return True


@pytest.mark.parametrize(
    "wrong",
    [
        {"confirm": "yes"},
        {"confirm": _later},
        {"confirm": True, "on_timeout": "explode"},
        {"confirm": True, "confirm_timeout": 0},
        {"confirm_timeout": 5},
        {"on_timeout": "approve"},
        {"result_timeout": 5},
        {"long_running": True, "result_timeout": -1},
    ],
)
def test_what_makes_no_sense_cannot_be_declared(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidAgent, match="'pay'"):
        tool(pay, **wrong)


def test_tools_that_differ_in_waiting_are_not_equal() -> None:
    assert tool(pay, confirm=True) != tool(pay)
    assert tool(pay, long_running=True) != tool(pay)


def test_a_limit_of_waiting_is_above_0() -> None:
    assert Limits(waiting_timeout=1).waiting_timeout == 1
    with pytest.raises(InvalidAgent):
        Limits(waiting_timeout=0)


async def test_the_tools_that_wait_say_for_what() -> None:
    assert sleep_for(5) == Sleep(5)
    assert wait_for_event("paid", 3) == WaitForEvent("paid", 3)
    in_an_hour = sleep_until((datetime.now(UTC) + timedelta(hours=1)).isoformat())
    assert 3_500 < in_an_hour.seconds <= 3_600
    assert sleep_until("2001-01-01T00:00:00").seconds == 0
    assert await wait_for_event.run({"name": "paid"}) == WaitForEvent("paid")
    assert "paid" in str(await wait_for_event.call({"name": "paid"})), (
        "a test of the tool sees what it waits for"
    )
    agent = Agent(name="clerk", tools=[sleep_for, sleep_until, wait_for_event])
    assert [each.name for each in agent.tools] == ["sleep_for", "sleep_until", "wait_for_event"]


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e12])
def test_times_that_make_no_sense(seconds: float) -> None:
    with pytest.raises(InvalidArguments):
        sleep_for(seconds)


def test_names_that_nobody_could_notify_by() -> None:
    for name in ("", "x" * 129, "a\nb"):
        with pytest.raises(InvalidArguments):
            wait_for_event(name)
