"""The compactions of a session: behind the replies, one at a time, and never in a turn's way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from temporalio.exceptions import ActivityError, ApplicationError

from activities.failures import application_error, perdure_error, refusal
from activities.protocol import CompactTask
from perdure.errors import Busy, SessionEnded, StaleEpoch
from workflows import calls
from workflows.messages import Compacted, CompactRequest

__all__ = ["Compactions"]

T = TypeVar("T")


class Compactions:
    """Runs the compaction that a turn found due, and those that callers ask for.

    Args:
        note: told of each that was done, for the UI.
        failed: told when the one behind a reply was not.
    """

    def __init__(self, note: Callable[[str], None], failed: Callable[[ApplicationError], None]) -> None:
        self._note = note
        self._failed = failed
        self._lock = asyncio.Lock()
        self._tasks: list[asyncio.Task[Any]] = []
        self._abandoned = False

    @property
    def running(self) -> bool:
        """Whether one is under way."""
        return any(not task.done() for task in self._tasks)

    def start(self, invocation_id: str) -> None:
        """The one that is due after a turn. What is due while another runs stays due."""
        if not self.running:
            self._begin(self._behind(CompactTask(invocation_id=invocation_id)))

    async def on_request(self, request: CompactRequest, default_id: str) -> Compacted:
        """The one that a caller asks for, after any that is under way.

        Raises:
            ApplicationError: it failed, or the workflow was cancelled.
        """
        request_id = request.request_id or default_id
        task = self._begin(self._run(CompactTask(invocation_id=request_id, asked=True)))
        try:
            seq = await task
        except (ActivityError, asyncio.CancelledError) as error:
            if self._abandoned:
                busy = Busy(f"compaction {request_id} was cancelled with its workflow")
                raise application_error(busy) from None
            if isinstance(error, ActivityError):
                raise refusal(error) from None
            raise  # the worker lets go of the workflow; nobody is to be told
        return Compacted(request_id=request_id, **({} if seq is None else {"seq": seq}))

    def abandon(self) -> None:
        """Cancel what is under way: the workflow itself was cancelled."""
        self._abandoned = True
        for task in self._tasks:
            task.cancel()

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks = [*(each for each in self._tasks if not each.done()), task]
        return task

    async def _behind(self, task: CompactTask) -> None:
        try:
            await self._run(task)
        except ActivityError as error:
            # What was rewound, summed up by another or ended meanwhile needs no summary any more.
            if not isinstance(perdure_error(error), StaleEpoch | SessionEnded):
                self._failed(refusal(error))

    async def _run(self, task: CompactTask) -> int | None:
        async with self._lock:
            seq = await calls.compact(task)
        self._note("summed up what is old" if seq is not None else "had nothing to sum up")
        return seq
