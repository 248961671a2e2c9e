"""The calls of one step of a turn: those that run, and those that wait for a person or the world."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from temporalio import workflow

from activities.protocol import LONGEST, CallRef, Child, Failure, Resolution, ToolTask, Wait, call_id_of
from perdure.errors import LimitExceeded
from perdure.types import given
from workflows import remote
from workflows.patches import CALLS_AT_ONCE
from workflows.wait_messages import ParkedCall, Waiting
from workflows.waiting import Waits

__all__ = ["MOST_AT_ONCE", "Step"]

MOST_AT_ONCE = 16
"""Parallel calls of a step that run at a time: one turn must not take all that the workers can do."""

_Numbered = tuple[int, CallRef]


class Step:
    """The calls that one answer of the model asked for.

    A call that waits holds no slot and keeps no other from running; what it does when its wait is over,
    it does as any other call, one at a time if it may touch state.

    Args:
        invocation_id: the turn.
        number: the step.
        epoch: what fences it.
        waits: where calls wait.
        changed: told when a call begins or ceases to wait, or is done.
        fail: ends the turn, since nobody has decided in time.
    """

    def __init__(
        self,
        invocation_id: str,
        number: int,
        epoch: int,
        waits: Waits,
        changed: Callable[[], None],
        fail: Callable[[Failure], Awaitable[None]],
    ) -> None:
        self._invocation_id = invocation_id
        self.number = number
        self.epoch = epoch
        self._waits = waits
        self._changed = changed
        self._fail = fail
        self._open = 0
        self._asleep: dict[str, _Numbered] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._state = asyncio.Lock()
        """Held by a call that may touch state."""
        self._slots = asyncio.Semaphore(MOST_AT_ONCE)

    @property
    def parked(self) -> bool:
        """Whether all that is left of it waits."""
        return self._open > 0 and self._open == len(self._waits.waiting)

    def carried(self) -> list[ParkedCall]:
        """The calls that wait, for the next run."""
        return [
            ParkedCall(index=index, call=call, waiting=waiting)
            for waiting in self._waits.waiting
            for index, call in [self._asleep[waiting.call_id]]
        ]

    async def run(self, refs: Sequence[CallRef]) -> None:
        """Run them: those that may touch state one after the other, in call order; the rest beside them."""
        numbered = list(enumerate(refs))
        together = [(index, call) for index, call in numbered if not call.serial]
        bounded = len(together) > MOST_AT_ONCE and workflow.patched(CALLS_AT_ONCE)
        self._slots = asyncio.Semaphore(MOST_AT_ONCE if bounded else max(len(together), 1))
        self._open = len(numbered)

        async def run_serial() -> None:
            for index, call in numbered:
                if call.serial:
                    await self._begin(index, call)

        self._tasks = [asyncio.create_task(self._begin(index, call)) for index, call in together]
        self._tasks.append(asyncio.create_task(run_serial()))
        await self._finish()

    async def resume(self, parked: Sequence[ParkedCall]) -> None:
        """Go on with those that a run before has left waiting."""
        self._open = len(parked)
        self._tasks = [
            asyncio.create_task(self._go_on(each.index, each.call, each.waiting)) for each in parked
        ]
        await self._finish()

    async def _finish(self) -> None:
        try:
            # A task may begin others, of calls that wait; they are found in the next round.
            awaited = 0
            while awaited < len(self._tasks):
                tasks, awaited = self._tasks[awaited:], len(self._tasks)
                await asyncio.gather(*tasks)
        finally:
            for task in self._tasks:
                task.cancel()

    async def _begin(self, index: int, call: CallRef) -> None:
        waiting = await self._try(index, call, None)
        if waiting is None:
            self._done()
        else:
            task = asyncio.create_task(self._go_on(index, call, waiting))
            task.add_done_callback(_look_at)  # the turn may end before anybody awaits it
            self._tasks.append(task)

    async def _go_on(self, index: int, call: CallRef, waiting: Waiting | None) -> None:
        while waiting is not None:
            self._asleep[waiting.call_id] = index, call
            resolution = await self._resolved(waiting)
            del self._asleep[waiting.call_id]
            waiting = await self._try(index, call, resolution)
        self._done()

    async def _resolved(self, waiting: Waiting) -> Resolution:
        resolution = await self._waits.settled(waiting)
        if resolution.decision == "expired" and waiting.then == "approve":
            return Resolution(decision="yes", reason="nobody decided in time")
        if resolution.decision == "expired" and waiting.then == "fail":
            message = f"nobody approved of the call {waiting.call_id} of {waiting.tool} in time"
            await self._fail(Failure(type=LimitExceeded.__name__, message=message))
        return resolution

    async def _try(self, index: int, call: CallRef, resolution: Resolution | None) -> Waiting | None:
        """Run the call; what it waits for, if it has to."""
        task = ToolTask(
            invocation_id=self._invocation_id,
            step=self.number,
            index=index,
            epoch=self.epoch,
            may_wait=True,
            **({} if resolution is None else {"resolution": resolution}),
        )
        call_id = call_id_of(self._invocation_id, self.number, index)
        with self._waits.coming(call_id):
            async with _Place(self._state if call.serial else self._slots) as place:

                async def ask(child: Child) -> None:
                    if child.tells:
                        self._waits.came(call_id)
                    await self._waits.children.ask(task, call, child, place.let_go)

                wait = await remote.run_call(task, call, ask)
        return None if wait is None else self._waiting(index, call, wait)

    def _waiting(self, index: int, call: CallRef, wait: Wait) -> Waiting:
        now = workflow.now()
        until = None if wait.seconds is None else now + timedelta(seconds=min(wait.seconds, LONGEST))
        return Waiting(
            call_id=call_id_of(self._invocation_id, self.number, index),
            tool=call.name,
            kind=wait.kind,
            since=now,
            **given(until=until, event=wait.event, then=wait.then),
        )

    def _done(self) -> None:
        self._open -= 1
        self._changed()


class _Place:
    """A lock or a slot that a call holds until it is done, or lets go of it before."""

    def __init__(self, of: asyncio.Lock | asyncio.Semaphore) -> None:
        self._of = of
        self._held = False

    async def __aenter__(self) -> _Place:
        await self._of.acquire()
        self._held = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self.let_go()

    def let_go(self) -> None:
        if self._held:
            self._held = False
            self._of.release()


def _look_at(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
