"""The agent of ``tests/gateway/adk_world.py`` in google-adk's terms: the same tools under the same names."""

from __future__ import annotations

from google.adk.agents import Agent
from google.adk.tools.tool_context import ToolContext
from google.genai import types


def count(name: str, tool_context: ToolContext) -> dict[str, int]:
    """Count a visit.

    Args:
        name: who came.
    """
    visits: dict[str, int] = tool_context.state.get("visits", {})
    tool_context.state["visits"] = {**visits, name: visits.get(name, 0) + 1}
    return {name: visits.get(name, 0) + 1}


async def report(filename: str, tool_context: ToolContext) -> dict[str, str]:
    """Save a file.

    Args:
        filename: its name.
    """
    text = types.Part.from_bytes(data=b"all is well", mime_type="text/plain")
    await tool_context.save_artifact(filename, text)
    return {"saved": filename}


def explode() -> str:
    """Raise an error."""
    raise RuntimeError("it exploded")


root_agent = Agent(
    name="tally",
    model="gemini-3-flash-preview",
    description="Counts visits.",
    instruction="You count visits.",
    tools=[count, report, explode],
)
