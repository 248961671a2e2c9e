"""The MCP servers of a worker's agents: a connection to each, and what their tools are."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from activities.mcp_connection import Connection
from activities.mcp_tools import mcp_tools
from perdure.agent import Agent
from perdure.errors import InvalidAgent, McpUnavailable
from perdure.logs import words_of
from perdure.mcp import McpServer
from perdure.tool import Tool

if TYPE_CHECKING:
    import mcp_types as types

__all__ = ["McpServers"]

AWAY = 60.0
"""Seconds for which an optional server that could not be reached is done without."""

_log = logging.getLogger("perdure.mcp")


class McpServers:
    """The connections of one process: one for each place, made when an agent first needs it.

    Whoever makes it closes it, on the same event loop.
    """

    def __init__(self) -> None:
        self._connections: dict[tuple[object, ...], Connection] = {}
        self._made: dict[McpServer, tuple[list[types.Tool], list[Tool]]] = {}
        self._away: dict[tuple[object, ...], float] = {}
        """Until when a server is done without."""

    async def equip(self, agent: Agent) -> Agent:
        """The agent with the tools of its servers, as the model is to be told of them.

        Raises:
            McpUnavailable: a server that is not optional cannot be reached.
            InvalidAgent: its tools are not what the agent says of them, or two have one name.
        """
        if not agent.servers:
            return agent
        found = await asyncio.gather(*(self._tools_or_none(server) for server in agent.servers))
        return agent.with_tools([tool for tools in found for tool in tools])

    def known(self, agent: Agent) -> tuple[Agent, list[str]]:
        """The agent with what its servers have listed so far, and the titles of those that have not.

        Nothing is connected to: this is for those who only look.
        """
        tools: dict[str, Tool] = {}
        unknown: list[str] = []
        for server in agent.servers:
            made = self._made.get(server)
            if made is None:
                unknown.append(server.title)
            else:
                tools |= {tool.name: tool for tool in made[1] if agent.tool(tool.name) is None}
        return (agent.with_tools(tools.values()) if tools else agent), unknown

    async def with_tool(self, agent: Agent, name: str) -> Agent:
        """The agent with what its servers have, so that one tool is found; the same if it has that itself.

        A tool that no list has may be new: then the servers are asked again.

        Raises:
            McpUnavailable: no server has it, and one that might, and is not optional, cannot be reached.
        """
        if not agent.servers or agent.tool(name) is not None:
            return agent
        for refresh in (False, True):
            tools, away = await self._all_tools(agent, refresh=refresh)
            if name in tools:
                return agent.with_tools([tools[name]])
        if away is not None:
            raise away
        return agent.with_tools(tool for tool in tools.values() if agent.tool(tool.name) is None)

    async def close(self) -> None:
        """Disconnect from all of them."""
        connections, self._connections = list(self._connections.values()), {}
        await asyncio.gather(*(connection.close() for connection in connections))

    async def _all_tools(
        self, agent: Agent, *, refresh: bool
    ) -> tuple[dict[str, Tool], McpUnavailable | None]:
        """What the servers have that can be reached, and the error of one that cannot."""
        tools: dict[str, Tool] = {}
        taken: set[str] = set()
        away: McpUnavailable | None = None
        for server in agent.servers:
            try:
                listed = await self._tools_or_none(server, refresh=refresh)
            except McpUnavailable as error:
                away = error
            except InvalidAgent as error:  # the model was not offered these, either
                _log.warning("going on without: %s", words_of(error))
            else:
                found = {tool.name: tool for tool in listed}
                taken |= tools.keys() & found.keys()
                tools |= found
        # Of two of one name the model meant one, and the other may need nobody's approval.
        return {name: tool for name, tool in tools.items() if name not in taken}, away

    async def _tools_or_none(self, server: McpServer, *, refresh: bool = False) -> list[Tool]:
        now = asyncio.get_running_loop().time()
        if server.optional and now < self._away.get(server.place, now):
            return []
        try:
            return await self._tools(server, refresh=refresh)
        except McpUnavailable as error:
            if not server.optional:
                raise
            self._away[server.place] = asyncio.get_running_loop().time() + AWAY
            _log.warning("going on without for %g seconds: %s", AWAY, words_of(error))
            return []

    async def _tools(self, server: McpServer, *, refresh: bool = False) -> list[Tool]:
        connection = self._connections.setdefault(server.place, Connection(server))
        listed = await connection.tools(refresh=refresh)
        known = self._made.get(server)
        if known is None or known[0] is not listed:
            known = self._made[server] = (listed, mcp_tools(server, listed, connection.call))
        return known[1]
