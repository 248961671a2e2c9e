"""Perdure, a durable agent runtime: what people import to write an agent.

An agent is a name, an instruction and tools; a tool is a function with annotations and a
docstring. Put them into a module and serve it with ``perdure dev agents.py``:

    >>> from perdure import Agent, Compaction, ToolContext, tool

    >>> @tool
    ... def add_to_list(item: str, context: ToolContext) -> list[str]:
    ...     '''Add an item to the shopping list.
    ...
    ...     Args:
    ...         item: what to buy.
    ...     '''
    ...     items = context.state.get("items", [])
    ...     context.state["items"] = [*items, item]
    ...     return context.state["items"]

    >>> agent = Agent(
    ...     name="shopper",
    ...     instruction="You keep a shopping list. It has: {items?}",
    ...     tools=[add_to_list],
    ...     compaction=Compaction(interval=10, overlap=2),
    ... )

What the model is shown of it, and what a test can do with it:

    >>> agent.tools[0].declaration["parametersJsonSchema"]["properties"]
    {'item': {'description': 'what to buy.', 'type': 'string'}}

    >>> context = ToolContext(state={"items": ["bread"]})
    >>> add_to_list("milk", context)
    ['bread', 'milk']
    >>> context.state.delta
    {'items': ['bread', 'milk']}

Errors are in :mod:`perdure.errors`, the records of a session in :mod:`perdure.types`.
:class:`Client` and :class:`AsyncClient` talk to sessions over HTTP; see :mod:`perdure.client`.
Importing this module imports neither a model client nor a database nor Temporal nor HTTP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.agent import Agent, Compaction, Limits, Memory
from perdure.agenttool import AgentTool
from perdure.budget import Budget, Price
from perdure.context import Artifact, ToolContext
from perdure.errors import PerdureError
from perdure.mcp import McpServer
from perdure.state import State
from perdure.tool import Tool, tool

if TYPE_CHECKING:
    from perdure.client import AsyncClient, Client

__all__ = [
    "Agent",
    "AgentTool",
    "Artifact",
    "AsyncClient",
    "Budget",
    "Client",
    "Compaction",
    "Limits",
    "McpServer",
    "Memory",
    "PerdureError",
    "Price",
    "State",
    "Tool",
    "ToolContext",
    "__version__",
    "tool",
]

__version__: str


def __getattr__(name: str) -> object:
    # Looked up when asked for: reading the metadata is file access, which the sandbox of a
    # workflow that imports perdure.types forbids, and it is slow.
    if name == "__version__":
        return _version()
    # So that agents, and workflows in their sandbox, do not pay for a client that they do not use.
    if name in ("AsyncClient", "Client"):
        from perdure import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("perdure")
    except PackageNotFoundError:
        return _version_of_checkout() or "0+unknown"


def _version_of_checkout() -> str | None:
    import tomllib
    from pathlib import Path

    pyproject = Path(__file__).resolve().parent.parent / "pyproject.toml"
    if not pyproject.is_file():
        return None
    project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
    return f"{project['version']}+checkout" if project.get("name") == "perdure" else None
