"""A planner that has five researchers look things up at once, and merges their reports.

    perdure dev examples.planner
    perdure chat planner                   # "Should we move our office to Lisbon?"
    perdure sessions list planner          # the planner's session, and one of each researcher

See docs/sub-agents.md.
"""

from __future__ import annotations

from perdure import Agent, Budget, Limits, ToolContext, tool

__all__ = ["agent", "researcher"]

FACTS = {
    "rent": "Offices in Lisbon cost about 28 euros a square metre and month.",
    "talent": "Lisbon has three large technical universities.",
    "travel": "Lisbon's airport is 20 minutes from its centre.",
    "tax": "Companies pay 20 percent and a municipal surcharge.",
    "climate": "It has 2,800 hours of sun a year.",
}


@tool(parallel=True)
def look_up(topic: str, context: ToolContext) -> str:
    """What is known about a topic.

    Args:
        topic: One of rent, talent, travel, tax and climate.
    """
    # All sessions of the user see this: the planner's, too, and those of tomorrow.
    context.state[f"user:seen:{topic}"] = True
    return FACTS.get(topic, "Nothing is known about that.")


researcher = Agent(
    name="researcher",
    instruction="Look up the one topic that you are asked about, and report what you found in a sentence.",
    description="Looks one topic up and reports on it. Ask it about several topics at the same time.",
    tools=[look_up],
    limits=Limits(steps=6, turn_timeout=300),
)

agent = Agent(
    name="planner",
    instruction=(
        "You plan. Split a question into five topics, ask a researcher about each, all in one step, and "
        "merge their reports into a plan of a few sentences."
    ),
    description="Plans by what its researchers find out.",
    tools=[researcher],
    limits=Limits(steps=8, agent_calls=10),
    budget=Budget(tokens=2_000_000),
)
