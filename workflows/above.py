"""The session that has asked for this one, where this is an agent's that another has asked.

It is told when the turn here begins or ceases to wait, so that its own turn may be parked with it. One
signal is under way at a time, so that they come in order, and each says how it stands when it is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from temporalio import workflow
from temporalio.exceptions import FailureError

from perdure.types import SessionKey
from workflows.messages import Carry
from workflows.wait_messages import AGENT_WAITS, AgentWaits, Waiting

__all__ = ["Above"]


class Above:
    """Who is told what a session waits for.

    Args:
        carry: what the run before handed over.
    """

    def __init__(self, carry: Carry) -> None:
        parent = workflow.info().parent
        self._id = parent.workflow_id if parent is not None and carry.tells else None
        self._waiting: Sequence[Waiting] = ()
        self._told: Sequence[Waiting] | None = () if carry.parked is None else None
        """What it was told last; None: by the run before, and not to be relied upon."""
        self._task: asyncio.Task[None] | None = None

    @property
    def telling(self) -> bool:
        """Whether it is being told, which the end of the run would keep it from."""
        return self._task is not None and not self._task.done()

    def tell(self, waiting: Sequence[Waiting]) -> None:
        """The turn waits for these, if it is parked; it goes on, if there are none."""
        self._waiting = waiting
        if self._id is not None and not self.telling and waiting != self._told:
            self._task = asyncio.create_task(self._send(self._id))

    async def heard(self) -> None:
        """Until it has been told how things stand, now that a call has got what it waited for."""
        if self._told is None:
            self.tell(())  # a run before has left the turn parked, and it has not gone on yet
        if self.telling:
            await workflow.wait_condition(lambda: not self.telling)

    async def _send(self, workflow_id: str) -> None:
        session = SessionKey.parse(workflow.info().workflow_id).session_id
        run_id = workflow.info().first_execution_run_id
        while self._waiting != self._told:
            self._told = self._waiting
            told = AgentWaits(session=session, run_id=run_id, waiting=list(self._told))
            try:
                await workflow.get_external_workflow_handle(workflow_id).signal(AGENT_WAITS, told)
            except FailureError as error:  # it is closed, and so this one will be
                workflow.logger.warning(f"{workflow_id} is not told what {session} waits for: {error}")
                return
