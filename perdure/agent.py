"""An agent: a name, a model, an instruction, and the tools that it may use."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from perdure.agenttool import AgentTool
from perdure.budget import Budget
from perdure.checks import check_int, check_kind, check_seconds, check_text
from perdure.errors import InvalidAgent, InvalidContent
from perdure.jsonvalues import json_copy
from perdure.mcp import McpServer
from perdure.state import is_temp
from perdure.tool import Tool, tool
from perdure.transfer import check_team
from perdure.types import Json

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["DEFAULT_MODEL", "Agent", "Compaction", "Limits", "Memory"]

DEFAULT_MODEL = "gemini-3-flash-preview"

MOST_DIMENSIONS = 3_072
MOST_PRELOADED = 20

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_TAKEN_NAMES = frozenset({"user", "perdure"})
"""The other authors of events."""

_NOT_GENERATION = {
    "tools": "tools=[...]",
    "systeminstruction": "instruction=...",
    "automaticfunctioncalling": "nothing: the runtime itself calls the tools",
    "httpoptions": "the worker's settings",
    "cachedcontent": "nothing: it would stand in for the instruction and the tools",
}
_NOT_WITH_SCHEMA = dict.fromkeys(
    ("responsemimetype", "responseschema", "responsejsonschema"), "output_schema=... alone"
)


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """When the older part of a conversation is summed up, so that prompts stay short.

    Give ``interval``, ``tokens`` or both; whichever is met first. A prompt that the model refuses for
    its length is summed up at once, and tried once more.

    Args:
        interval: after how many invocations, 1 or more.
        overlap: how many of the last summed-up invocations the model still sees in full,
            and the next summary takes in again; at least 0 and less than ``interval``.
        model: who writes the summary; the agent's own model where None.
        prompt: what it is asked; a general request for a summary where None. The transcript
            is set apart from it, and the model told to follow nothing that stands in it.
        tokens: when the next prompt would begin with this many, by the model's own count
            for its last answer, or an estimate where it gives none. At least a quarter of
            it must leave the prompt, so that a long instruction doesn't cost a summary a turn.

    Raises:
        InvalidAgent: neither of the two, or numbers that make no sense together.
    """

    interval: int | None = None
    overlap: int = 0
    model: str | None = None
    prompt: str | None = None
    tokens: int | None = None

    def __post_init__(self) -> None:
        if self.interval is None and self.tokens is None:
            raise InvalidAgent("Compaction() would never sum up; give interval=... or tokens=...")
        for name in ("interval", "tokens"):
            if (given := getattr(self, name)) is not None:
                check_int(f"Compaction.{name}", given, least=1)
        check_int("Compaction.overlap", self.overlap, least=0)
        if self.interval is not None and self.overlap >= self.interval:
            raise InvalidAgent(
                f"Compaction(interval={self.interval}, overlap={self.overlap}): each summary would take in "
                "nothing but what the one before did; overlap must be less than interval"
            )
        for name in ("model", "prompt"):
            check_text(f"Compaction.{name}", getattr(self, name), optional=True)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How far a turn may go. What goes past a limit ends in a typed error, and the session lives on.

    Args:
        steps: model calls a turn.
        tokens: what the model calls of a turn may take together, prompts and answers, by the
            model's own count: from there on it is not asked again. No limit where None.
        turn_timeout: seconds a turn may take, from the moment it is begun, whatever it is at; a
            running tool is cancelled. Between two tries of its first model call it is looked at when
            the next one begins. The time in which all that is left of it waits for a person or
            the world does not count. No limit where None.
        waiting_timeout: seconds that a call may wait for a person or the world, where neither it
            nor its tool says another number. No limit where None.
        model_timeout: seconds one try of a model call may take.
        model_attempts: tries of one model call, if it fails in a way that may pass.
        tool_timeout: seconds one run of a tool may take that sets no ``timeout`` of its own.
        tool_attempts: tries of one tool call when it is the worker that dies. (When the tool
            itself raises, its own ``retries`` count.)
        result_chars: characters of JSON that a tool's result may have; a longer one goes to an
            artifact, and the model sees its beginning, its end and how to read on.
        message_chars: the same for the texts in the user's message, together; the longest go first.
        inline_bytes: bytes of inline data (a picture, a PDF) that an event may hold; more goes to an
            artifact. The model sees media in full all the same.
        media_chars: characters of base64 that one prompt may hold of such media; the oldest are
            then named only. Gemini takes requests of 20 MB.
        agent_calls: calls of other agents a turn; the model is told of those that are not made.
        agent_depth: how many agents may have called one another down to one that this agent calls:
            with 1 it calls others only where a user talks to it.

    Raises:
        InvalidAgent: a limit that is not above 0, or ``result_chars`` or ``message_chars`` below 1,000.
    """

    steps: int = 32
    tokens: int | None = None
    turn_timeout: float | None = None
    waiting_timeout: float | None = None
    model_timeout: float = 120.0
    model_attempts: int = 10
    tool_timeout: float = 300.0
    tool_attempts: int = 5
    result_chars: int = 32_000
    message_chars: int = 200_000
    inline_bytes: int = 32_768
    media_chars: int = 14_000_000
    agent_calls: int = 32
    agent_depth: int = 3

    def __post_init__(self) -> None:
        for name in ("steps", "model_attempts", "tool_attempts", "inline_bytes", "media_chars"):
            check_int(f"Limits.{name}", getattr(self, name), least=1)
        for name in ("agent_calls", "agent_depth"):
            check_int(f"Limits.{name}", getattr(self, name), least=0)
        for name in ("result_chars", "message_chars"):
            check_int(f"Limits.{name}", getattr(self, name), least=1_000)
        if self.tokens is not None:
            check_int("Limits.tokens", self.tokens, least=1)
        for name in ("model_timeout", "tool_timeout"):
            check_seconds(f"Limits.{name}", getattr(self, name))
        for name in ("turn_timeout", "waiting_timeout"):
            check_seconds(f"Limits.{name}", getattr(self, name), optional=True)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What an agent's sessions leave to the user's other sessions: ``docs/memory.md``.

    Args:
        on_end: whether ``end`` puts what is live of a session into its user's memory. ``remember``
            does so at any moment, whatever this says.
        embedding_model: a Gemini model whose vectors find passages by their meaning, too, such as
            ``gemini-embedding-001``; where None, only their words do.
        dimensions: of the vectors, 8 to 3,072.
        preload: how many passages, up to 20, the model is shown with the user's message without having
            asked: those that the message finds.

    Raises:
        InvalidAgent: a model without a name, or a number that makes no sense.
    """

    on_end: bool = True
    embedding_model: str | None = None
    dimensions: int = 768
    preload: int = 0

    def __post_init__(self) -> None:
        check_kind("Memory.on_end", self.on_end, bool)
        check_text("Memory.embedding_model", self.embedding_model, optional=True)
        check_int("Memory.dimensions", self.dimensions, least=8)
        if self.dimensions > MOST_DIMENSIONS:
            raise InvalidAgent(f"Memory.dimensions is {self.dimensions}; it is at most {MOST_DIMENSIONS}")
        check_int("Memory.preload", self.preload, least=0)
        if self.preload > MOST_PRELOADED:
            raise InvalidAgent(f"Memory.preload is {self.preload}; it is at most {MOST_PRELOADED}")


@dataclass(frozen=True, init=False, repr=False)
class Agent:
    """Who answers in a session. Defined at the top level of a module that a worker loads.

    Changing one never breaks a session that is running: the next step simply uses what
    the worker then has.

    Args:
        name: what sessions know it by; letters, digits, ``_``, ``.`` and ``-``.
        model: a Gemini model.
        instruction: what it is and how it should behave; may name state keys, as in
            ``Counters: {counters?}`` (see :mod:`perdure.instructions`).
        description: what it is good for, for people and other agents.
        tools: functions, or what ``@tool`` made of them; kept as a tuple of :class:`Tool`. Other agents, or
            :class:`AgentTool`, may stand among them, each call of which is a session of its own; and
            a :class:`McpServer`.
        sub_agents: other agents that it may hand the conversation over to, and they to it and to one
            another; the session stays one, with the limits, budget, compaction and memory of this one.
        compaction: when to sum up; never where None.
        limits: how far a turn may go; ``Limits()`` where None.
        memory: what its sessions leave to the user's others; nothing by itself where None.
        budget: what a session may spend; nothing is bounded where None.
        output_schema: a pydantic model that the answer of a turn has to fit, as JSON. The model is told
            to mend one that does not, once; then the turn ends in :class:`perdure.errors.InvalidAnswer`.
        output_key: the key of the state to which the answer of a turn is written: what it is as JSON
            where there is an ``output_schema``, else its text.
        generation: further fields of google-genai's ``GenerateContentConfig``, as JSON:
            ``{"temperature": 0.2, "thinking_config": {"thinking_budget": 0}}``.
        servers: MCP servers; what tools they have is known once a worker has connected.
        disallow_transfer_to_parent: as one of ``sub_agents``, it may not hand the conversation back to the
            one above it. The next turn is the first agent's all the same: nobody is stuck with it.
        disallow_transfer_to_peers: nor to the others below that one.

    Raises:
        InvalidAgent: something in it cannot work; the message says what to do.
    """

    name: str
    model: str
    instruction: str
    description: str
    tools: tuple[Tool, ...]
    compaction: Compaction | None
    limits: Limits
    memory: Memory | None
    budget: Budget | None
    output_schema: type[BaseModel] | None
    output_key: str | None
    generation: dict[str, Json] | None = field(hash=False)
    servers: tuple[McpServer, ...]
    sub_agents: tuple[Agent, ...]
    disallow_transfer_to_parent: bool
    disallow_transfer_to_peers: bool
    equipped: dict[str, Agent] = field(init=False, hash=False, compare=False)
    """Those of its team as they act in a session with it; see :mod:`perdure.transfer`."""

    def __init__(
        self,
        name: str,
        model: str = DEFAULT_MODEL,
        instruction: str = "",
        description: str = "",
        tools: Iterable[Tool | Agent | McpServer | Callable[..., Any]] = (),
        compaction: Compaction | None = None,
        limits: Limits | None = None,
        generation: Mapping[str, Json] | None = None,
        memory: Memory | None = None,
        budget: Budget | None = None,
        output_schema: type[BaseModel] | None = None,
        output_key: str | None = None,
        servers: Iterable[McpServer] = (),
        sub_agents: Iterable[Agent] = (),
        disallow_transfer_to_parent: bool = False,
        disallow_transfer_to_peers: bool = False,
    ) -> None:
        _check_name(name)
        what = f"agent {name!r}"
        check_text(f"{what}: model", model)
        check_text(f"{what}: instruction", instruction, empty=True)
        check_text(f"{what}: description", description, empty=True)
        check_kind(f"{what}: compaction", compaction, Compaction, optional=True)
        check_kind(f"{what}: limits", limits, Limits, optional=True)
        check_kind(f"{what}: memory", memory, Memory, optional=True)
        check_kind(f"{what}: budget", budget, Budget, optional=True)
        if output_schema is not None:
            from perdure.structured import check_schema  # pydantic is slow to import, and few need it here

            check_schema(f"{what}: output_schema", output_schema)
        _check_key(f"{what}: output_key", output_key)
        check_kind(f"{what}: disallow_transfer_to_parent", disallow_transfer_to_parent, bool)
        check_kind(f"{what}: disallow_transfer_to_peers", disallow_transfer_to_peers, bool)
        functions, among = _apart(tools, what)
        servers = (*servers, *among)
        for server in servers:
            check_kind(f"{what}: servers", server, McpServer)
        fields = {
            "name": name,
            "model": model,
            "instruction": instruction,
            "description": description,
            "tools": _tools(functions, what),
            "compaction": compaction,
            "limits": limits or Limits(),
            "memory": memory,
            "budget": budget,
            "output_schema": output_schema,
            "output_key": output_key,
            "generation": _generation(generation, what, structured=output_schema is not None),
            "servers": servers,
            "sub_agents": _sub_agents(sub_agents, what),
            "disallow_transfer_to_parent": disallow_transfer_to_parent,
            "disallow_transfer_to_peers": disallow_transfer_to_peers,
            "equipped": {},
        }
        for field_name, value in fields.items():
            object.__setattr__(self, field_name, value)  # the dataclass is frozen from here on
        check_team(self)

    def tool(self, name: str) -> Tool | None:
        """The tool of that name, or None."""
        return next((found for found in self.tools if found.name == name), None)

    def with_tools(self, more: Iterable[Tool]) -> Agent:
        """The same agent with more tools.

        Raises:
            InvalidAgent: two of one name.
        """
        equipped = copy(self)
        object.__setattr__(equipped, "tools", _tools([*self.tools, *more], f"agent {self.name!r}"))
        return equipped

    def __repr__(self) -> str:
        tools = ", ".join(item.name for item in self.tools)
        return f"Agent({self.name!r}, model={self.model!r}, tools=[{tools}])"


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidAgent(
            f"{name!r} cannot be the name of an agent: up to 64 ASCII letters, digits, _ . and -, "
            "beginning with a letter or _"
        )
    if name.lower() in _TAKEN_NAMES:
        raise InvalidAgent(f"an agent cannot be named {name!r}: events of others are signed with it")


def _apart(given: object, what: str) -> tuple[list[object], tuple[McpServer, ...]]:
    """What was given as tools, the MCP servers apart."""
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise InvalidAgent(f"{what}: tools is {given!r}; it is a list of functions")
    items = list(given)
    servers = tuple(item for item in items if isinstance(item, McpServer))
    return [item for item in items if not isinstance(item, McpServer)], servers


def _sub_agents(given: object, what: str) -> tuple[Agent, ...]:
    items = tuple(given) if isinstance(given, Iterable) else (given,)
    agents = tuple(item for item in items if isinstance(item, Agent))
    if len(agents) < len(items):
        raise InvalidAgent(f"{what}: sub_agents is {given!r}; it is a list of agents")
    return agents


def _tools(given: Iterable[object], what: str) -> tuple[Tool, ...]:
    tools: dict[str, Tool] = {}
    for item in given:
        if isinstance(item, Agent):
            item = AgentTool(item)
        if not callable(item):
            raise InvalidAgent(f"{what}: {item!r} in tools is not a function nor what @tool made of one")
        declared = item if isinstance(item, Tool) else tool(item)
        if declared.name in tools:
            raise InvalidAgent(
                f"{what} has two tools named {declared.name!r}; the model could not tell them apart: "
                "rename one with tool(name='...'), or give its MCP server a prefix"
            )
        tools[declared.name] = declared
    return tuple(tools.values())


def _check_key(what: str, key: object) -> None:
    check_text(what, key, optional=True)
    if isinstance(key, str) and is_temp(key):
        raise InvalidAgent(
            f"{what} is {key!r}; such keys end with the turn, and nothing reads this one before"
        )


def _generation(given: object, what: str, *, structured: bool) -> dict[str, Json] | None:
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise InvalidAgent(f"{what}: generation is {given!r}; it is a dict of GenerateContentConfig fields")
    taken = _NOT_GENERATION | (_NOT_WITH_SCHEMA if structured else {})
    for key in given:
        instead = taken.get(str(key).replace("_", "").lower())
        if instead:
            raise InvalidAgent(f"{what}: generation has {key!r}, which the runtime sets; use {instead}")
    try:
        copied: dict[str, Json] = json_copy(given, "generation")
    except InvalidContent as error:
        raise InvalidAgent(f"{what}: {error}") from error
    return copied
