"""One turn: the model, the calls it asks for, the model again, until it answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from temporalio.exceptions import ActivityError, is_cancelled_exception

from activities.protocol import CallRef, ModelOutcome, ModelTask, ToolTask
from workflows import calls
from workflows.messages import Reply

__all__ = ["Turn"]


class Turn:
    """A running turn. ``stop`` ends it from outside; then ``run`` returns ``cancelled``.

    Args:
        invocation_id: the message's id.
        note: told of each step, for the UI.
        model: the model's name, where an earlier turn learned it.
    """

    def __init__(self, invocation_id: str, note: Callable[[str], None], model: str | None) -> None:
        self.id = invocation_id
        self.doing = "starting"
        self.epoch: int | None = None
        self.stopped: str | None = None
        self.compact = False
        self.repeated = False
        self.model = model
        self.model_calls = 0
        self.tool_calls = 0
        self.tokens = 0
        self._note = note
        self._task: asyncio.Task[Reply] | None = None

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

        async def run(index: int, call: CallRef) -> None:
            task = ToolTask(invocation_id=self.id, step=step, index=index, epoch=outcome.epoch)
            await calls.run_tool(task, call)

        async def run_serial() -> None:
            for index, call in refs:
                if call.serial:
                    await run(index, call)

        tasks = [asyncio.create_task(run(index, call)) for index, call in refs if not call.serial]
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
