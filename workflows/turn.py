"""One turn: the model, the calls it asks for, the model again, until it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.protocol import CallRef, Failure, ModelOutcome, ModelTask, ToolTask
from workflows import calls
from workflows.messages import Reply
from workflows.patches import CALLS_AT_ONCE

__all__ = ["MOST_AT_ONCE", "Turn"]

MOST_AT_ONCE = 16
"""Parallel calls of a step that run at a time: one turn must not take all that the workers can do."""


class Turn:
    """A running turn. ``stop`` ends it from outside; then ``run`` returns ``cancelled``.

    Args:
        invocation_id: the message's id.
        note: told of each step, for the UI.
        model: the model's name, where an earlier turn learned it.
        time_is_up: is to end the turn, which took longer than so many seconds.
    """

    def __init__(
        self,
        invocation_id: str,
        note: Callable[[str], None],
        model: str | None,
        time_is_up: Callable[[Turn, float], Awaitable[None]],
    ) -> None:
        self.id = invocation_id
        self.doing = "starting"
        self.epoch: int | None = None
        self.stopped: str | None = None
        self.failure: Failure | None = None
        """Why it is being ended from outside, where that is a failure."""
        self.compact = False
        self.repeated = False
        self.model = model
        self.model_calls = 0
        self.tool_calls = 0
        self.tokens = 0
        self._note = note
        self._task: asyncio.Task[Reply] | None = None
        self._began = workflow.now()
        self._time_is_up = time_is_up
        self._timer: asyncio.Task[None] | None = None
        self._rung = False

    async def run(self, first: ModelTask) -> Reply:
        """Run to the end.

        Raises:
            ActivityError: a step was refused, or failed in a way that no event records.
            CancelledError: the workflow itself was cancelled.
        """
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
            if self._timer is not None and not self._rung:
                self._timer.cancel()
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

    async def _steps(self, task: ModelTask) -> Reply:
        while True:
            self._do(calls.step_title(self.model, task.step))
            outcome = await calls.call_model(task, self.model)
            self._learn(outcome)
            if not outcome.calls:
                return self._reply(outcome)
            await self._run_calls(task.step, outcome)
            task = ModelTask(
                invocation_id=self.id,
                step=task.step + 1,
                epoch=outcome.epoch,
                **({"inline": True} if task.inline else {}),
            )

    async def _run_calls(self, step: int, outcome: ModelOutcome) -> None:
        """Those that may touch state one after the other, in call order; the rest beside them."""
        self._do(_names(outcome.calls))
        self.tool_calls += len(outcome.calls)
        refs = list(enumerate(outcome.calls))
        together = [(index, call) for index, call in refs if not call.serial]
        bounded = len(together) > MOST_AT_ONCE and workflow.patched(CALLS_AT_ONCE)
        slots = asyncio.Semaphore(MOST_AT_ONCE if bounded else len(together))

        async def run(index: int, call: CallRef) -> None:
            task = ToolTask(invocation_id=self.id, step=step, index=index, epoch=outcome.epoch)
            await calls.run_tool(task, call)

        async def run_beside(index: int, call: CallRef) -> None:
            async with slots:
                await run(index, call)

        async def run_serial() -> None:
            for index, call in refs:
                if call.serial:
                    await run(index, call)

        tasks = [asyncio.create_task(run_beside(index, call)) for index, call in together]
        tasks.append(asyncio.create_task(run_serial()))
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def _learn(self, outcome: ModelOutcome) -> None:
        self.epoch = outcome.epoch
        self.model = outcome.model or self.model
        self.model_calls += 1
        self.tokens += outcome.tokens
        self.compact = outcome.compact
        self.repeated = outcome.repeated
        if outcome.turn_timeout is not None and self._timer is None:
            self._timer = asyncio.create_task(self._watch(outcome.turn_timeout))

    async def _watch(self, seconds: float) -> None:
        left = self._began + timedelta(seconds=seconds) - workflow.now()
        await workflow.sleep(max(left, timedelta()), summary="turn_timeout")
        self._rung = True  # from here on it is not called off: the log may have been told
        await self._time_is_up(self, seconds)

    def _reply(self, outcome: ModelOutcome) -> Reply:
        status = "failed" if outcome.failure else "cancelled" if outcome.cancelled else "answered"
        extra = {"text": outcome.text, "failure": outcome.failure}
        return Reply(
            invocation_id=self.id,
            status=status,
            seq=outcome.seq,
            **{name: value for name, value in extra.items() if value is not None},
        )

    def _do(self, what: str) -> None:
        self.doing = what
        self._note(what)


def _names(refs: Sequence[CallRef]) -> str:
    return "tool " + ", ".join(call.name for call in refs)
