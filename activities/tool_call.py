"""One call of a tool: what its activity runs and writes, or finds it has to wait for."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial

from temporalio.exceptions import ApplicationError

from activities.asking import Asking
from activities.builtin_tools import builtin_tool
from activities.fencing import still_wanted
from activities.memory import CallMemory, Memories
from activities.oversize import fit_response
from activities.prompt import response_event_id
from activities.protocol import Answer, Asked, Resolution, ToolOutcome, ToolTask
from activities.remote import remote_call
from activities.runtime import log
from activities.tool_artifacts import CallArtifacts
from activities.waits import (
    OLD_WORKFLOW,
    answer_to,
    approval_event_id,
    approval_of,
    approved,
    begun_event_id,
    begun_of,
    in_short,
    settled_meta,
    ticket_of,
    too_long,
    wait_ids,
)
from perdure.agent import Agent
from perdure.agenttool import AgentTool
from perdure.context import ToolContext
from perdure.errors import (
    InvalidArguments,
    InvalidContent,
    InvalidMessage,
    LimitExceeded,
    StorageUnavailable,
)
from perdure.logs import words_of
from perdure.pause import Pause
from perdure.state import State
from perdure.tool import Tool
from perdure.types import Event, Json, JsonObject, Session, SessionKey
from storage.sessions import SessionStore

__all__ = ["Call"]

CALLED_WITH = "called_with"
"""Of a response, and of a ticket's meta: the arguments that a person has put in place of the model's."""
LONGEST_ERROR = 1_000
"""Characters that an event's error keeps of what a tool raised; the response has the rest."""


class Call:
    """One try of one call."""

    def __init__(
        self,
        store: SessionStore,
        key: SessionKey,
        agent: Agent,
        task: ToolTask,
        call: JsonObject,
        state: State,
        memories: Memories,
    ) -> None:
        self._store = store
        self._memory = CallMemory(memories, key)
        self._key = key
        self._task = task
        self._call = call
        self._name = str(call.get("name"))
        self._builtin = builtin_tool(agent, self._name)
        self._tool = agent.tool(self._name) or self._builtin
        self._agent = agent
        self._id = response_event_id(task.invocation_id, task.step, task.index)
        self._tries = 0
        self._value: Json = None
        """What a person or the world sent with the resolution."""
        self._had: Json = None
        """The other arguments that the tool had when it left its ticket."""
        self._stop = threading.Event()
        self._artifacts = CallArtifacts(store, key, task.invocation_id, self._id)
        self._state = state

    async def without_running(self, found: Mapping[str, Event]) -> Event | None:
        """The event to write where the tool is not to run now; None where it is.

        Args:
            found: what the log has of the call.
        """
        asked, begun = (found.get(name) for name in wait_ids(self._task))
        self._had = begun.meta.get(CALLED_WITH) if begun is not None else None
        resolution = self._task.resolution
        if approved(resolution) and begun is not None:
            return begun  # that a person said yes was heard before, and the tool has run
        if resolution is not None:
            try:
                self._value = await self._value_of(resolution)
            except InvalidMessage as error:
                return self._failed(str(error))
        if self._task.answer is not None:
            return self._answered(self._task.answer)
        if self._task.asked is not None:
            return await self._answered_by_agent(self._task.asked)
        if resolution is None:
            return self._held(asked, begun)
        if approved(resolution):
            return None
        answer = answer_to(resolution, begun, asked, self._value)
        return self._failed(answer.error) if answer.error else self._response(answer.response)

    def _held(self, asked: Event | None, begun: Event | None) -> Event | None:
        """The event that says that the call waits, if it does."""
        if self._tool is None:
            return None
        if begun is None and asked is None and not self._tool.needs_approval(self._call.get("args") or {}):
            return None
        if not self._task.may_wait:
            return self._response({"error": OLD_WORKFLOW})
        wait = approval_of(self._tool, self._agent.limits)
        return (
            begun
            or asked
            or self._note(approval_event_id(self._task), ticket_of(self._task, self._name, wait))
        )

    async def elsewhere(self, session: Session) -> ToolOutcome | Event | None:
        """What is to run for it elsewhere; or the response, where that cannot be; None where it runs here."""
        tool = self._tool
        if tool is None or (tool.activity is None and not isinstance(tool, AgentTool)):
            return None
        if not self._task.may_wait:
            return self._response({"error": OLD_WORKFLOW})
        try:
            if isinstance(tool, AgentTool):
                asking = Asking(self._store, self._key, self._agent, tool, self._task)
                return ToolOutcome(child=await asking.begin(session, self._arguments))
            return ToolOutcome(remote=remote_call(tool, self._arguments, self._agent.limits))
        except (InvalidArguments, InvalidContent, LimitExceeded) as error:
            return self._failed(str(error))

    async def run(self, tries: int, threads: Executor) -> Event:
        """Run the tool; whatever it raises becomes the response that the model sees.

        Raises:
            StorageUnavailable: the tool let a database's outage through. That is not its own error, and
                no response of it could be kept now; so it is run again, as after the death of a worker.
        """
        self._tries = tries
        if self._tool is None:
            names = ", ".join(tool.name for tool in self._agent.tools) or "none"
            return self._response({"error": f"There is no tool named {self._name!r}. There are: {names}."})
        if tries > self._agent.limits.tool_attempts:
            return self._response({"error": f"The worker died in each of {tries - 1} tries of this call."})
        scope = asyncio.timeout(self._limit(self._tool))
        try:
            async with scope:
                result = await self._run_tool(self._tool, tries, threads)
        except (InvalidArguments, InvalidContent) as error:
            return self._failed(str(error))
        except StorageUnavailable:
            raise
        except (Exception, asyncio.CancelledError) as error:
            # Foreign code: all that it raises is the model's to see, but for the end of this activity.
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            if scope.expired():
                return self._failed(f"It took longer than {self._limit(self._tool):g} seconds.")
            self._log(logging.WARNING, "tool.error", f"{self._name} try {tries}: {words_of(error)}")
            if tries < self._tool.attempts:
                # Its words stay out of Temporal's history.
                kind = type(error).__name__
                raise ApplicationError(f"{self._name} raised in try {tries}", type=kind) from None
            return self._failed(f"{type(error).__name__}: {error}")
        return self._ran(self._tool, result)

    def _answered(self, answer: Answer) -> Event:
        """What is written when it has run elsewhere."""
        if answer.error is not None:
            # Its words are in the log of the session.
            self._log(logging.WARNING, "tool.error", f"{self._name} failed on another task queue")
            return self._failed(answer.error)
        result = answer.value if isinstance(answer.value, dict) else {"result": answer.value}
        return self._response(result)

    async def _answered_by_agent(self, asked: Asked) -> Event:
        """What is written when the agent that it asked is done, with what that took."""
        if not isinstance(self._tool, AgentTool):
            return self._failed(f"{self._name} was an agent when it was asked, and is none any more.")
        asking = Asking(self._store, self._key, self._agent, self._tool, self._task)
        said = await asking.answer(asked)
        event = self._response(said.result) if said.error is None else self._failed(said.error)
        return replace(event, meta={**event.meta, **said.meta})

    def _ran(self, tool: Tool, result: JsonObject | Pause) -> Event:
        """What is written when the tool has run: its result, or that there is more to wait for."""
        wait = begun_of(tool, self._agent.limits, result)
        if wait is None and not isinstance(result, Pause):
            return self._response(result, state_delta=self._state.delta, artifact_delta=self._artifacts.saved)
        assert wait is not None, "a pause is waited for"
        if not self._task.may_wait:
            return self._response({"error": OLD_WORKFLOW})
        ticket = None if isinstance(result, Pause) else result
        if too_long(ticket, self._agent.limits):
            return self._failed(f"Its ticket has more than {self._agent.limits.result_chars} characters.")
        meta = ticket_of(self._task, self._name, wait, ticket)
        if self._changed:
            meta[CALLED_WITH] = in_short(self._arguments)
        return self._note(
            begun_event_id(self._task),
            meta,
            state_delta=self._state.delta,
            artifact_delta=self._artifacts.saved,
        )

    async def forget_value(self) -> None:
        """What was left in the store has arrived."""
        resolution = self._task.resolution
        if resolution is not None and resolution.blob is not None:
            await self._store.forget_message(self._key, resolution.blob)

    async def commit(self, event: Event) -> Event:
        """Append the response, with its effects, in one transaction; what is too large of it put away.

        Raises:
            StateConflict: a parallel tool wrote a key that changed since it was read.
        """
        expect = self._state.reads if self._tool is not None and self._tool.parallel else None
        epoch = self._task.epoch
        try:
            if self._builtin is None and event.content:  # what that reads was put away once
                event = await fit_response(self._store, self._key, event, self._agent.limits)
            # With files: those of this very attempt.
            confirm = partial(still_wanted, self._tries) if event.artifact_delta else None
            return await self._store.append(
                self._key, event, epoch=epoch, first_wins=True, expect=expect, confirm=confirm
            )
        except InvalidContent as error:
            failed = self._failed(f"Its result cannot be stored: {error}")
            return await self._store.append(self._key, failed, epoch=epoch, first_wins=True)

    async def _run_tool(self, tool: Tool, tries: int, threads: Executor) -> JsonObject | Pause:
        context = ToolContext(
            state=self._state,
            key=self._key,
            invocation_id=self._task.invocation_id,
            call_id=self._call.get("id") or self._id,
            idempotency_key=f"{self._key}:{self._id}",
            attempt=tries,
            result_id=self._id,
            artifacts=self._artifacts,
            memory=self._memory,
            stop=self._stop,
        )
        try:
            return await tool.run(self._arguments, context, executor=threads)
        finally:
            # A sync tool's thread outlives a time-out or cancel; this is how it hears of it.
            self._stop.set()

    def _log(self, level: int, action: str, message: str) -> None:
        log(level, action, self._key, self._task.invocation_id, "%s", message)

    def _limit(self, tool: Tool) -> float:
        return tool.timeout if tool.timeout is not None else self._agent.limits.tool_timeout

    @property
    def _arguments(self) -> JsonObject:
        """The model's, or those that a person put in their place."""
        if self._changed:
            return dict(self._value) if isinstance(self._value, dict) else {}
        return self._call.get("args") or {}

    @property
    def _changed(self) -> bool:
        """Whether a person has now put other arguments in place of the model's."""
        return self._task.resolution is not None and self._task.resolution.decision == "changed"

    async def _value_of(self, resolution: Resolution) -> Json:
        if resolution.blob is None:
            return resolution.value
        left_as = resolution.left_as or self._id
        left = await self._store.fetch_message(self._key, left_as, resolution.blob)
        if left is None:
            raise InvalidMessage(f"What was sent for call {self._id} is lost; ask for it again.")
        return left.content.get("value")

    def _note(
        self,
        event_id: str,
        meta: JsonObject,
        *,
        state_delta: Mapping[str, Json] | None = None,
        artifact_delta: Mapping[str, int] | None = None,
    ) -> Event:
        """An event that is no response: the call waits."""
        return Event(
            id=event_id,
            invocation_id=self._task.invocation_id,
            author="perdure",
            state_delta=state_delta or {},
            artifact_delta=artifact_delta or {},
            meta={**meta, **self._settled},
        )

    def _failed(self, reason: str) -> Event:
        error = {"type": "ToolError", "message": _clipped(reason)}
        return self._response({"error": reason}, error=error)

    def _response(
        self,
        result: JsonObject,
        *,
        state_delta: Mapping[str, Json] | None = None,
        artifact_delta: Mapping[str, int] | None = None,
        error: JsonObject | None = None,
    ) -> Event:
        had = self._arguments if self._changed else self._had
        told = result if had is None else {CALLED_WITH: had, **result}
        response = {"name": self._name, "response": told}
        if self._call.get("id"):
            response = {"id": self._call["id"], **response}
        return Event(
            id=self._id,
            invocation_id=self._task.invocation_id,
            author=self._agent.name,
            content={"role": "user", "parts": [{"functionResponse": response}]},
            state_delta=state_delta or {},
            artifact_delta=artifact_delta or {},
            error=error,
            meta={"call": {"step": self._task.step, "index": self._task.index}, **self._settled},
        )

    @property
    def _settled(self) -> JsonObject:
        resolution = self._task.resolution
        return {} if resolution is None else {"settled": settled_meta(resolution)}


def _is_cancelled() -> bool:
    """Whether this activity was cancelled, and not what a tool awaits."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _clipped(reason: str) -> str:
    return reason if len(reason) <= LONGEST_ERROR else f"{reason[:LONGEST_ERROR]}…"
