"""An agent that counts: state that lasts, a report as an artifact, rewind, compaction.

    perdure dev examples/counter.py
    perdure chat counter

Try "Increment 'visits' counter by 1 and show its value", then 'Save current counter
values to "counter-report.txt"', then "Show all counters".
"""

from __future__ import annotations

import os

from perdure import Agent, Compaction, ToolContext, tool

__all__ = ["agent", "increment_counter", "save_counter_report", "show_counters"]


@tool
def increment_counter(counter_name: str, context: ToolContext, amount: int = 1) -> dict[str, str | int]:
    """Increment a named counter.

    Args:
        counter_name: Name of the counter.
        amount: Amount to increment.
    """
    counters = context.state.get("counters", {})
    old_value = counters.get(counter_name, 0)
    new_value = old_value + amount
    context.state["counters"] = {**counters, counter_name: new_value}
    return {
        "counter_name": counter_name,
        "old_value": old_value,
        "new_value": new_value,
        "increment": amount,
    }


@tool
def show_counters(context: ToolContext) -> dict[str, int]:
    """Show all counters and their current values."""
    counters: dict[str, int] = context.state.get("counters", {})
    return counters


@tool
async def save_counter_report(filename: str, context: ToolContext) -> dict[str, str | int | bool]:
    """Save a report of all counter values to an artifact file.

    Args:
        filename: Name of the file to save the report to.
    """
    counters = context.state.get("counters", {})
    report = "\n".join(f"{name}: {value}" for name, value in counters.items())
    version = await context.save_artifact(filename, report or "No counters found")
    return {"success": True, "filename": filename, "version": version, "counters_count": len(counters)}


agent = Agent(
    name="counter",
    model=os.environ.get("PERDURE_EXAMPLE_MODEL") or "gemini-3-flash-preview",
    description="Keeps named counters and writes reports of them.",
    instruction=(
        "You keep named counters for the user. Use the tools for every change and every question "
        "about a value; never count in your head. Answer in one or two short sentences."
    ),
    tools=[increment_counter, show_counters, save_counter_report],
    compaction=Compaction(interval=3, overlap=1),
)
