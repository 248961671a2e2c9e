"""Tools by which an agent waits without holding anything: for a time, or for an event of the world.

    from perdure import Agent
    from perdure.waiting import sleep_for, sleep_until, wait_for_event

    agent = Agent(name="clerk", tools=[sleep_for, wait_for_event])

A tool of one's own waits by what it returns::

    @tool
    def charge(amount: int, context: ToolContext) -> WaitForEvent:
        payment = bank.start(amount, key=context.idempotency_key)
        return WaitForEvent(f"payment:{payment.id}", timeout=3 * 86_400)
"""

from __future__ import annotations

from datetime import UTC, datetime

from perdure.errors import InvalidArguments
from perdure.pause import Pause, Sleep, WaitForEvent
from perdure.tool import tool

__all__ = ["Pause", "Sleep", "WaitForEvent", "sleep_for", "sleep_until", "wait_for_event"]

LONGEST = 10 * 366 * 86_400
"""Seconds that a model may sleep for: ten years."""


@tool
def sleep_for(seconds: float) -> Sleep:
    """Wait before you go on. Nothing runs meanwhile, also for days.

    Args:
        seconds: How long to wait.
    """
    return _sleep(seconds)


@tool
def sleep_until(time: str) -> Sleep:
    """Wait until a moment before you go on. Nothing runs meanwhile, also for days.

    Args:
        time: The moment in ISO 8601, such as 2030-01-31T09:00:00+01:00; without an offset it is UTC.
    """
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        raise InvalidArguments(f"{time!r} is no ISO 8601 time such as 2030-01-31T09:00:00+01:00") from None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return _sleep(max((aware - datetime.now(UTC)).total_seconds(), 0.0))


@tool
def wait_for_event(name: str, timeout_seconds: float | None = None) -> WaitForEvent:
    """Wait until something happens outside, and get what is told about it.

    Args:
        name: The name of the event.
        timeout_seconds: How long to wait at most.
    """
    if timeout_seconds is not None and not 0 < timeout_seconds <= LONGEST:
        raise InvalidArguments(f"timeout_seconds is {timeout_seconds}; it is above 0 and at most {LONGEST}")
    return WaitForEvent(name, timeout_seconds)


def _sleep(seconds: float) -> Sleep:
    if not 0 <= seconds <= LONGEST:
        raise InvalidArguments(f"one can wait for 0 to {LONGEST} seconds, and not for {seconds}")
    return Sleep(seconds)
