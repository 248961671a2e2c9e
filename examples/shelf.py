"""The MCP server of examples/anywhere.py: a shelf. ``python examples/shelf.py`` serves it on stdio."""

from __future__ import annotations

from mcp.server import MCPServer

__all__ = ["server"]

server = MCPServer("shelf")
_shelf: dict[str, str] = {}


@server.tool()
def put(name: str, what: str) -> str:
    """Put something on the shelf, under a name."""
    _shelf[name] = what
    return f"{name} is on the shelf."


@server.tool()
def look() -> dict[str, str]:
    """All that is on the shelf, by name."""
    return _shelf


@server.tool()
def clear() -> str:
    """Throw away all that is on the shelf."""
    _shelf.clear()
    return "The shelf is empty."


if __name__ == "__main__":
    server.run("stdio")
