"""MCP servers whose tools an agent is given.

    from perdure import Agent, McpServer

    files = McpServer.stdio("npx", ["-y", "@modelcontextprotocol/server-filesystem", "/srv/files"])
    tickets = McpServer.http(
        "https://tickets.example.com/mcp", headers={"Authorization": f"Bearer {token}"}, confirm={"close"}
    )
    agent = Agent(name="helper", tools=[files, tickets])

What is declared here is only where a server is and how its tools are used. A worker connects to it when an
agent first needs it, and needs the package ``mcp`` for that: ``pip install 'perdure[mcp]'``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, TypedDict, Unpack
from urllib.parse import urlsplit

from perdure.checks import check_int, check_seconds, check_text
from perdure.errors import InvalidAgent
from perdure.tool import OnTimeout

__all__ = ["McpOptions", "McpServer"]

McpConfirm = bool | Collection[str] | Callable[[str, dict[str, Any]], bool]

_PREFIX = re.compile(r"([A-Za-z_][A-Za-z0-9_.:-]{0,31})?")


class McpOptions(TypedDict, total=False):
    """What can be said of a server's tools; see :class:`McpServer`."""

    name: str
    prefix: str
    only: Iterable[str] | None
    without: Iterable[str]
    confirm: McpConfirm
    confirm_timeout: float | None
    on_timeout: OnTimeout
    timeout: float | None
    retries: int
    optional: bool
    connect_timeout: float


@dataclass(frozen=True, kw_only=True)
class McpServer:
    """A server and how its tools are used; made by :meth:`stdio` or :meth:`http`, and given to an agent.

    Args:
        command: the program and its arguments, of a server that a worker starts.
        env: what the program finds in its environment beside PATH, HOME and the like.
        cwd: where it is started.
        url: of a server that runs.
        headers: sent with each request to it.
        name: what errors and logs call it; its host or its program where empty.
        prefix: put before the names of its tools.
        only: the tools that the agent gets, by the server's names for them; all where None.
        without: those that it does not get.
        confirm: a person must say yes to its calls: to all, to those of the tools named, or to those of
            which a function of the tool's name and the arguments says so. One that raises asks.
        confirm_timeout: as for ``@tool``, and likewise:
        on_timeout: what becomes of a call that nobody approved of in time.
        timeout: seconds one call may take; the agent's ``limits.tool_timeout`` where None.
        retries: how many more times to make a call that failed. One that the server answered with an
            error (``isError``) has not failed: the model is told.
        optional: where the server cannot be reached, ask the model without its tools; else the turn waits.
        connect_timeout: seconds until the server must have answered.

    Raises:
        InvalidAgent: it cannot be used like that; the message says why.
    """

    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    cwd: str | None = None
    url: str | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    name: str = ""
    prefix: str = ""
    only: frozenset[str] | None = None
    without: frozenset[str] = frozenset()
    confirm: bool | frozenset[str] | Callable[[str, dict[str, Any]], bool] = False
    confirm_timeout: float | None = None
    on_timeout: OnTimeout = "refuse"
    timeout: float | None = None
    retries: int = 0
    optional: bool = False
    connect_timeout: float = 30.0

    @classmethod
    def stdio(
        cls,
        command: str,
        args: Iterable[str] = (),
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        **options: Unpack[McpOptions],
    ) -> McpServer:
        """A server that each worker starts for itself, and speaks to over its stdin and stdout."""
        texts = {"command": command, **{f"argument {arg!r}": arg for arg in args}}
        for what, text in texts.items():
            check_text(f"McpServer.stdio: {what}", text, empty=what != "command")
        return cls._made({"command": (command, *args), "env": _pairs("env", env), "cwd": cwd}, options)

    @classmethod
    def http(
        cls, url: str, *, headers: Mapping[str, str] | None = None, **options: Unpack[McpOptions]
    ) -> McpServer:
        """A server that runs, and is spoken to over streamable HTTP."""
        check_text("McpServer.http: url", url)
        if urlsplit(url).scheme not in ("http", "https"):
            raise InvalidAgent(f"McpServer.http: {url!r} is no URL of http or https")
        return cls._made({"url": url, "headers": _pairs("headers", headers)}, options)

    @classmethod
    def _made(cls, place: dict[str, Any], options: McpOptions) -> McpServer:
        given: dict[str, Any] = {**options}
        for name in ("only", "without", "confirm"):
            if name in given:
                given[name] = _names(name, given[name])
        return cls(**place, **given)

    def __post_init__(self) -> None:
        what = f"MCP server {self.title!r}"
        if bool(self.command) == (self.url is not None):
            raise InvalidAgent(f"{what} is made by McpServer.stdio(...) or McpServer.http(...)")
        if not _PREFIX.fullmatch(self.prefix):
            raise InvalidAgent(
                f"{what}: prefix is {self.prefix!r}; it has at most 32 ASCII letters, digits, _ . : and -, "
                "and begins with a letter or _"
            )
        if self.only is not None and not self.only - self.without:
            raise InvalidAgent(f"{what}: only and without leave no tool")
        if inspect.iscoroutinefunction(self.confirm):
            raise InvalidAgent(f"{what}: confirm is a coroutine function; it is a sync one")
        if self.on_timeout not in ("refuse", "approve", "fail"):
            raise InvalidAgent(
                f"{what}: on_timeout is {self.on_timeout!r}; it is 'refuse', 'approve' or 'fail'"
            )
        if not self.confirm and (self.confirm_timeout is not None or self.on_timeout != "refuse"):
            raise InvalidAgent(f"{what}: confirm_timeout and on_timeout say nothing without confirm")
        check_int(f"{what}: retries", self.retries, least=0)
        check_seconds(f"{what}: timeout", self.timeout, optional=True)
        check_seconds(f"{what}: confirm_timeout", self.confirm_timeout, optional=True)
        check_seconds(f"{what}: connect_timeout", self.connect_timeout)

    @property
    def title(self) -> str:
        """What errors and logs call it. A URL's path and query stay out of them."""
        if self.name or self.url is None:
            return self.name or PurePath(*self.command[:1]).name or "?"
        return urlsplit(self.url).hostname or "?"

    @property
    def place(self) -> tuple[object, ...]:
        """Where it is: two of one place share a connection."""
        return (self.command, self.env, self.cwd, self.url, self.headers)

    def gives(self, tool: str) -> bool:
        """Whether the agent gets the tool that the server calls that."""
        return (self.only is None or tool in self.only) and tool not in self.without

    def confirms(self, tool: str) -> bool | Callable[[dict[str, Any]], bool]:
        """The ``confirm`` of the tool that the server calls that."""
        confirm = self.confirm
        if isinstance(confirm, frozenset):
            return tool in confirm
        if isinstance(confirm, bool):
            return confirm
        return lambda arguments: confirm(tool, arguments)

    @property
    def named(self) -> frozenset[str]:
        """The tools that the declaration names: a name that the server does not have is a mistake."""
        confirmed = self.confirm if isinstance(self.confirm, frozenset) else frozenset[str]()
        return (self.only or frozenset()) | self.without | confirmed


def _names(what: str, given: object) -> object:
    """Names as a set; what is none of that as it is."""
    if given is None or isinstance(given, bool) or callable(given):
        return given
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise InvalidAgent(f"McpServer: {what} is {given!r}; it is a list of names of tools")
    return frozenset(given)


def _pairs(what: str, given: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    pairs: list[tuple[object, object]] = list((given or {}).items())
    for name, value in pairs:
        if not (isinstance(name, str) and isinstance(value, str)):
            raise InvalidAgent(
                f"McpServer: {what} has {name!r}, which is no text or has a value that is none"
            )
    return tuple(sorted((given or {}).items()))
