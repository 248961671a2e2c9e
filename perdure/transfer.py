"""Agents that hand a conversation over to one another, inside one session.

An agent with ``sub_agents`` is given the tool ``transfer_to_agent``, and so is each of them. What the call
writes is a key of the session's state: so the next step, and the next turn, are the other agent's, and a
rewind brings the one before back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from typing import TYPE_CHECKING, Literal

from perdure.agenttool import AgentTool
from perdure.context import ToolContext
from perdure.errors import InvalidAgent
from perdure.instructions import state_keys
from perdure.tool import Tool, tool
from perdure.types import Json, JsonObject

if TYPE_CHECKING:
    from perdure.agent import Agent

__all__ = ["ACTING", "TRANSFER", "acting", "agent_tool", "check_team", "keys_of", "member", "team_of"]

ACTING = "perdure:agent"
"""The key of the state that has the name of the agent which the conversation was handed to."""
TRANSFER = "transfer_to_agent"

_HAND_OVER = """\
You can hand the conversation over to another agent by calling {tool}:
{agents}
If one of them is better suited to answer than you are, call it at once and say nothing else."""


def team_of(agent: Agent) -> Iterator[Agent]:
    """The agent, and all those below it."""
    yield agent
    for below in agent.sub_agents:
        yield from team_of(below)


def check_team(agent: Agent) -> None:
    """Whether the agents of a team can be told apart.

    Raises:
        InvalidAgent: two have one name, or one has a tool where the runtime puts its own.
    """
    names: set[str] = set()
    asked: dict[str, AgentTool] = {}
    for each in team_of(agent):
        for its in each.tools:
            if isinstance(its, AgentTool) and asked.setdefault(its.name, its).agent != its.agent:
                raise InvalidAgent(
                    f"agent {agent.name!r}: in its team {its.name!r} is two different agents; give one "
                    "another name with AgentTool(…, name=…)"
                )
        if each.name in names:
            raise InvalidAgent(
                f"agent {agent.name!r} has two agents named {each.name!r} in its team; rename one"
            )
        names.add(each.name)
        if len(names) > 1 and any(each.tool(TRANSFER) for each in (agent, each)):
            raise InvalidAgent(f"agent {each.name!r}: the runtime gives agents of a team its own {TRANSFER}")


def agent_tool(agent: Agent, name: str) -> AgentTool | None:
    """The agent that one of a team may call by that name."""
    tools = (each.tool(name) for each in team_of(agent))
    return next((found for found in tools if isinstance(found, AgentTool)), None)


def acting(root: Agent, state: Mapping[str, Json], *, begins: bool = False) -> Agent:
    """The one of a team whose turn it is, equipped for it: see :func:`member`.

    Args:
        root: the session's agent.
        state: the session's.
        begins: the turn does: one from which there is no way back to the root has had its own.
    """
    name = str(state.get(ACTING, root.name))
    return member(root, root.name if begins and not _leads_back(root, name) else name)


def _leads_back(root: Agent, name: str) -> bool:
    """Whether an agent, and those above it, may hand the conversation over to the one above."""
    above = {found.name: over for found, over in _with_parents(root, None)}
    allowed = {found.name: not found.disallow_transfer_to_parent for found, _ in _with_parents(root, None)}
    while (over := above.get(name)) is not None:
        if not allowed[name]:
            return False
        name = over.name
    return True


def member(root: Agent, name: str) -> Agent:
    """The agent of that name, as it acts in a session with the root; the root where there is none any more.

    It has its own model, instruction, tools and output, and the root's limits, budget, compaction and memory.
    """
    if not root.sub_agents:
        return root
    equipped = root.equipped.get(name) or root.equipped.get(root.name)
    if equipped is None or equipped.name != name:
        for found, above in _with_parents(root, None):
            if found.name in (name, root.name):
                root.equipped[found.name] = _equipped(root, found, above)
        equipped = root.equipped.get(name) or root.equipped[root.name]
    return equipped


def keys_of(agent: Agent) -> tuple[str, ...]:
    """The keys of the state that a prompt of a session with the agent may need."""
    team = list(team_of(agent))
    keys = [key for each in team for key in state_keys(each.instruction)]
    return tuple(dict.fromkeys([*keys, ACTING] if len(team) > 1 else keys))


def _with_parents(agent: Agent, above: Agent | None) -> Iterator[tuple[Agent, Agent | None]]:
    yield agent, above
    for below in agent.sub_agents:
        yield from _with_parents(below, agent)


def _equipped(root: Agent, agent: Agent, above: Agent | None) -> Agent:
    peers = [each for each in (above.sub_agents if above is not None else ()) if each is not agent]
    upwards = [above] if above is not None and not agent.disallow_transfer_to_parent else []
    others = [*agent.sub_agents, *upwards, *([] if agent.disallow_transfer_to_peers else peers)]
    told = "\n".join(f"- {each.name}: {each.description}".rstrip(": ") for each in others)
    words = _HAND_OVER.format(tool=TRANSFER, agents=told)
    equipped = copy(agent.with_tools([_transfer([each.name for each in others])]) if others else agent)
    own = {name: getattr(root, name) for name in ("limits", "budget", "compaction", "memory")}
    if others:
        own["instruction"] = f"{agent.instruction}\n\n{words}".lstrip()
    for name, value in own.items():
        object.__setattr__(equipped, name, value)  # the dataclass is frozen
    return equipped


def _transfer(names: list[str]) -> Tool:
    def transfer_to_agent(agent_name: str, context: ToolContext) -> JsonObject:
        """Hand the conversation over to another agent, which goes on with it.

        Args:
            agent_name: Who.
        """
        context.state[ACTING] = agent_name
        return {"transferred_to": agent_name}

    transfer_to_agent.__annotations__["agent_name"] = Literal[tuple(names)]
    return tool(transfer_to_agent)
