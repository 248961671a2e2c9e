"""Calls of an agent: the session in which it is asked, what it answered, and what that took.

The session and its one message are there before its workflow is, and its answer is read from its log
afterwards. So between the two workflows nothing passes but ids.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

from temporalio import activity
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.service import RPCError, RPCStatusCode

from activities.asking_tasks import AWAIT_CHILD, COUNT_CHILD, AwaitTask, CountTask
from activities.budgets import append_bill, check_session_budget
from activities.fencing import still_wanted
from activities.prompt import calls_of, model_event_id
from activities.protocol import Asked, Child, ToolTask, call_id_of
from activities.runtime import beating, log, session_key, typed_errors
from activities.starting import WORKFLOW_ID_LENGTH
from activities.waits import parts_of_call_id
from perdure.agent import Agent
from perdure.agenttool import REQUEST, AgentTool, child_session_id, lineage
from perdure.errors import (
    CallNotFound,
    EventConflict,
    InvalidContent,
    InvocationNotFound,
    InvocationRewound,
    LimitExceeded,
    SessionEnded,
    SessionExists,
    SessionNotFound,
)
from perdure.logs import words_of
from perdure.structured import json_of
from perdure.types import Event, Json, JsonObject, Session, SessionKey, Spent
from storage.sessions import Confirm, SessionStore
from storage.spending import counts_of
from storage.turns import is_final

__all__ = ["Asking", "AskingActivities", "Said", "rewind_children"]


_REWOUND_OTHERWISE = (InvocationNotFound, InvocationRewound, SessionEnded, EventConflict, InvalidContent)
"""Of a child that a user has talked to, and rewound or ended, or has forged: it is left as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What came of asking."""

    result: JsonObject = field(default_factory=dict[str, Json])
    error: str | None = None
    meta: JsonObject = field(default_factory=dict[str, Json])
    """What the response's meta says of it: the session, and what it took."""


class Asking:
    """One call of an agent.

    Args:
        store: where sessions live.
        key: the session that asks.
        agent: the agent that asks.
        tool: the agent that is asked.
        task: the call.
    """

    def __init__(
        self, store: SessionStore, key: SessionKey, agent: Agent, tool: AgentTool, task: ToolTask
    ) -> None:
        self._store = store
        self._key = key
        self._agent = agent
        self._tool = tool
        self._task = task
        self._call_id = call_id_of(task.invocation_id, task.step, task.index)
        self._child = replace(key, session_id=child_session_id(key.session_id, tool.name, self._call_id))

    async def begin(self, session: Session, arguments: JsonObject) -> Child:
        """Make its session, and leave there what it is asked. Done twice it is the same as once.

        Raises:
            InvalidArguments, InvalidContent: that cannot be asked.
            LimitExceeded: too many calls, too deep, nothing is left of the session's budget, or the names
                are too long for another workflow.
        """
        checked = self._tool.checked(arguments)
        check_session_budget(self._key, self._agent, session.spent)
        await self._check_limits()
        content = {"role": "user", "parts": [{"text": str(checked["request"])}]}
        try:
            about = {"parent": self._key.session_id, "call": self._call_id, "agent": self._tool.agent.name}
            await self._store.create(self._child, metadata=about, confirm=still_wanted)
        except SessionExists:
            pass  # by an attempt before this one, or before Temporal's data was lost
        blob = await self._store.leave_message(self._child, REQUEST, content)
        return Child(session=self._child.session_id, blob=blob, tells=True)

    async def answer(self, asked: Asked) -> Said:
        """What it answered, from its log."""
        try:
            session = await self._store.get(self._child)
        except SessionNotFound:
            return Said(error=f"The session of {self._tool.name} was deleted before it had answered.")
        ended = [event for event in session.events if event.invocation_id == REQUEST and is_final(event)]
        meta = {"child": self._child.session_id, "spent": counts_of(session.spent)}
        last = ended[-1] if ended else None
        if last is None or last.error is not None or last.meta.get("interrupted"):
            return Said(error=self._why(last, asked), meta=meta)
        if not last.meta.get("structured"):
            return Said(result={"result": last.text}, meta=meta)
        value = json_of(last.text)
        return Said(result=value if isinstance(value, dict) else {"result": value}, meta=meta)

    def _why(self, last: Event | None, asked: Asked) -> str:
        if last is not None and last.error is not None:
            return f"{self._tool.name} failed: {last.error['type']}: {last.error['message']}"
        if last is None and asked.failure is not None:
            return f"{self._tool.name} failed: {asked.failure.type}: {asked.failure.message}"
        return f"{self._tool.name} was interrupted before it had answered."

    async def _check_limits(self) -> None:
        limits, name = self._agent.limits, self._tool.name
        if (length := len(self._child.workflow_id)) > WORKFLOW_ID_LENGTH:
            raise LimitExceeded(
                f"{name} was not asked: the names of its session would have {length} characters when "
                f"percent-encoded, and Temporal takes {WORKFLOW_ID_LENGTH}; do it yourself"
            )
        if len(lineage(self._key.session_id)) >= limits.agent_depth:
            raise LimitExceeded(
                f"{name} was not asked: agents may call one another {limits.agent_depth} deep, and this is "
                "deeper; do it yourself"
            )
        before = await self._calls_before()
        if before >= limits.agent_calls:
            raise LimitExceeded(
                f"{name} was not asked: this turn has asked other agents {before} times already, and "
                f"{limits.agent_calls} is the limit; go on with what you have"
            )

    async def _calls_before(self) -> int:
        """How many calls of agents the turn has made before this one, whatever became of them."""
        steps = [model_event_id(self._task.invocation_id, step + 1) for step in range(self._task.step)]
        _, found = await self._store.snapshot(self._key, steps)
        asked = [calls_of(found[step]) for step in steps if step in found]
        here = asked.pop()[: self._task.index]
        names = [call.get("name") for calls in [*asked, here] for call in calls]
        return sum(isinstance(self._agent.tool(str(name)), AgentTool) for name in names)


class AskingActivities:
    """The activities that see to agents whose calls are not as usual.

    Args:
        store: where sessions live.
    """

    def __init__(self, store: SessionStore) -> None:
        self._store = store

    @activity.defn(name=AWAIT_CHILD)
    @typed_errors
    async def await_child(self, task: AwaitTask) -> bool:
        """Wait until the workflow of an agent's session is closed, which has another parent, or had.

        Returns:
            Whether it is. It is not where it is no agent's that was asked: somebody talks to the session.
        """
        child = replace(session_key(), session_id=task.session)
        handle = activity.client().get_workflow_handle(child.workflow_id)
        async with beating():
            try:
                described = await handle.describe()
                if not described.raw_description.workflow_execution_info.HasField("parent_execution"):
                    return described.status is not WorkflowExecutionStatus.RUNNING
                await handle.result()
            except WorkflowFailureError:  # how it says that it was cancelled
                return True
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:
                    raise
        return True

    @activity.defn(name=COUNT_CHILD)
    @typed_errors
    async def count_child(self, task: CountTask) -> None:
        """Note in the log what an agent took whose answer will not come, once."""
        key = session_key()
        child = replace(key, session_id=task.session)
        async with beating():
            try:
                if await self._store.event(key, task.call_id) is not None:
                    return  # the response was quicker, and has counted it
                spent = (await self._store.get(child, max_events=0)).spent
                if spent == Spent():
                    return
                name = f"{task.call_id}:spent"
                await append_bill(self._store, key, name, spent, child=task.session)
            except (SessionNotFound, SessionEnded) as error:
                log(logging.INFO, "child.uncounted", key, task.call_id, "%s", type(error).__name__)


async def rewind_children(
    store: SessionStore, key: SessionKey, request_id: str, *, confirm: Confirm | None = None
) -> None:
    """After a rewind: rewind the sessions of the calls that are not live any more, and redo those that are
    again. Done twice it is the same as once, so what died halfway is finished by another attempt.

    Args:
        store: where sessions live.
        key: the session that was rewound.
        request_id: the rewind.
        confirm: asked before each commit; whatever it raises is raised.
    """
    children = await store.children(key)
    asked = {child.key: by for child in children if (by := _asked_by(child, key)) is not None}
    if not asked:
        return
    _, found = await store.snapshot(key, [*asked.values()])
    for child in children:
        event = found.get(asked.get(child.key, ""))
        if event is None or event.live == (child.metadata.get("rewound") is None):
            continue
        try:
            await _follow(store, child, request_id, confirm)
        except SessionNotFound:  # deleted meanwhile
            log(logging.INFO, "child.gone", child.key, request_id, "it was to be rewound")


async def _follow(store: SessionStore, child: Session, request_id: str, confirm: Confirm | None) -> None:
    """Rewind the session of a call, or redo it where it was rewound. The mark of that comes last: without
    it another attempt does all of it again, also below.
    """
    rewound = child.metadata.get("rewound")
    target, running, mark = (REQUEST, REQUEST, request_id) if rewound is None else (str(rewound), None, None)
    if child.head:  # else it was never asked
        try:
            await store.rewind(
                child.key, before=target, request_id=request_id, interrupt=running, confirm=confirm
            )
        except _REWOUND_OTHERWISE as error:
            log(logging.WARNING, "child.kept", child.key, request_id, "%s", words_of(error))
    await rewind_children(store, child.key, request_id, confirm=confirm)
    await store.update(
        child.key, metadata={"rewound": mark}, request_id=f"{request_id}:mark", confirm=confirm
    )


def _asked_by(child: Session, key: SessionKey) -> str | None:
    """The id of the answer that asked for the call; None of a session that no call of this one has asked."""
    if child.metadata.get("parent") != key.session_id:
        return None
    try:
        invocation_id, step, _ = parts_of_call_id(str(child.metadata.get("call")))
    except CallNotFound:  # an import may have brought anything
        return None
    return model_event_id(invocation_id, step)
