"""Agents whose calls wait for a person or the world, for tests."""

from __future__ import annotations

from typing import Any

from perdure import Agent, Limits, ToolContext, tool
from perdure.waiting import WaitForEvent, sleep_for, sleep_until, wait_for_event
from tests.integration.agents import gate, wait_at_gate

__all__ = ["WAITING_AGENTS", "ran"]

ran: list[tuple[str, str, int]] = []
"""The transfers that were made: session, name, amount."""


def _pay(to: str, amount: int, context: ToolContext) -> str:
    ran.append((context.session_id, to, amount))
    context.state["paid"] = int(context.state.get("paid", 0)) + amount
    return f"paid {amount} to {to}"


@tool(confirm=True)
def transfer(to: str, amount: int, context: ToolContext) -> str:
    """Pay, once a person has said yes.

    Args:
        to: who.
        amount: how much.
    """
    return _pay(to, amount, context)


@tool(confirm=lambda arguments: arguments["amount"] > 100)
def pay(to: str, context: ToolContext, amount: int = 1_000) -> str:
    """Pay; a person must say yes to large amounts.

    Args:
        to: who.
        amount: how much.
    """
    return _pay(to, amount, context)


def _broken(arguments: dict[str, Any]) -> bool:
    raise KeyError("broken")


@tool(confirm=_broken)
def guarded(note: str) -> str:
    """Do something that nobody can say is harmless.

    Args:
        note: what.
    """
    return note


@tool(confirm=True, confirm_timeout=0.3)
def refused_in_time(note: str) -> str:
    """Ask, and be refused when nobody answers.

    Args:
        note: what.
    """
    return note


@tool(confirm=True, confirm_timeout=0.3, on_timeout="approve")
def approved_in_time(note: str) -> str:
    """Ask, and go on when nobody answers.

    Args:
        note: what.
    """
    return note


@tool(confirm=True, confirm_timeout=0.3, on_timeout="fail")
def failed_in_time(note: str) -> str:
    """Ask, and give up when nobody answers.

    Args:
        note: what.
    """
    return note


@tool(confirm=True, confirm_timeout=7 * 86_400)
def weekly(note: str) -> str:
    """Ask, for a week.

    Args:
        note: what.
    """
    return note


@tool(long_running=True)
def render(scene: str, context: ToolContext) -> dict[str, str]:
    """Start a rendering; its result comes later.

    Args:
        scene: which.
    """
    ran.append((context.session_id, scene, 0))
    context.state["renderings"] = int(context.state.get("renderings", 0)) + 1
    return {"job": f"job-{scene}", "answer_to": context.result_id}


@tool(long_running=True)
async def submit(scene: str) -> str:
    """Start a rendering at a service that is quick to answer.

    Args:
        scene: which.
    """
    gate.entered.set()
    await gate.open.wait()
    return f"job-{scene}"


@tool(long_running=True, result_timeout=0.3)
def render_fast(scene: str) -> str:
    """Start a rendering that must not take long.

    Args:
        scene: which.
    """
    return f"job-{scene}"


@tool(long_running=True, confirm=True)
def render_costly(scene: str) -> str:
    """Start a rendering that somebody has to pay for.

    Args:
        scene: which.
    """
    return f"job-{scene}"


@tool
def charge(amount: int, context: ToolContext) -> WaitForEvent:
    """Charge a card, and wait until the bank says what came of it.

    Args:
        amount: how much.
    """
    context.state["charged"] = amount
    return WaitForEvent(f"payment:{amount}")


WAITING_AGENTS = [
    Agent(
        name="clerk",
        tools=[
            transfer,
            pay,
            guarded,
            refused_in_time,
            approved_in_time,
            failed_in_time,
            weekly,
            wait_at_gate,
            render,
            render_fast,
            render_costly,
            submit,
            charge,
            sleep_for,
            sleep_until,
            wait_for_event,
        ],
    ),
    Agent(
        name="hasty", tools=[transfer, wait_for_event, render, wait_at_gate], limits=Limits(turn_timeout=15.0)
    ),
    Agent(name="unhurried", tools=[transfer], limits=Limits(turn_timeout=300.0)),
    Agent(name="strict", tools=[transfer, wait_for_event, render], limits=Limits(waiting_timeout=0.3)),
]
