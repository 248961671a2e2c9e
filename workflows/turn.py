"""One turn: the model, the calls it asks for, the model again, until it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Protocol

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.protocol import CallRef, Failure, Joining, ModelOutcome, ModelTask
from perdure.errors import LimitExceeded
from perdure.types import given
from workflows import calls
from workflows.clock import Clock
from workflows.messages import Item, Reply
from workflows.step import Step
from workflows.wait_messages import Parked
from workflows.waiting import Waits

__all__ = ["Turn", "Watcher"]


class Watcher(Protocol):
    """Who watches a turn."""

    def note(self, what: str) -> None:
        """It does this now; for the UI."""

    def parked(self, turn: Turn) -> None:
        """It begins or ceases to be parked."""

    def warned(self, warning: str | None, *, anew: bool) -> None:
        """What of the agent's budget is nearly spent, after a step; the first of a turn says it anew."""

    def bounded(self, budget: dict[str, float] | None) -> None:
        """What the agent's budget allows, if it has one."""

    async def give_up(self, turn: Turn, failure: Failure, reason: str) -> None:
        """It is to be ended, by this failure."""

    def joining(self) -> Sequence[Item]:
        """What joins it with its next step."""

    def joined(self, taken: Sequence[str]) -> None:
        """That step has been; these have joined."""


class Turn:
    """A running turn. ``stop`` ends it from outside; then ``run`` returns ``cancelled``.

    Args:
        invocation_id: the message's id.
        model: the model's name, where an earlier turn learned it.
        waits: where its calls wait.
        watcher: who is told of it.
        parked: where a run before has left it.
    """

    def __init__(
        self,
        invocation_id: str,
        model: str | None,
        waits: Waits,
        watcher: Watcher,
        parked: Parked | None = None,
    ) -> None:
        self.id = invocation_id
        self.doing = "starting"
        self.epoch = parked.epoch if parked is not None else None
        self.stopped: str | None = None
        self.ending = False
        """It is being ended from outside, and may yet turn out to go on."""
        self.failure: Failure | None = None
        """Why it is being ended from outside, where that is a failure."""
        self.compact = False
        self.repeated = False
        self.model = model
        self.model_calls = parked.model_calls if parked is not None else 0
        self.tool_calls = parked.tool_calls if parked is not None else 0
        self.tokens = parked.tokens if parked is not None else 0
        self.nano_usd = parked.nano_usd if parked is not None else 0
        self.parked = False
        """All that is left of its step waits for a person or the world."""
        self.left: Parked | None = None
        """How it was left for the next run."""
        self._waits = waits
        self._watcher = watcher
        self._inline = parked is not None and parked.inline
        self._task: asyncio.Task[Reply] | None = None
        self._step: Step | None = None
        self._clock = Clock(self._time_is_up)

    async def run(self, first: ModelTask | Parked) -> Reply:
        """Run to the end.

        Raises:
            ActivityError: a step was refused, or failed in a way that no event records.
            CancelledError: the workflow itself was cancelled, or the turn was left for the next run.
        """
        if self.stopped is not None:
            return self.cut_short
        self._task = asyncio.create_task(self._steps(first))
        try:
            return await self._task
        except asyncio.CancelledError:
            if self.stopped is None:
                raise
        except ActivityError as error:
            # What was still running when the turn was stopped may be refused before it is cancelled,
            # and a cancellation of the workflow may reach the activity first.
            if self.stopped is None:
                if is_cancelled_exception(error):
                    raise asyncio.CancelledError from error
                raise
        finally:
            self._clock.stop()
        return self.cut_short

    @property
    def cut_short(self) -> Reply:
        """The reply of a turn that was ended from outside."""
        if self.failure is not None:
            return Reply(invocation_id=self.id, status="failed", failure=self.failure)
        return Reply(invocation_id=self.id, status="cancelled")

    def stop(self, reason: str) -> None:
        """End the turn here; the log and the epoch have been taken care of."""
        self.stopped = reason
        if self._task is not None:
            self._task.cancel()

    def leave(self) -> None:
        """Leave it as it is, parked, for the next run: then ``run`` raises CancelledError."""
        step = self._step
        if self._task is None or step is None or not self.parked or self.left is not None:
            return
        fields = {"turn_timeout": self._clock.limit, "seconds_left": self._clock.left}
        fields["nano_usd"] = self.nano_usd or None
        self.left = Parked(
            invocation_id=self.id,
            step=step.number,
            epoch=step.epoch,
            calls=step.carried(),
            inline=self._inline,
            model_calls=self.model_calls,
            tool_calls=self.tool_calls,
            tokens=self.tokens,
            **given(**fields),
        )
        self._task.cancel()

    async def _steps(self, begin: ModelTask | Parked) -> Reply:
        if isinstance(begin, Parked):
            task = await self._resumed(begin)
        else:
            task = begin
        while True:
            self._do(calls.step_title(self.model, task.step))
            outcome = await calls.call_model(task, self.model)
            self._learn(outcome)
            if task.joining:
                self._watcher.joined(outcome.taken)
            if outcome.mend:
                self._inline = task.inline
                task = self._next(task.step)
                continue
            if not outcome.calls:
                return self._reply(outcome)
            self._do(_names(outcome.calls))
            self.tool_calls += len(outcome.calls)
            self._inline = task.inline
            await self._run_step(task.step, outcome.epoch, partial(Step.run, refs=outcome.calls))
            task = self._next(task.step)

    async def _resumed(self, parked: Parked) -> ModelTask:
        if parked.turn_timeout is not None:
            self._clock.set(parked.turn_timeout, left=parked.seconds_left)
        await self._run_step(parked.step, parked.epoch, partial(Step.resume, parked=parked.calls))
        return self._next(parked.step)

    def _next(self, step: int) -> ModelTask:
        assert self.epoch is not None, "a step that has run has told the epoch"
        items = self._watcher.joining()
        more: dict[str, Any] = {"joining": [_joining(item) for item in items]} if items else {}
        if self._inline or any(item.message is not None and item.message.inline for item in items):
            more["inline"] = True
        return ModelTask(invocation_id=self.id, step=step + 1, epoch=self.epoch, **more)

    async def _run_step(self, number: int, epoch: int, run: Callable[[Step], Awaitable[None]]) -> None:
        step = self._step = Step(self.id, number, epoch, self._waits, self._look, self._fail)
        self._waits.changed = self._look
        try:
            await run(step)
        finally:
            self._step = self._waits.changed = None
            self._look()

    def _learn(self, outcome: ModelOutcome) -> None:
        self.epoch = outcome.epoch
        self.model = outcome.model or self.model
        self.model_calls += 1
        self.tokens += outcome.tokens
        self.nano_usd += outcome.nano_usd
        if not outcome.repeated:
            first = self.model_calls == 1
            self._watcher.warned(outcome.warning, anew=first)
            if first:
                self._watcher.bounded(outcome.budget)
        self.compact = outcome.compact
        self.repeated = outcome.repeated
        if outcome.turn_timeout is not None:
            self._clock.set(outcome.turn_timeout)

    async def _time_is_up(self, seconds: float) -> None:
        message = f"the turn {self.id} took longer than its limit of {seconds:g} seconds"
        failure = Failure(type=LimitExceeded.__name__, message=message)
        await self._watcher.give_up(self, failure, "turn timeout")

    async def _fail(self, failure: Failure) -> None:
        await self._watcher.give_up(self, failure, "not approved in time")
        if self.stopped is not None:  # else it was over in the log, and its next step will find that
            raise asyncio.CancelledError

    def _look(self) -> None:
        """See whether it is parked, when something of its step has changed."""
        if not workflow.in_workflow():
            return  # the worker has let go of the workflow, and what was awaited is torn down
        parked = self._step is not None and self._step.parked
        if parked == self.parked or self.left is not None:
            return
        self.parked = parked
        if parked:
            self._clock.stand()
            self._do("waiting for " + " and ".join(each.title for each in self._waits.waiting))
        else:
            self._clock.go_on()
            self._do("going on")
        self._watcher.parked(self)

    def _reply(self, outcome: ModelOutcome) -> Reply:
        status = "failed" if outcome.failure else "cancelled" if outcome.cancelled else "answered"
        extra = {"text": outcome.text, "failure": outcome.failure}
        return Reply(
            invocation_id=outcome.joined or self.id,
            status=status,
            seq=outcome.seq,
            **given(**extra),
        )

    def _do(self, what: str) -> None:
        self.doing = what
        self._watcher.note(what)


def _joining(item: Item) -> Joining:
    assert item.message is not None, "what joins is a message"
    said = item.message.model_dump(include={"text", "content", "blob"}, exclude_unset=True)
    return Joining(message_id=item.id, **said)


def _names(refs: Sequence[CallRef]) -> str:
    return "tool " + ", ".join(call.name for call in refs)
