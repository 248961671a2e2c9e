"""What a session does when its turn begins or ceases to be parked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from temporalio import workflow

from activities.protocol import Failure
from workflows.above import Above
from workflows.messages import Item
from workflows.standing import Standing
from workflows.steering import Steering
from workflows.turn import Turn

__all__ = ["Watching"]


class Watching:
    """Watches a session's turn.

    Args:
        standing: the session's.
        steering: the session's.
        above: who has asked for it.
        may_renew: whether the run may end here, and the next go on.
    """

    def __init__(
        self, standing: Standing, steering: Steering, above: Above, may_renew: Callable[[], bool]
    ) -> None:
        self._standing = standing
        self._above = above
        self._steering = steering
        self._may_renew = may_renew
        self._tasks: list[asyncio.Task[None]] = []

    def note(self, what: str) -> None:
        """The turn does this now."""
        standing, turn = self._standing, self._standing.turn
        self._above.tell(standing.waits.waiting if turn is not None and turn.parked else ())
        standing.note_step(what)

    def parked(self, turn: Turn) -> None:
        """The turn begins or ceases to be parked."""
        self._standing.park(turn)
        if turn.parked:
            if self._standing.inbox.wants_end():
                self._begin(self._steering.let_go("session ended"))
            self._begin(self._leave_when_due(turn))

    def warned(self, warning: str | None, *, anew: bool) -> None:
        """What of the agent's budget is nearly spent."""
        self._standing.warn(warning, anew=anew)

    def bounded(self, budget: dict[str, float] | None) -> None:
        """What the agent's budget allows."""
        self._standing.bound(budget)

    def joining(self) -> Sequence[Item]:
        """What joins the turn with its next step."""
        return self._standing.inbox.offer()

    def joined(self, taken: Sequence[str]) -> None:
        """That step has been; these have joined."""
        self._standing.inbox.settle(taken)
        for item_id in taken:
            self._standing.note_step(f"joined by `{item_id}`")

    async def give_up(self, turn: Turn, failure: Failure, reason: str) -> None:
        """The turn is to be ended."""
        await self._steering.give_up(turn, failure, reason)

    async def _leave_when_due(self, turn: Turn) -> None:
        # A turn may be parked for months, and its run may grow long meanwhile.
        await workflow.wait_condition(
            lambda: not turn.parked or (self._may_renew() and not self._steering.under_way)
        )
        turn.leave()

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks = [*(task for task in self._tasks if not task.done()), asyncio.create_task(work)]
