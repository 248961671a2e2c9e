"""What a tool declares of waiting: who is asked, what a pause is, what cannot be declared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from activities.waits import waits_of
from perdure import Agent, Limits, ToolContext, tool
from perdure.errors import InvalidAgent, InvalidArguments, InvalidContent, InvalidMessage
from perdure.pause import Sleep, WaitForEvent
from perdure.types import Event
from perdure.waiting import sleep_for, sleep_until, wait_for_event
from workflows.messages import Message
from workflows.wait_messages import Notification, Progress, Result


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
    return False


class _Later:
    async def __call__(self, arguments: dict[str, Any]) -> bool:
        return False


def test_a_predicate_whose_answer_is_not_there_yet_asks() -> None:
    asking: Any = lambda arguments: _later(arguments)  # noqa: E731 - as somebody would write it
    assert tool(pay, confirm=asking).needs_approval({"to": "ann"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"confirm": "yes"},
        {"confirm": _later},
        {"confirm": _Later()},
        {"confirm": partial(_later)},
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


def note(call: int, kind: str, **meta: Any) -> Event:
    said = {"step": 1, "index": call, "tool": "work", "kind": kind, **meta}
    return event(f"m1:{'a' if kind == 'approval' else 'k'}1.{call}", wait=said)


def event(event_id: str, **meta: Any) -> Event:
    return Event(
        id=event_id,
        invocation_id="m1",
        author="perdure",
        meta=meta,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def test_a_log_tells_what_waits() -> None:
    week = {"seconds": 7 * 86_400, "then": "fail"}
    log = [event("m1:user"), note(0, "approval", **week), note(1, "result"), note(2, "event", event="paid")]
    approval, result, happening = waits_of(log)
    assert (approval["call_id"], approval["kind"], approval["then"]) == ("m1:t1.0", "approval", "fail")
    assert approval["until"] - approval["since"] == timedelta(days=7)
    assert (result["kind"], result["until"], happening["event"]) == ("result", None, "paid")
    log += [event("m1:t1.0"), event("p1:progress", progress={"call_id": "m1:t1.1", "text": "half"})]
    assert [(each["call_id"], each.get("text")) for each in waits_of(log)] == [
        ("m1:t1.1", "half"),
        ("m1:t1.2", None),
    ]
    assert waits_of([*log, event("m1:end", interrupted=True)]) == []
    assert waits_of([note(0, "approval"), note(0, "result")])[0]["kind"] == "result", (
        "approved, and it has run"
    )
    assert waits_of([]) == []


@pytest.mark.parametrize("seconds", [float("inf"), float("nan")])
def test_a_time_that_never_comes_is_no_time(seconds: float) -> None:
    with pytest.raises(InvalidArguments, match="seconds"):
        Sleep(seconds)
    with pytest.raises(InvalidArguments, match="timeout"):
        WaitForEvent("paid", seconds)


def test_what_is_sent_can_be_carried_further_down() -> None:
    deep: Any = 1
    for _ in range(195):
        deep = [deep]
    for request in (
        lambda: Result.of({"call_id": "m1:t1.0", "result": deep}),
        lambda: Notification.of({"name": "paid", "payload": deep}),
        lambda: Message.of({"content": {"parts": [{"x": deep}]}}),
    ):
        with pytest.raises(InvalidContent, match="nested"):
            request()
    with pytest.raises(InvalidMessage, match="blob"):
        Result.of({"call_id": "m1:t1.0", "blob": "x" * 100_000})


def test_progress_shows_its_beginning() -> None:
    shown = Progress(call_id="m1:t1.0", text="x" * 4_000, percent=3).shown
    assert (len(shown["text"]), shown["percent"]) == (201, 3)
