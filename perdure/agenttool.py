"""An agent as a tool of another.

    from perdure import Agent, AgentTool

    researcher = Agent(name="researcher", description="Looks one thing up.", instruction="…", tools=[search])
    planner = Agent(name="planner", instruction="…", tools=[researcher])

Each call runs in a session of its own, whose id says whose it is: ``{session}~{tool}~{call}``. It is of the
same app and the same user, so that both see the same ``app:`` and ``user:`` state.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from perdure.tool import Confirm, OnTimeout, Tool

if TYPE_CHECKING:
    from perdure.agent import Agent

__all__ = ["REQUEST", "AgentTool", "child_session_id", "is_child_of", "lineage"]

REQUEST = "request"
"""The invocation of a child session that answers the call."""

_CHILD = re.compile(r"(.+)~([A-Za-z_][A-Za-z0-9_.:-]{0,63})~[0-9a-f]{12}", re.DOTALL)


class AgentTool(Tool):
    """An agent that another may call. An agent among ``tools=[…]`` becomes one by itself.

    Args:
        agent: who answers.
        name: what the model calls it; the agent's name where None.
        description: what it does; the agent's description where None.
        confirm, confirm_timeout, on_timeout: as for ``@tool``.

    Raises:
        InvalidAgent: it cannot be declared; the message says why.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        name: str | None = None,
        description: str | None = None,
        confirm: Confirm = False,
        confirm_timeout: float | None = None,
        on_timeout: OnTimeout = "refuse",
    ) -> None:
        super().__init__(
            _asked,
            name=agent.name if name is None else name,
            description=(agent.description or None) if description is None else description,
            confirm=confirm,
            confirm_timeout=confirm_timeout,
            on_timeout=on_timeout,
        )
        self.agent = agent

    def _identity(self) -> tuple[object, ...]:
        return (*super()._identity(), self.agent)


def _asked(request: str) -> str:
    """Ask another agent, which knows nothing of this conversation.

    Args:
        request: All that it has to know to do what you want of it.
    """
    raise NotImplementedError("an agent is called by a session's workflow")


def child_session_id(session_id: str, tool: str, call_id: str) -> str:
    """The id of the session in which a call of an agent runs."""
    return f"{session_id}~{tool}~{hashlib.sha256(call_id.encode()).hexdigest()[:12]}"


def lineage(session_id: str) -> list[str]:
    """The tools by which a session came to be, the user's own first; none for the user's."""
    names: list[str] = []
    while found := _CHILD.fullmatch(session_id):
        session_id = found[1]
        names.insert(0, found[2])
    return names


def is_child_of(session_id: str, parent: str) -> bool:
    """Whether a session is of a call that this one, or a child of its own, has made."""
    while found := _CHILD.fullmatch(session_id):
        session_id = found[1]
        if session_id == parent:
            return True
    return False
