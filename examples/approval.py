"""A clerk who pays, and asks a person before it pays much.

    perdure dev examples.approval
    perdure chat clerk                     # "Transfer 500 to bob": the turn waits
    perdure sessions waiting               # elsewhere: what waits, and how to say yes or no
    perdure sessions notify clerk/…/… bank-open

See docs/waiting.md.
"""

from __future__ import annotations

from perdure import Agent, ToolContext, tool
from perdure.waiting import sleep_for, wait_for_event

__all__ = ["agent", "transfer"]

LARGE = 100
"""From more than this on a person is asked."""


@tool(confirm=lambda arguments: arguments["amount"] > LARGE, confirm_timeout=7 * 86_400)
def transfer(to: str, amount: int, context: ToolContext) -> str:
    """Pay somebody.

    Args:
        to: Who gets it.
        amount: How much.
    """
    # The same for every attempt of this call: a bank would be given it, so as to pay once.
    payments = context.state.get("payments", {})
    context.state["payments"] = {**payments, context.idempotency_key: {"to": to, "amount": amount}}
    return f"Paid {amount} to {to}."


agent = Agent(
    name="clerk",
    instruction="You pay what you are told to. When a payment is refused, say so, and why.",
    description="Pays, and asks a person before it pays much.",
    tools=[transfer, sleep_for, wait_for_event],
)
