"""An MCP server for tests, by the mcp package's own: ``python tests/integration/mcp_server.py``.

Over stdio, or over HTTP where it is given a port. It notes what it is asked in the file ``MCP_NOTES``.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Image
from mcp.server.mcpserver.exceptions import ToolError

__all__ = ["main"]

NOTES = Path(os.environ["MCP_NOTES"])


class _Noted(MCPServer):
    async def list_tools(self):  # type: ignore[no-untyped-def]  # the package's own type
        note("list")
        return await super().list_tools()


server = _Noted("warehouse", log_level="ERROR")


def note(what: str) -> None:
    with NOTES.open("a") as notes:
        notes.write(f"{what}\n")


@server.tool()
def stock(article: str, shelf: int = 1) -> str:
    """How much there is.

    Args:
        article: What.
        shelf: Where.
    """
    note(f"stock {article}")
    return f"7 {article} on shelf {shelf}"


@server.tool()
def throw_away(article: str) -> dict[str, str]:
    """Throw all of it away."""
    note(f"throw_away {article}")
    return {"thrown_away": article}


@server.tool(name="look/at it")
def look(article: str) -> list[str | Image]:
    """A picture."""
    return [article, Image(data=b"\x89PNG" + article.encode() * 20_000, format="png")]


@server.tool()
def fails() -> str:
    """Fails."""
    note("fails")
    raise ToolError("the shelf is locked")


@server.tool()
def much() -> str:
    """A long list."""
    return "an article\n" * 20_000


@server.tool()
def die() -> str:
    """The server dies."""
    note("die")
    os._exit(1)


@server.tool()
async def wait_long(article: str) -> str:
    """Takes its time."""
    note(f"wait_long {article}")
    await asyncio.sleep(3600)
    return article


@server.tool()
async def dawdle(seconds: float) -> str:
    """Takes that long, and says nothing meanwhile."""
    await asyncio.sleep(seconds)
    return "done"


@server.tool()
def hold(article: str, context: Context) -> str:
    """It does not come to an end the first time, nor when the server is to stop."""
    meta: dict[str, object] = {**(context.request_context.meta or {})}
    note(f"hold {meta['perdure/idempotency-key']} {os.getpid()}")
    if NOTES.read_text().count("hold ") == 1:
        threading.Event().wait()
    return f"held {article}"


@server.tool()
async def learn(context: Context) -> str:
    """From now on there is one more tool."""

    def weigh(article: str) -> str:
        """How heavy it is."""
        note(f"weigh {article}")
        return f"{article}: 3 kg"

    server.add_tool(weigh)
    await context.session.send_tool_list_changed()  # for clients of before 2026-07-28
    await context.notify_tools_changed()
    return "I can weigh now."


def main() -> None:
    """Serve until stopped."""
    if len(sys.argv) > 1:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[1]))
    else:
        server.run("stdio")


if __name__ == "__main__":
    main()
