"""What a session takes for its user's memory, and the vectors that an end leaves to be made.

The handlers of ``AgentSession`` that are about memory, in a class of their own, which it inherits.
"""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError

from activities.failures import refusal
from activities.protocol import RememberTask
from workflows import calls
from workflows.edges import typed, update_id
from workflows.messages import InMemory, RememberRequest
from workflows.standing import Standing

__all__ = ["MemoryHandlers", "Vectors"]


class Vectors:
    """Gives what an end remembered its vectors, behind the answer to that.

    Args:
        standing: the session's.
    """

    def __init__(self, standing: Standing) -> None:
        self._standing = standing
        self._task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether that is under way."""
        return self._task is not None and not self._task.done()

    def start(self, request_id: str) -> None:
        """Begin, unless it is under way: what it does not come to, the next one does."""
        if not self.running:
            self._task = asyncio.create_task(self._give(request_id))

    def abandon(self) -> None:
        """The workflow was cancelled."""
        if self._task is not None:
            self._task.cancel()

    async def _give(self, request_id: str) -> None:
        try:
            await calls.remember(RememberTask(request_id=request_id, only_vectors=True))
        except ActivityError as error:
            self._standing.note_error(refusal(error))
        else:
            self._standing.note_step("gave the memory its vectors")


class MemoryHandlers:
    """See ``AgentSession``, which sets these up before any handler runs."""

    _standing: Standing
    _tried: bool

    @workflow.update
    async def remember(self, request: Any = None) -> InMemory:
        """Put what is live into the user's memory; turns go on meanwhile."""
        return await self._remember(RememberRequest.of(request).request_id or update_id())

    @remember.validator
    def _check_remember(self, request: Any = None) -> None:
        with typed():
            RememberRequest.of(request)

    @workflow.signal(name="remember")
    async def remember_signal(self, request: Any = None) -> None:
        """The same, for callers that don't wait; an error is shown by ``status``."""
        with self._standing.noted():
            await self._remember(RememberRequest.of(request).request_id or str(workflow.uuid7()))

    async def _remember(self, request_id: str) -> InMemory:
        self._tried = True
        try:
            done = await calls.remember(RememberTask(request_id=request_id))
        except ActivityError as error:
            raise refusal(error) from None
        assert done is not None, "it was not only for vectors"
        self._standing.note_step("remembered what is live")
        return InMemory(request_id=request_id, upto=done.upto, passages=done.passages)
