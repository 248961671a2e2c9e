"""Rewinds, cancels and time-outs: what ends a session's turn from outside.

Each commits first, moving the epoch, and stops the turn's task after. In between, whatever
the turn still writes is refused by the database, not by luck.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.failures import refusal
from activities.protocol import REWIND, Failure, Interrupted, InterruptTask, Moved, RewindTask
from perdure.types import given
from workflows import calls
from workflows.messages import Ack, CancelRequest, RewindRequest
from workflows.patches import CANCELS_WHAT_WAITS
from workflows.standing import Standing
from workflows.turn import Turn

__all__ = ["Steering"]


class Steering:
    """Steers a session, one request at a time; no turn begins meanwhile.

    Args:
        standing: the session's.
    """

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._requests = 0
        self._lock = asyncio.Lock()

    @property
    def under_way(self) -> bool:
        """Whether a request is being carried out, or waits to be."""
        return self._requests > 0

    async def rewind(self, request: RewindRequest) -> Ack:
        """Rewind to just before an invocation, and end the turn that runs.

        Raises:
            ApplicationError: it was refused, and nothing has changed.
        """
        request_id = request.request_id or str(workflow.uuid7())
        async with self._alone():
            standing, turn = self._standing, self._standing.turn
            task = RewindTask(
                before=request.before, request_id=request_id, **({"running": turn.id} if turn else {})
            )
            with standing.ending(turn):
                try:
                    moved = await calls.steer(REWIND, task, Moved, f"rewind before {request.before}")
                except ActivityError as error:
                    raise refusal(error) from None
                if not moved.repeated:
                    standing.epoch = moved.epoch
                    standing.totals = standing.totals.plus(rewinds=1)
                elif moved.stopped:
                    standing.epoch = None  # whose it is now is not known
                if turn is not None and (moved.stopped or not moved.repeated):
                    turn.stop("rewound")
            standing.note_step(f"rewound to before `{request.before}`")
            return Ack(request_id=request_id, seq=moved.seq)

    async def cancel(self, request: CancelRequest) -> None:
        """End the turn that runs, if it is the one that is meant; one that has not begun is not run.

        Which one is meant is settled as it comes: it may have to wait for a request before it.
        """
        standing = self._standing
        meant = request.invocation_id
        if meant is None:
            meant = standing.turn.id if standing.turn is not None else standing.inbox.next_turn
        async with self._alone():
            turn = standing.turn
            if turn is not None and turn.id == meant:
                await self.interrupt(turn, "cancelled")
            elif meant is not None and standing.inbox.waits(meant) and workflow.patched(CANCELS_WHAT_WAITS):
                standing.inbox.call_off(meant)
                standing.note_step(f"called off `{meant}`")

    async def keep_from_running(self, turn: Turn) -> None:
        """End a turn in the log that was cancelled before it began, unless it was answered before that."""
        async with self._alone():
            if turn.stopped is None:
                await self.interrupt(turn, "cancelled")

    async def make_way(self, message_id: str) -> None:
        """End the turn that runs for a message, unless that is one sent again."""
        turn = self._standing.turn
        async with self._alone():
            if turn is not None and turn is self._standing.turn and turn.stopped is None:
                await self.interrupt(turn, f"interrupted by message {message_id}", message_id=message_id)

    async def give_up(self, turn: Turn, failure: Failure, reason: str) -> None:
        """End a turn by a failure, if it still runs."""
        async with self._alone():
            if turn is self._standing.turn and turn.stopped is None:
                turn.failure = failure
                await self.interrupt(turn, reason, failure)

    async def let_go(self, reason: str) -> None:
        """End the turn that runs, if it is parked."""
        async with self._alone():
            turn = self._standing.turn
            if turn is not None and turn.parked:
                await self.interrupt(turn, reason)

    async def interrupt(
        self, turn: Turn, reason: str, failure: Failure | None = None, *, message_id: str | None = None
    ) -> None:
        """End a turn in the log, and then here; a request to do so waits for none before it."""
        standing = self._standing
        epoch = turn.epoch if turn.epoch is not None else standing.epoch
        known = {"epoch": epoch, "failure": failure, "message_id": message_id}
        task = InterruptTask(
            invocation_id=turn.id,
            reason=reason,
            **given(**known),
        )
        with standing.ending(turn):
            try:
                moved = await calls.interrupt(task, reason)
            except ActivityError as error:
                standing.note_error(refusal(error))
            else:
                if isinstance(moved, Interrupted):
                    # It had its answer, which nobody here knows of yet, and whoever asked is still to be
                    # told that. Or what it was to end for had been said before, and it goes on.
                    standing.epoch = moved.epoch
                    return
                standing.epoch = moved
            turn.stop(reason)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        self._requests += 1
        try:
            async with self._lock:
                yield
        finally:
            self._requests -= 1
