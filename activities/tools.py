"""``run_tool``: one call of a tool, from the model's event to the response event.

The call's arguments are read from the log and its result is written there, together with
the state it changed and the artifacts it saved, in one transaction under the call's own
event id. A second attempt finds that event and runs nothing. What the tool did to the
world outside is at least once; its ``idempotency_key`` is the same in every attempt.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities.builtin_tools import builtin_tool
from activities.fencing import still_wanted
from activities.oversize import fit_response
from activities.patience import patiently
from activities.prompt import calls_of, model_event_id, response_event_id
from activities.protocol import RUN_TOOL, ToolTask
from activities.room import Room
from activities.runtime import beating, log, session_key, typed_errors
from perdure.agent import Agent
from perdure.context import Artifact, ToolContext
from perdure.errors import (
    InvalidArguments,
    InvalidContent,
    InvocationNotFound,
    StaleEpoch,
    StateConflict,
    StorageUnavailable,
)
from perdure.logs import words_of
from perdure.registry import Registry
from perdure.sources import Source, is_bytes
from perdure.state import State
from perdure.tool import Tool
from perdure.types import Event, Json, JsonObject, SessionKey
from storage.sessions import SessionStore

__all__ = ["ToolActivities"]

T = TypeVar("T")

TEMP_TURNS = 1_000
"""Of how many turns a worker keeps the ``temp:`` keys; a turn leaves none behind if it uses none."""

LONGEST_ERROR = 1_000
"""Characters that an event's error keeps of what a tool raised; the response has the rest."""

STORAGE_TRIES = 4
"""How often what a tool asks of the artifacts is tried while the storage is out of order: two seconds."""

CONFLICT_RERUNS = 20
"""How often a parallel call is run again because another changed what it had read."""


class ToolActivities:
    """The activity that runs tools.

    Args:
        store: where sessions live.
        agents: the agents this worker serves, by name.
        concurrency: how many tools may run at once in this worker.
        threads: where sync tools run; None: in threads of its own.
    """

    def __init__(
        self,
        store: SessionStore,
        agents: Registry,
        *,
        concurrency: int = 64,
        threads: Executor | None = None,
    ) -> None:
        self._store = store
        self._agents = agents
        self._slots = asyncio.Semaphore(concurrency)
        self.room = Room("tool calls", 2 * concurrency)
        """Taken by each call, also while it waits until it may run."""
        # Of their own: sync tools that wait must not keep the store's blob writes from a thread.
        self._threads = threads or ThreadPoolExecutor(concurrency, thread_name_prefix="perdure-tool")
        self._temp = _TempState()

    @activity.defn(name=RUN_TOOL)
    @typed_errors
    async def run_tool(self, task: ToolTask) -> int:
        """Run one call and append its response.

        Returns:
            The seq of the response event.

        Raises:
            StaleEpoch: the turn was cancelled or rewound meanwhile; nothing was written.
        """
        key = session_key()
        agent = self._agents.get(key.app)
        asked_id = model_event_id(task.invocation_id, task.step)
        response_id = response_event_id(task.invocation_id, task.step, task.index)
        async with beating() as attempts, self.room.taken(), self._slots:
            tries = 0
            for _ in range(CONFLICT_RERUNS):
                session, found = await self._store.snapshot(key, [asked_id, response_id])
                if response := found.get(response_id):
                    return response.seq
                if session.epoch != task.epoch:
                    raise StaleEpoch(f"call {response_id} in {key} belongs to a turn that is over")
                asked = found.get(asked_id)
                if asked is None:
                    raise InvocationNotFound(f"{key} has no event {asked_id} that asked for a call")
                # Not before: what never got as far as the tool is no try of it.
                if not tries:
                    attempts.count_untold()
                    tries = attempts.start_another()
                    if activity.info().attempt > 1:
                        # The tool may end the worker before a heartbeat is out, and did so perhaps.
                        await still_wanted(tries)
                state = State(session.state, temp=self._temp.of(key, task.invocation_id))
                call = _Call(self._store, key, agent, task, calls_of(asked)[task.index], state)
                try:
                    event = await call.run(tries, self._threads)
                except StorageUnavailable:
                    attempts.take_back()
                    raise
                try:
                    stored = await patiently(
                        partial(call.commit, event), key, task.invocation_id, attempts=attempts
                    )
                except StateConflict as error:
                    log(logging.INFO, "tool.rerun", key, task.invocation_id, "%s", words_of(error))
                    continue
                self._temp.keep(key, task.invocation_id, state.temp)
                return stored.seq
            raise StateConflict(
                f"call {response_id} in {key} lost the race for its state keys {CONFLICT_RERUNS} times; "
                "make the tool serial (drop parallel=True)"
            )


class _TempState:
    """The ``temp:`` keys of running turns. They are never stored, so they live in this worker only:
    gone when it restarts, and not seen by a call that another worker runs.
    """

    def __init__(self) -> None:
        self._turns: OrderedDict[tuple[SessionKey, str], Mapping[str, Json]] = OrderedDict()

    def of(self, key: SessionKey, invocation_id: str) -> Mapping[str, Json]:
        """What earlier calls of the turn left."""
        return self._turns.get((key, invocation_id), {})

    def keep(self, key: SessionKey, invocation_id: str, temp: Mapping[str, Json]) -> None:
        """Leave it for later calls of the turn. The turns that are oldest make room."""
        if temp:
            self._turns[key, invocation_id] = temp
            self._turns.move_to_end((key, invocation_id))
        while len(self._turns) > TEMP_TURNS:
            self._turns.popitem(last=False)


class _Call:
    """One try of one call."""

    def __init__(
        self,
        store: SessionStore,
        key: SessionKey,
        agent: Agent,
        task: ToolTask,
        call: JsonObject,
        state: State,
    ) -> None:
        self._store = store
        self._key = key
        self._task = task
        self._call = call
        self._name = str(call.get("name"))
        self._builtin = builtin_tool(agent, self._name)
        self._tool = agent.tool(self._name) or self._builtin
        self._agent = agent
        self._id = response_event_id(task.invocation_id, task.step, task.index)
        self._tries = 0
        self._stop = threading.Event()
        self._artifacts = _Artifacts(store, key, task.invocation_id, self._id)
        self._state = state

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
        except Exception as error:  # noqa: BLE001 - foreign code: all that it raises is the model's to see
            if scope.expired():
                return self._failed(f"It took longer than {self._limit(self._tool):g} seconds.")
            self._log(logging.WARNING, "tool.error", f"{self._name} try {tries}: {words_of(error)}")
            if tries < self._tool.attempts:
                # Its words stay out of Temporal's history.
                kind = type(error).__name__
                raise ApplicationError(f"{self._name} raised in try {tries}", type=kind) from None
            return self._failed(f"{type(error).__name__}: {error}")
        return self._response(result, state_delta=self._state.delta, artifact_delta=self._artifacts.saved)

    async def commit(self, event: Event) -> Event:
        """Append the response, with its effects, in one transaction; what is too large of it put away.

        Raises:
            StateConflict: a parallel tool wrote a key that changed since it was read.
        """
        expect = self._state.reads if self._tool is not None and self._tool.parallel else None
        epoch = self._task.epoch
        try:
            if self._builtin is None:  # what that reads was put away once
                event = await fit_response(self._store, self._key, event, self._agent.limits)
            # With files: those of this very attempt.
            confirm = partial(still_wanted, self._tries) if event.artifact_delta else None
            return await self._store.append(
                self._key, event, epoch=epoch, first_wins=True, expect=expect, confirm=confirm
            )
        except InvalidContent as error:
            failed = self._failed(f"Its result cannot be stored: {error}")
            return await self._store.append(self._key, failed, epoch=epoch, first_wins=True)

    async def _run_tool(self, tool: Tool, tries: int, threads: Executor) -> JsonObject:
        context = ToolContext(
            state=self._state,
            key=self._key,
            invocation_id=self._task.invocation_id,
            call_id=self._call.get("id") or self._id,
            idempotency_key=f"{self._key}:{self._id}",
            attempt=tries,
            artifacts=self._artifacts,
            stop=self._stop,
        )
        try:
            return await tool.call(self._call.get("args") or {}, context, executor=threads)
        finally:
            # A sync tool's thread outlives a time-out or cancel; this is how it hears of it.
            self._stop.set()

    def _log(self, level: int, action: str, message: str) -> None:
        log(level, action, self._key, self._task.invocation_id, "%s", message)

    def _limit(self, tool: Tool) -> float:
        return tool.timeout if tool.timeout is not None else self._agent.limits.tool_timeout

    def _failed(self, reason: str) -> Event:
        said = reason if len(reason) <= LONGEST_ERROR else f"{reason[:LONGEST_ERROR]}…"
        return self._response({"error": reason}, error={"type": "ToolError", "message": said})

    def _response(
        self,
        result: JsonObject,
        *,
        state_delta: dict[str, Json] | None = None,
        artifact_delta: dict[str, int] | None = None,
        error: JsonObject | None = None,
    ) -> Event:
        response = {"name": self._name, "response": result}
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
            meta={"call": {"step": self._task.step, "index": self._task.index}},
        )


class _Artifacts:
    """A call's way to artifacts: bytes are put at once, versions are listed when the call commits."""

    def __init__(self, store: SessionStore, key: SessionKey, invocation_id: str, event_id: str) -> None:
        self._store = store
        self._key = key
        self._invocation_id = invocation_id
        self._event_id = event_id
        self._saves = 0
        self.saved: dict[str, int] = {}

    async def save(self, name: str, data: Source, mime_type: str) -> int:
        ordinal, self._saves = self._saves, self._saves + 1
        # What is read from a source is read once.
        version = await self._patiently(
            partial(
                self._store.stage_artifact,
                *(self._key, name, data, mime_type),
                event_id=self._event_id,
                ordinal=ordinal,
                confirm=still_wanted,
            ),
            STORAGE_TRIES if is_bytes(data) else 1,
        )
        self.saved[name] = version
        return version

    async def load(
        self, name: str, version: int | None, *, start: int = 0, length: int | None = None
    ) -> Artifact:
        return await self._patiently(
            partial(self._load, name, version, start=start, length=length), STORAGE_TRIES
        )

    async def names(self) -> list[str]:
        list_all = partial(self._store.list_artifacts, self._key, event_id=self._event_id)
        return [row.name for row in await self._patiently(list_all, STORAGE_TRIES)]

    async def _load(self, name: str, version: int | None, *, start: int, length: int | None) -> Artifact:
        event_id = self._event_id
        if start == 0 and length is None:
            row, data = await self._store.load_artifact(self._key, name, version=version, event_id=event_id)
        else:
            row, chunks = await self._store.stream_artifact(
                self._key, name, version=version, event_id=event_id, start=start, length=length
            )
            data = b"".join([chunk async for chunk in chunks])
        return Artifact(name=row.name, version=row.version, mime_type=row.mime_type, data=data, size=row.size)

    async def _patiently(self, call: Callable[[], Awaitable[T]], tries: int) -> T:
        """A tool sees no connection that was lost in between, but it is told of a real outage."""
        return await patiently(call, self._key, self._invocation_id, tries=tries)
