"""``call_model``: one step of a turn, from the log to the model and back into the log.

Everything is decided by what is in the log. An attempt that comes after one that
committed finds the answer there and returns it without calling the model again; one that
comes after a cancel or rewind finds its epoch gone and is refused before it costs anything.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from functools import partial

from temporalio import activity

from activities.answers import answer_event, goes_on
from activities.budgets import (
    accounted,
    check_session_budget,
    check_turn_budget,
    count_in_vain,
    is_used_up,
    spent_in_turn,
    spent_meta,
    taken_by,
)
from activities.compaction import Compactor
from activities.context_cache import ContextCache
from activities.fencing import still_wanted
from activities.gemini import Gemini
from activities.joining import join
from activities.limits import check_limits, in_time
from activities.mcp_servers import McpServers
from activities.media_cache import MediaCache
from activities.memory import Memories
from activities.model_request import full_request, send
from activities.outcomes import outcome_of
from activities.oversize import begin_turn, fit_answer
from activities.patience import patiently
from activities.prices import check_prices
from activities.prompt import model_event_id
from activities.protocol import CALL_MODEL, ModelOutcome, ModelTask
from activities.recalling import recall
from activities.room import Room
from activities.runtime import Attempts, beating, log, session_key, typed_errors
from activities.shortening import Shortener, still_too_long
from activities.windows import compaction_due
from perdure.agent import Agent
from perdure.errors import (
    InvalidAgent,
    InvalidContent,
    InvalidInstruction,
    InvalidMessage,
    LimitExceeded,
    ModelError,
    ModelRefused,
    ModelUnavailable,
    PerdureError,
    PromptTooLong,
    StaleEpoch,
)
from perdure.logs import words_of
from perdure.registry import Registry
from perdure.transfer import acting, keys_of
from perdure.types import Event, JsonObject, SessionKey
from storage.feed import Answering
from storage.sessions import Context, SessionStore, Turn
from storage.spending import spent_on

__all__ = ["ModelActivities", "end_event_id", "user_event"]


class ModelActivities:
    """The activity that talks to the model.

    Args:
        store: where sessions live.
        agents: the agents this worker serves, by name.
        gemini: the model client, shared by all calls of the worker.
        concurrency: how many model calls may run at once in this worker.
        context_cache: bytes, about, of what sessions said that it remembers between calls.
        media_cache: bytes of media that it remembers between calls.
        servers: the connections to the agents' MCP servers.
        memories: the users'; None: searched by words alone.
    """

    def __init__(
        self,
        store: SessionStore,
        agents: Registry,
        gemini: Gemini,
        *,
        concurrency: int = 64,
        context_cache: int = 0,
        media_cache: int = 0,
        servers: McpServers | None = None,
        memories: Memories | None = None,
    ) -> None:
        check_prices(agents.agents.values())
        self._servers = servers or McpServers()
        self._store = store
        self._agents = agents
        self._gemini = gemini
        self._memories = memories or Memories(store, agents, None)
        self._contexts = ContextCache(store, size=context_cache)
        self._media = MediaCache(size=media_cache)
        self.slots = asyncio.Semaphore(concurrency)
        """Held by each call of the model; whatever else calls it takes one of these too."""
        self.room = Room("model calls", 2 * concurrency)
        """Taken by each activity that calls the model, also while it waits for one of the slots."""
        self._shortener = Shortener(store, Compactor(store, gemini, slots=self.slots), self._contexts)

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
        agent = self._agents.of(key)
        async with beating() as attempts, self.room.taken():
            epoch = task.epoch
            if task.step == 1:
                turn = await self._begin(key, agent, task)
                if turn.done is not None:
                    done = outcome_of(turn.epoch, agent, turn.done, inline=task.inline)
                    whose = turn.done.invocation_id
                    joined = {"joined": whose} if whose != task.invocation_id else {}
                    return done.model_copy(update={"repeated": True, **joined})
                epoch = turn.epoch
            if epoch is None:
                raise StaleEpoch(f"step {task.step} of {task.invocation_id} in {key} came without an epoch")
            context = await self._contexts.read(key, state_keys=keys_of(agent))
            taken: list[str] = []
            if task.joining and _may_be_joined(key, agent, task, context):
                taken = await join(self._store, key, agent.limits, task, epoch)
                context = await self._contexts.read(key, state_keys=keys_of(agent))
            agent = acting(agent, context.session.state, begins=task.step == 1)
            answered, ended = model_event_id(task.invocation_id, task.step), end_event_id(task.invocation_id)
            event = _live(context, answered) or _live(context, ended)
            if event is None:
                if context.session.epoch != epoch:
                    raise StaleEpoch(
                        f"{task.invocation_id} in {key} was cancelled or rewound: epoch {epoch} is over"
                    )
                event = await self._step(key, agent, task, epoch, context, attempts)
            outcome = outcome_of(epoch, agent, event, inline=task.inline)
            more: JsonObject = {"model": agent.model} if task.step == 1 else {}
            if task.step == 1 and agent.budget is not None:
                more["budget"] = agent.budget.bounds
            if taken:
                more["taken"] = taken
            if not goes_on(event) and _compaction_due(self._servers.known(agent)[0], context, event):
                more["compact"] = True
            if outcome.calls and task.step == 1 and agent.limits.turn_timeout is not None:
                more["turn_timeout"] = agent.limits.turn_timeout
            return outcome.model_copy(update=more)

    async def _begin(self, key: SessionKey, agent: Agent, task: ModelTask) -> Turn:
        if task.blob is not None:
            return await self._begin_large(key, agent, task, task.blob)
        return await self._begin_with(key, agent, task, user_event(task))

    async def _begin_large(self, key: SessionKey, agent: Agent, task: ModelTask, blob: str) -> Turn:
        left = await self._store.fetch_message(key, task.invocation_id, blob)
        if left is not None:
            said = user_event(task.model_copy(update={"content": left.content}))
            event = replace(said, state_delta=left.state)
        else:
            # An attempt before this one took it, and the log has it; or it is lost.
            taken = await self._store.event(key, user_event(task).id)
            if taken is None:
                raise InvalidMessage(f"message {task.invocation_id} to {key} is lost; send it again")
            event = taken
        turn = await self._begin_with(key, agent, task, event)
        await self._store.forget_message(key, blob)
        return turn

    async def _begin_with(self, key: SessionKey, agent: Agent, task: ModelTask, event: Event) -> Turn:
        confirm = still_wanted if task.epoch is None else None
        return await begin_turn(
            self._store, key, event, agent.limits, epoch=task.epoch, reopen=task.reopen, confirm=confirm
        )

    async def _step(
        self, key: SessionKey, agent: Agent, task: ModelTask, epoch: int, context: Context, attempts: Attempts
    ) -> Event:
        try:
            _check_limits(key, agent, task, context)
            answer = await in_time(agent.limits, task, lambda: self._ask(key, agent, task, context, attempts))
            stored = await self._commit(key, agent, answer, epoch, attempts)
        except (StaleEpoch, asyncio.CancelledError) as error:
            lost = attempts.lost_in_all if isinstance(error, StaleEpoch) else attempts.lost_for_good
            name = f"{model_event_id(task.invocation_id, task.step)}:spent{activity.info().attempt}"
            await count_in_vain(self._store, key, context.session, name, lost)
            raise
        except ModelUnavailable as error:
            if attempts.count < agent.limits.model_attempts:
                attempts.lost += taken_by(agent, agent.model, error.usage or {})
                log(
                    logging.WARNING,
                    "model.retry",
                    key,
                    task.invocation_id,
                    "try %d: %s",
                    attempts.count,
                    words_of(error),
                )
                attempts.beat()
                raise
            stored = await self._fail(key, agent, task, epoch, context, error, attempts)
        except (ModelRefused, LimitExceeded, InvalidContent, InvalidInstruction, InvalidAgent) as error:
            stored = await self._fail(key, agent, task, epoch, context, error, attempts)
        return stored

    async def _ask(
        self, key: SessionKey, agent: Agent, task: ModelTask, context: Context, attempts: Attempts
    ) -> Event:
        try:
            return await self._ask_model(key, agent, task, context, attempts)
        except PromptTooLong as error:
            context = await self._shortener.shorten(key, agent, task, context, error)
        attempts.take_back()  # that was no failure that may pass
        try:
            return await self._ask_model(key, agent, task, context, attempts)
        except PromptTooLong as error:
            raise still_too_long(task, error) from None

    async def _ask_model(
        self, key: SessionKey, agent: Agent, task: ModelTask, context: Context, attempts: Attempts
    ) -> Event:
        equipped = await self._servers.equip(agent)
        notes = await recall(self._memories, self._agents, key, context)
        request = await full_request(self._store, key, equipped, context, media=self._media, notes=notes)
        async with self.slots:
            # Counted only now: one that waited when its worker died has not tried the model.
            if attempts.start_another() > agent.limits.model_attempts:
                raise ModelUnavailable(f"the worker died in each of {agent.limits.model_attempts} tries")
            with self._store.feed.preview(key, _answering(agent, task, context)) as preview:
                usage: JsonObject = {}
                try:
                    answer = await send(self._gemini, request, on_chunk=preview.add, usage=usage)
                except asyncio.CancelledError:
                    attempts.lost += taken_by(agent, agent.model, usage)
                    raise
        event = answer_event(agent, task, answer, context, attempts.lost)
        attempts.unkept = taken_by(agent, agent.model, answer.usage)
        for told in event.meta.get("budget", ()):
            log(logging.WARNING, "budget.warning", key, task.invocation_id, "%s", told)
        return event

    async def _commit(
        self, key: SessionKey, agent: Agent, event: Event, epoch: int, attempts: Attempts
    ) -> Event:
        async def write() -> Event:
            # A marker that ends the turn has nothing that could be put away.
            answered = "step" in event.meta
            fitted = await fit_answer(self._store, key, event, agent.limits) if answered else event
            confirm = partial(still_wanted, attempts.count) if fitted.artifact_delta else None
            return await self._store.append(key, fitted, epoch=epoch, first_wins=True, confirm=confirm)

        return await patiently(write, key, event.invocation_id, attempts=attempts)

    async def _fail(
        self,
        key: SessionKey,
        agent: Agent,
        task: ModelTask,
        epoch: int,
        context: Context,
        error: PerdureError,
        attempts: Attempts,
    ) -> Event:
        """End the turn in the log with the reason, so that the user sees it and the session goes on."""
        log(logging.ERROR, "model.failed", key, task.invocation_id, "%s", words_of(error))
        brief = _brief(agent, error)
        usage = dict(error.usage or {}) if isinstance(error, ModelError) else {}
        meta: JsonObject = {"final": True, **({} if brief == str(error) else {"brief": brief})}
        event = Event(
            id=end_event_id(task.invocation_id),
            invocation_id=task.invocation_id,
            author="perdure",
            error={"type": type(error).__name__, "message": str(error)},
            usage=usage or None,
            meta=meta | spent_meta(agent, agent.model, usage, attempts.lost_in_all),
        )
        event = accounted(agent, context, event, goes_on=False)
        return await self._commit(key, agent, event, epoch, attempts)


def _live(context: Context, event_id: str) -> Event | None:
    """What an attempt before this one has left."""
    return next((event for event in context.events if event.id == event_id), None)


def _may_be_joined(key: SessionKey, agent: Agent, task: ModelTask, context: Context) -> bool:
    """Whether the model will read, or has read, what joins with this step."""
    if _live(context, model_event_id(task.invocation_id, task.step)) is not None:
        return True
    try:
        _check_limits(key, agent, task, context)
    except LimitExceeded:
        return False
    return True


def _check_limits(key: SessionKey, agent: Agent, task: ModelTask, context: Context) -> None:
    """Raise LimitExceeded unless the model may be asked: it knows of the turn's limits and of the budget."""
    spent = spent_in_turn(context, task.invocation_id)
    check_limits(agent.limits, task, spent)
    check_session_budget(key, agent, context.session.spent)
    check_turn_budget(agent, task.invocation_id, spent)


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


def _brief(agent: Agent, error: PerdureError) -> str:
    """The reason without the words of the model or its server."""
    if isinstance(error, InvalidContent):
        return f"what model {agent.model} answered cannot be stored"
    return error.brief if isinstance(error, ModelError) else str(error)


def _compaction_due(agent: Agent, context: Context, last: Event) -> bool:
    """Whether the policy wants a summary now that the turn has ended in ``last``, and it may be paid for."""
    if is_used_up(agent, context.session.spent + spent_on(last)):
        return False
    before = [event for event in context.events if event.seq < last.seq]
    return compaction_due(agent, context.summary, [*before, last], last.invocation_id)


def _answering(agent: Agent, task: ModelTask, context: Context) -> Answering:
    """What those who follow the session are told of an answer while it comes."""
    return Answering(
        event_id=model_event_id(task.invocation_id, task.step),
        invocation_id=task.invocation_id,
        author=agent.name,
        epoch=context.session.epoch,
        after=context.session.head,
        attempt=activity.info().attempt,
    )
