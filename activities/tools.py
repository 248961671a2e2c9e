"""``run_tool``: one call of a tool, from the model's event to the response event.

The call's arguments are read from the log and its result is written there, together with
the state it changed and the artifacts it saved, in one transaction under the call's own
event id. A second attempt finds that event and runs nothing. What the tool did to the
world outside is at least once; its ``idempotency_key`` is the same in every attempt.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial

from temporalio import activity

from activities.builtin_tools import builtin_tool
from activities.fencing import still_wanted
from activities.mcp_servers import McpServers
from activities.memory import Memories
from activities.patience import patiently
from activities.prompt import calls_of, model_event_id, response_event_id
from activities.protocol import RUN_TOOL, ToolOutcome, ToolTask
from activities.room import Room
from activities.runtime import Attempts, beating, log, session_key, typed_errors
from activities.tool_call import Call
from activities.waits import outcome_of, wait_ids
from perdure.errors import InvocationNotFound, StaleEpoch, StateConflict, StorageUnavailable
from perdure.logs import words_of
from perdure.registry import Registry
from perdure.state import State
from perdure.transfer import member
from perdure.types import Json, SessionKey
from storage.sessions import SessionStore

__all__ = ["ToolActivities"]

TEMP_TURNS = 1_000
"""Of how many turns a worker keeps the ``temp:`` keys; a turn leaves none behind if it uses none."""

CONFLICT_RERUNS = 20
"""How often a parallel call is run again because another changed what it had read."""


class ToolActivities:
    """The activity that runs tools.

    Args:
        store: where sessions live.
        agents: the agents this worker serves, by name.
        concurrency: how many tools may run at once in this worker.
        threads: where sync tools run; None: in threads of its own.
        memories: the users'; None: searched by words alone.
        servers: the connections to the agents' MCP servers.
    """

    def __init__(
        self,
        store: SessionStore,
        agents: Registry,
        *,
        concurrency: int = 64,
        threads: Executor | None = None,
        memories: Memories | None = None,
        servers: McpServers | None = None,
    ) -> None:
        self._servers = servers or McpServers()
        self._store = store
        self._memories = memories or Memories(store, agents, None)
        self._agents = agents
        self._slots = asyncio.Semaphore(concurrency)
        self.room = Room("tool calls", 2 * concurrency)
        """Taken by each call, also while it waits until it may run."""
        # Of their own: sync tools that wait must not keep the store's blob writes from a thread.
        self._threads = threads or ThreadPoolExecutor(concurrency, thread_name_prefix="perdure-tool")
        self._temp = _TempState()

    @activity.defn(name=RUN_TOOL)
    @typed_errors
    async def run_tool(self, task: ToolTask) -> int | ToolOutcome:
        """Run one call and append its response, or find that it waits for a person or the world.

        Returns:
            The seq of the response event; or what the call waits for, which the log then has, too; or
            what is to run for it elsewhere.

        Raises:
            StaleEpoch: the turn was cancelled or rewound meanwhile; nothing was written.
        """
        key = session_key()
        root = self._agents.of(key)
        asked_id = model_event_id(task.invocation_id, task.step)
        response_id = response_event_id(task.invocation_id, task.step, task.index)
        async with beating() as attempts, self.room.taken(), self._slots:
            tries = 0
            for _ in range(CONFLICT_RERUNS):
                session, found = await self._store.snapshot(key, [asked_id, response_id, *wait_ids(task)])
                if response := found.get(response_id):
                    return response.seq
                if session.epoch != task.epoch:
                    raise StaleEpoch(f"call {response_id} in {key} belongs to a turn that is over")
                asked = found.get(asked_id)
                if asked is None:
                    raise InvocationNotFound(f"{key} has no event {asked_id} that asked for a call")
                state = State(session.state, temp=self._temp.of(key, task.invocation_id))
                wanted = calls_of(asked)[task.index]
                agent, name = member(root, asked.author), str(wanted.get("name"))
                if builtin_tool(agent, name) is None:
                    agent = await self._servers.with_tool(agent, name)
                call = Call(self._store, key, agent, task, wanted, state, self._memories)
                event = await call.without_running(found)
                if event is not None and event.seq:
                    return outcome_of(event)  # it has waited since an attempt before, or a workflow
                if event is None:
                    elsewhere = await call.elsewhere(session)
                    if isinstance(elsewhere, ToolOutcome):
                        return elsewhere
                    event = elsewhere
                if event is None:
                    # Not before: what never got as far as the tool is no try of it.
                    tries = tries or await _count_try(attempts)
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
                await call.forget_value()
                return outcome_of(stored) if "wait" in stored.meta else stored.seq
            raise StateConflict(
                f"call {response_id} in {key} lost the race for its state keys {CONFLICT_RERUNS} times; "
                "make the tool serial (drop parallel=True)"
            )


async def _count_try(attempts: Attempts) -> int:
    """One more try of the tool begins; its number."""
    attempts.count_untold()
    tries = attempts.start_another()
    if activity.info().attempt > 1:
        # The tool may end the worker before a heartbeat is out, and did so perhaps.
        await still_wanted(tries)
    return tries


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
