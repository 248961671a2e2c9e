"""One connection to an MCP server: made when it is needed, and again after it broke."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from activities.mcp_guard import guarded
from perdure.errors import InvalidAgent, McpUnavailable
from perdure.logs import words_of
from perdure.mcp import McpServer
from perdure.types import JsonObject

if TYPE_CHECKING:
    import httpx2
    import mcp_types as types
    from mcp import Client, MCPError
    from mcp.client import Transport

__all__ = ["Connection"]

MOST_PAGES = 100
"""Pages of a list of tools that are read; a server that never ends its list must not hold up a worker."""
QUIET = 300.0
"""Seconds without a byte after which a response over HTTP is given up, unless it is that of a call."""

_log = logging.getLogger("perdure.mcp")


class Connection:
    """A server, connected or not.

    A task of its own holds the connection: what it enters must be left in the same task.

    Args:
        server: where it is; of servers of one place any will do.
    """

    def __init__(self, server: McpServer) -> None:
        self._server = server
        self._lock = asyncio.Lock()
        self._held: _Held | None = None
        self._listed: list[types.Tool] | None = None
        self._stale = False
        self._failed: McpUnavailable | None = None
        """How the last try to reach it failed, if it did."""

    async def tools(self, *, refresh: bool = False) -> list[types.Tool]:
        """What the server lists; asked once, and again where it said that it has changed.

        Raises:
            McpUnavailable: it cannot be reached, or does not list them.
            InvalidAgent: its list has no end.
        """
        async with self._alone():
            held = await self._connected()
            if self._listed is None or self._stale or refresh:
                self._stale = False  # before it is asked: what it says meanwhile is not in the answer
                try:
                    async with asyncio.timeout(self._server.connect_timeout):
                        await held.hear_of_changes()
                        self._listed = await _all_tools(held.client.result(), self._server)
                except Exception as error:
                    self._let_go()
                    if isinstance(error, InvalidAgent):
                        raise
                    raise self._unavailable("does not list its tools", error) from error
                except asyncio.CancelledError:
                    self._stale = True
                    raise
            return self._listed

    async def call(self, name: str, arguments: JsonObject, meta: JsonObject) -> types.CallToolResult:
        """Call a tool.

        Raises:
            McpUnavailable: the server cannot be reached, or the connection broke before it answered.
            MCPError: it answered with an error that is none of the tool's.
        """
        from mcp import MCPError

        for again in (True, False):
            async with self._alone():
                client = (await self._connected()).client.result()
            try:
                return await client.call_tool(name, arguments, meta=meta)  # type: ignore[arg-type]  # any JSON
            except MCPError as error:
                if not _is_over(error):
                    raise
                self._let_go()
                if not (again and _was_not_run(error)):
                    raise self._unavailable(f"broke off the call of {name}", error) from error
        raise AssertionError("the second time returns or raises")

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """One at a time; who has waited while another failed to reach the server has failed, too.

        Else each of the many who wait for a server that says nothing would wait for as long again.
        """
        before = self._failed
        async with self._lock:
            failed = self._failed
            if failed is not None and failed is not before:
                raise McpUnavailable(str(failed))
            try:
                yield
            except McpUnavailable as error:
                self._failed = error
                raise
            self._failed = None

    async def close(self) -> None:
        """Disconnect; a server that was started here ends."""
        held, self._held = self._held, None
        if held is not None:
            held.let_go()
            await asyncio.wait([held.task])

    async def _connected(self) -> _Held:
        if self._held is not None and self._held.over.is_set():
            self._let_go()
        if self._held is None:
            held = _Held(self._server, self._changed)
            try:
                async with asyncio.timeout(self._server.connect_timeout):
                    await asyncio.shield(held.client)
            except BaseException as error:
                held.task.cancel()
                await asyncio.wait([held.task])
                if isinstance(error, Exception) and not isinstance(error, InvalidAgent):
                    raise self._unavailable("cannot be reached", error) from error
                raise
            self._held = held
        return self._held

    def _let_go(self) -> None:
        """Let the connection end; the next call makes another, to a server that may have other tools."""
        if self._held is not None:
            self._held.let_go()
        self._held = self._listed = None

    def _changed(self) -> None:
        self._stale = True

    def _unavailable(self, what: str, error: BaseException) -> McpUnavailable:
        if isinstance(error, TimeoutError):
            words = f"no answer within {self._server.connect_timeout:g} seconds"
        else:
            words = _innermost(error)
        return McpUnavailable(f"MCP server {self._server.title!r} {what}: {words}")


class _Held:
    """The task that holds a connection, until it is let go or breaks."""

    def __init__(self, server: McpServer, changed: Callable[[], None]) -> None:
        self.over = asyncio.Event()
        self.client: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._server = server
        self._changed = changed
        self._hearing: asyncio.Task[None] | None = None
        self.task = asyncio.create_task(self._hold())

    def let_go(self) -> None:
        self.over.set()

    async def hear_of_changes(self) -> None:
        """Have the server tell from now on when its tools change.

        Of its own accord it tells only clients of before 2026-07-28. The others hear of it through a stream,
        which may break off while the server still answers. Then there may be changes that nobody was told of.
        """
        from mcp_types.version import MODERN_PROTOCOL_VERSIONS

        client = self.client.result()
        tools = client.server_capabilities.tools
        if client.protocol_version not in MODERN_PROTOCOL_VERSIONS or tools is None or not tools.list_changed:
            return
        if self._hearing is None or self._hearing.done():
            begun = asyncio.Event()
            self._hearing = asyncio.create_task(self._hear(client, begun))
            await begun.wait()

    async def _hear(self, client: Client, begun: asyncio.Event) -> None:
        from mcp import MCPError
        from mcp.client.subscriptions import SubscriptionLost

        try:
            async with client.listen(tools_list_changed=True) as changes:
                begun.set()
                async for _ in changes:
                    self._changed()
            if not changes.honored.tools_list_changed:
                await self.over.wait()  # it tells of none, and need not be asked again
        except (MCPError, SubscriptionLost) as error:
            _log.info("MCP server %s tells of no changes: %s", self._server.title, words_of(error))
            if not begun.is_set():
                begun.set()
                await self.over.wait()
        finally:
            begun.set()
        self._changed()

    async def _hold(self) -> None:
        try:
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(self._new_client())
                self.client.set_result(client)
                try:
                    await self.over.wait()
                finally:
                    await self._stop_hearing()
        except Exception as error:  # noqa: BLE001 - whatever broke it, who needs it next is told
            if self.client.done():
                _log.info("MCP server %s: the connection broke: %s", self._server.title, words_of(error))
            else:
                self.client.set_exception(error)
        finally:
            self.over.set()
            if not self.client.done():
                self.client.cancel()
            elif not self.client.cancelled():
                self.client.exception()  # whoever waited for it may have given up

    def _new_client(self) -> Client:
        try:
            import mcp_types as types
            from mcp import Client
        except ImportError as error:
            raise InvalidAgent(
                f"MCP server {self._server.title!r} needs the package mcp: pip install 'perdure[mcp]'"
            ) from error

        async def heard(message: Any) -> None:
            if isinstance(message, types.ToolListChangedNotification):
                self._changed()

        transport = _transport(self._server, self.over)
        return Client(transport, message_handler=heard, cache=None)

    async def _stop_hearing(self) -> None:
        if self._hearing is not None:
            self._hearing.cancel()
            await asyncio.gather(self._hearing, return_exceptions=True)


class _Watched:
    """A stream of messages from a server, that says when it has ended."""

    def __init__(self, stream: Any, over: asyncio.Event) -> None:
        self._stream = stream
        self._over = over

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> _Watched:
        return self

    async def __anext__(self) -> Any:
        try:
            return await self._stream.__anext__()
        except StopAsyncIteration:
            self._over.set()
            raise

    async def __aenter__(self) -> _Watched:
        await self._stream.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        ended: bool | None = await self._stream.__aexit__(kind, error, trace)
        return ended


@asynccontextmanager
async def _streams(server: McpServer, over: asyncio.Event) -> AsyncIterator[Any]:
    async with AsyncExitStack() as stack:
        if server.url is None:
            from mcp import StdioServerParameters, stdio_client

            _find(server)
            command, *args = guarded(*server.command)
            given = StdioServerParameters(
                command=command, args=args, env=dict(server.env) or None, cwd=server.cwd
            )
            streams = await stack.enter_async_context(stdio_client(given, errlog=sys.stderr))
        else:
            import httpx2
            from mcp.client.streamable_http import streamable_http_client

            timeout = httpx2.Timeout(server.connect_timeout, read=QUIET)
            hooks = {"request": [_let_calls_take_their_time]}
            http = httpx2.AsyncClient(headers=dict(server.headers), timeout=timeout, event_hooks=hooks)
            await stack.enter_async_context(http)
            streams = await stack.enter_async_context(streamable_http_client(server.url, http_client=http))
        read, write = streams
        yield _Watched(read, over), write


async def _let_calls_take_their_time(request: httpx2.Request) -> None:
    """Whoever made a call gives it up when its time is over; until then a server need not say anything."""
    if request.method == "POST" and json.loads(request.content).get("method") == "tools/call":
        request.extensions["timeout"] = {**request.extensions["timeout"], "read": None}


def _find(server: McpServer) -> None:
    """Make sure that there is the program: its guard could only tell by ending.

    Raises:
        FileNotFoundError: there is none.
    """
    program = server.command[0]
    path = dict(server.env).get("PATH", os.environ.get("PATH"))
    named = Path(server.cwd or "", program) if os.path.dirname(program) else program
    if shutil.which(named, path=path) is None:
        raise FileNotFoundError(f"there is no program {program}")


def _transport(server: McpServer, over: asyncio.Event) -> Transport:
    return _streams(server, over)


async def _all_tools(client: Client, server: McpServer) -> list[types.Tool]:
    found: list[types.Tool] = []
    cursor: str | None = None
    followed: set[str] = set()
    for _ in range(MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        found.extend(page.tools)
        cursor = page.next_cursor
        if not cursor:  # some servers send an empty one where they should send none
            return found
        if cursor in followed:
            raise InvalidAgent(
                f"MCP server {server.title!r} lists its tools in a circle: the cursor of a page comes again; "
                "the server is to be mended, or left out"
            )
        followed.add(cursor)
    raise InvalidAgent(
        f"MCP server {server.title!r} lists its tools on more than {MOST_PAGES} pages; "
        "have it list more of them on a page, or leave it out"
    )


def _is_over(error: MCPError) -> bool:
    """Whether the connection ended with it, or the server forgot it."""
    from mcp_types import CONNECTION_CLOSED

    return error.code == CONNECTION_CLOSED or _was_not_run(error)


def _was_not_run(error: MCPError) -> bool:
    """Whether the server forgot the session, having restarted perhaps: then it has not run the call."""
    from mcp_types import INVALID_REQUEST

    return error.code == INVALID_REQUEST and error.message == "Session terminated"


def _innermost(error: BaseException) -> str:
    """What really went wrong; task groups wrap it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
