"""Keeps a few services running: starts them in stages, starts again what ends, stops in reverse.

The first start of a service must succeed: a worker whose agent has a typing error would
only fail again. After that a service that ends is started again, after a wait that grows
while it keeps ending and is forgotten once it ran for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from embedded.errors import DidNotStart, MissingProgram

__all__ = ["Backoff", "Service", "Supervisor"]


class Service(Protocol):
    """Something that runs as a process of its own."""

    @property
    def name(self) -> str:
        """What to call it in messages."""

    async def start(self) -> None:
        """Start it and return once it is ready; raises DidNotStart or MissingProgram."""

    async def wait(self) -> int | None:
        """Wait for its end; the exit code (negative: the signal that ended it)."""

    async def stop(self) -> None:
        """End it in good order. Safe to call twice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """How long to wait before a service that ended is started again. All in seconds."""

    first: float = 0.1
    longest: float = 15.0
    forget_after: float = 30.0
    """A service that ran for this long starts over with the first wait."""

    def next(self, wait: float, *, ran_for: float) -> float:
        """The wait after a run that lasted `ran_for`, when the wait before that run was `wait`."""
        if wait == 0 or ran_for >= self.forget_after:
            return self.first
        return min(self.longest, wait * 2)


class Supervisor:
    """Runs services in stages.

    Args:
        stages: the services of one start at once, when those of the stage before are ready. They are
            stopped one by one, the last first.
        say: takes the lines that tell of ends and restarts.
        backoff: the waits before restarts.
    """

    def __init__(
        self,
        stages: Sequence[Sequence[Service]],
        *,
        say: Callable[[str], None],
        backoff: Backoff | None = None,
    ) -> None:
        self._stages = [list(stage) for stage in stages]
        self._say = say
        self._backoff = backoff or Backoff()
        self._keepers: list[asyncio.Task[None]] = []
        self._started: list[Service] = []

    async def start(self) -> None:
        """Start all of them, and keep them running from now on.

        Raises:
            DidNotStart: one of them did not; those before it are stopped again.
            MissingProgram: a program is not installed; as above.
        """
        try:
            for stage in self._stages:
                await self._start_together(stage)
        except BaseException:
            await self.stop()
            raise
        self._keepers = [
            asyncio.create_task(self._keep(service), name=f"keep {service.name}") for service in self._started
        ]

    async def watch(self) -> None:
        """Run until :meth:`stop`; raises what keeping a service running raised, which is a defect of ours."""
        await asyncio.gather(*self._keepers)

    async def stop(self) -> None:
        """Stop restarting, then stop them in reverse order. Safe to call twice."""
        await self.leave()
        while self._started:
            await self._started.pop().stop()

    async def leave(self) -> None:
        """Stop restarting and leave them as they are, for instance to be killed."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        self._keepers = []

    async def _start_together(self, stage: Sequence[Service]) -> None:
        self._started += stage
        try:
            async with asyncio.TaskGroup() as group:
                for service in stage:
                    group.create_task(service.start())
        except ExceptionGroup as errors:  # the first one cancelled the others
            raise errors.exceptions[0] from None

    async def _keep(self, service: Service) -> None:
        clock = asyncio.get_running_loop().time
        wait = 0.0
        since = clock()
        code = await service.wait()
        while True:
            wait = self._backoff.next(wait, ran_for=clock() - since)
            self._say(f"{service.name} ended ({_how(code)}); starting it again in {wait:g} s")
            await asyncio.sleep(wait)
            since = clock()
            try:
                await service.start()
            except (DidNotStart, MissingProgram) as error:
                self._say(str(error))
                code = None
                continue
            self._say(f"{service.name} runs again")
            code = await service.wait()


def _how(code: int | None) -> str:
    if code is None:
        return "it did not start"
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
