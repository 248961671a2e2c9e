"""``call_model``: one step of a turn, from the log to the model and back into the log.

Everything is decided by what is in the log. An attempt that comes after one that
committed finds the answer there and returns it without calling the model again; one that
comes after a cancel or rewind finds its epoch gone and is refused before it costs anything.
"""

from __future__ import annotations

import asyncio
import logging

from temporalio import activity

from activities.gemini import Answer, Gemini
from activities.prompt import build_prompt, calls_of, is_user_message, model_event_id
from activities.protocol import CALL_MODEL, TOOL_SECONDS, CallRef, Failure, ModelOutcome, ModelTask
from activities.runtime import Attempts, beating, log, session_key, typed_errors
from perdure.agent import Agent
from perdure.crashpoints import reach
from perdure.errors import (
    InvalidContent,
    InvalidInstruction,
    ModelRefused,
    ModelUnavailable,
    PerdureError,
    StaleEpoch,
)
from perdure.registry import Registry
from perdure.types import Event, JsonObject, SessionKey
from storage.sessions import Context, SessionStore

__all__ = ["ModelActivities", "end_event_id", "user_event"]


class ModelActivities:
    """The activity that talks to the model.

    Args:
        store: where sessions live.
        agents: the agents this worker serves, by name.
        gemini: the model client, shared by all calls of the worker.
        concurrency: how many model calls may run at once in this worker.
    """

    def __init__(
        self, store: SessionStore, agents: Registry, gemini: Gemini, *, concurrency: int = 64
    ) -> None:
        self._store = store
        self._agents = agents
        self._gemini = gemini
        self._slots = asyncio.Semaphore(concurrency)

    @activity.defn(name=CALL_MODEL)
    @typed_errors
    async def call_model(self, task: ModelTask) -> ModelOutcome:
        """Append the user's message (first step), call the model, append its answer.

        Raises:
            UnknownAgent, InvalidContent, SessionEnded, EventConflict, InvocationRewound: nothing
                was written, and another attempt would end the same.
            StaleEpoch: the turn was cancelled or rewound meanwhile.
            ModelUnavailable: to be tried again, until the agent's ``limits.model_attempts``.
        """
        key = session_key()
        agent = self._agents.get(key.app)
        async with beating() as attempts:
            epoch = task.epoch
            if task.step == 1:
                turn = await self._store.begin_turn(key, user_event(task), epoch=epoch, reopen=task.reopen)
                if turn.done is not None:
                    done = _outcome(turn.epoch, agent, turn.done, inline=task.inline)
                    return done.model_copy(update={"repeated": True})
                epoch = turn.epoch
            if epoch is None:
                raise StaleEpoch(f"step {task.step} of {task.invocation_id} in {key} came without an epoch")
            context = await self._store.context(key)
            if context.session.epoch != epoch:
                raise StaleEpoch(
                    f"{task.invocation_id} in {key} was cancelled or rewound: epoch {epoch} is over"
                )
            answered = model_event_id(task.invocation_id, task.step)
            event = next((event for event in context.events if event.id == answered), None)
            if event is None:
                event = await self._step(key, agent, task, epoch, context, attempts)
            outcome = _outcome(epoch, agent, event, inline=task.inline)
            more: JsonObject = {"model": agent.model} if task.step == 1 else {}
            if not outcome.calls and compaction_due(agent, context):
                more["compact"] = True
            return outcome.model_copy(update=more)

    async def _step(
        self, key: SessionKey, agent: Agent, task: ModelTask, epoch: int, context: Context, attempts: Attempts
    ) -> Event:
        try:
            if task.step > agent.limits.steps:
                raise ModelRefused(
                    f"the turn reached its limit of {agent.limits.steps} model calls without an answer"
                )
            event = await self._ask_model(key, agent, task, context, attempts)
            reach("model.before_commit")
            stored = await self._store.append(key, event, epoch=epoch, first_wins=True)
        except StaleEpoch:
            raise
        except ModelUnavailable as error:
            if attempts.count < agent.limits.model_attempts:
                log(
                    logging.WARNING,
                    "model.retry",
                    key,
                    task.invocation_id,
                    "try %d: %s",
                    attempts.count,
                    error,
                )
                attempts.beat()
                raise
            stored = await self._fail(key, task, epoch, error)
        except (ModelRefused, InvalidContent, InvalidInstruction) as error:
            stored = await self._fail(key, task, epoch, error)
        reach("model.after_commit")
        return stored

    async def _ask_model(
        self, key: SessionKey, agent: Agent, task: ModelTask, context: Context, attempts: Attempts
    ) -> Event:
        prompt = build_prompt(agent, context.session.state, context.summary, context.events)
        if attempts.start_another() > agent.limits.model_attempts:
            raise ModelUnavailable(f"the worker died in each of {agent.limits.model_attempts} tries")
        async with self._slots:
            answer = await self._gemini.generate(
                model=agent.model,
                system=prompt.system,
                contents=prompt.contents,
                tools=[tool.declaration for tool in agent.tools],
                extra=agent.generation,
                timeout=agent.limits.model_timeout,
            )
        return _answer_event(agent, task, answer)

    async def _fail(self, key: SessionKey, task: ModelTask, epoch: int, error: PerdureError) -> Event:
        """End the turn in the log with the reason, so that the user sees it and the session goes on."""
        log(logging.ERROR, "model.failed", key, task.invocation_id, "%s", error)
        event = Event(
            id=end_event_id(task.invocation_id),
            invocation_id=task.invocation_id,
            author="perdure",
            error={"type": type(error).__name__, "message": str(error)},
            meta={"final": True},
        )
        return await self._store.append(key, event, epoch=epoch, first_wins=True)


def user_event(task: ModelTask) -> Event:
    """The user's message as the first event of its invocation."""
    content: JsonObject = task.content or {"role": "user", "parts": [{"text": task.text}]}
    return Event(
        id=f"{task.invocation_id}:user",
        invocation_id=task.invocation_id,
        author="user",
        content={**content, "role": "user"},
    )


def end_event_id(invocation_id: str) -> str:
    """The id of the marker that ends a turn which did not end in an answer."""
    return f"{invocation_id}:end"


def compaction_due(agent: Agent, context: Context) -> bool:
    """Whether ``interval`` invocations have begun since the newest summary's range."""
    if agent.compaction is None:
        return False
    covered = context.summary.compaction["end"] if context.summary and context.summary.compaction else 0
    new = (event for event in context.events if event.seq > covered and is_user_message(event))
    return len({event.invocation_id for event in new}) >= agent.compaction.interval


def _answer_event(agent: Agent, task: ModelTask, answer: Answer) -> Event:
    meta: JsonObject = {"step": task.step}
    if answer.finish_reason:
        meta["finish_reason"] = answer.finish_reason
    if answer.model_version:
        meta["model_version"] = answer.model_version
    return Event(
        id=model_event_id(task.invocation_id, task.step),
        invocation_id=task.invocation_id,
        author=agent.name,
        content=answer.content,
        usage=answer.usage or None,
        meta=meta,
    )


def _outcome(epoch: int, agent: Agent, event: Event, *, inline: bool) -> ModelOutcome:
    """What the workflow needs to know of the event that a step ended in."""
    fields: JsonObject = {"epoch": epoch, "seq": event.seq}
    if event.error:
        fields["failure"] = Failure.model_validate(event.error)
    if event.meta.get("interrupted"):
        fields["cancelled"] = True
    if event.usage and (total := event.usage.get("totalTokenCount")):
        fields["tokens"] = total
    calls = [_call_ref(agent, str(call.get("name"))) for call in calls_of(event)]
    if calls:
        fields["calls"] = calls
    elif inline:
        fields["text"] = event.text
    return ModelOutcome(**fields)


def _call_ref(agent: Agent, name: str) -> CallRef:
    tool = agent.tool(name)
    fields: JsonObject = {"name": name}
    if tool is not None and tool.serial:
        fields["serial"] = True
    seconds = agent.limits.tool_timeout if tool is None or tool.timeout is None else tool.timeout
    if seconds > TOOL_SECONDS:
        fields["timeout"] = seconds
    return CallRef(**fields)
