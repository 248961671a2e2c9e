"""The time that a turn may take. While it waits for a person or the world, the clock stands still."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio import workflow

__all__ = ["Clock"]


class Clock:
    """Rings when a turn has taken too long. It runs from its making, once it has a limit.

    Args:
        ring: what to do then, given the limit in seconds.
    """

    def __init__(self, ring: Callable[[float], Awaitable[None]]) -> None:
        self.limit: float | None = None
        """Seconds that the turn may take."""
        self._ring = ring
        self._since = workflow.now()
        self._before = timedelta()
        self._task: asyncio.Task[None] | None = None
        self._stands = False
        self._rung = False

    @property
    def left(self) -> float | None:
        """Seconds until it rings; None: it has no limit."""
        return None if self.limit is None else self.limit - self._taken.total_seconds()

    def set(self, limit: float, *, left: float | None = None) -> None:
        """Give it its limit, if it has none yet; and what is left, where a run before it has measured."""
        if self.limit is not None:
            return
        self.limit = limit
        if left is not None:
            self._before = timedelta(seconds=limit - left)
            self._since = workflow.now()
        self._start()

    def stand(self) -> None:
        """Stop it for now."""
        if not self._stands:
            self._before = self._taken
            self._stands = True
            self.stop()

    def go_on(self) -> None:
        """Let it run again."""
        if self._stands:
            self._stands = False
            self._since = workflow.now()
            self._start()

    def stop(self) -> None:
        """Call it off, unless it has rung: the log may have been told."""
        if self._task is not None and not self._rung:
            self._task.cancel()

    @property
    def _taken(self) -> timedelta:
        return self._before + (timedelta() if self._stands else workflow.now() - self._since)

    def _start(self) -> None:
        if self.limit is not None and not self._rung:
            self._task = asyncio.create_task(self._watch(self.limit))

    async def _watch(self, limit: float) -> None:
        left = timedelta(seconds=limit) - self._taken
        await workflow.sleep(max(left, timedelta()), summary="turn_timeout")
        self._rung = True
        await self._ring(limit)
