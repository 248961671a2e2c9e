"""A service that is one program: a process, how to tell that it is ready, and how long it may take to end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from embedded.process import Process, end_leftover

__all__ = ["Program"]


class Program:
    """A supervised program.

    Args:
        process: what to run.
        pid_file: the process's pid file, by which a leftover of a killed parent is found.
        ready: given the pid, None if it is ready, else what is missing.
        within: seconds it may take to be ready.
        grace: seconds it may take to end when asked to.
    """

    def __init__(
        self,
        process: Process,
        *,
        pid_file: Path,
        ready: Callable[[int], Awaitable[str | None]],
        within: float = 60,
        grace: float = 10,
    ) -> None:
        self._process = process
        self._pid_file = pid_file
        self._ready = ready
        self._within = within
        self._grace = grace

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return self._process.name

    @property
    def pid(self) -> int | None:
        """The process id, or None if it does not run."""
        return self._process.pid

    @property
    def log(self) -> Path:
        """The file its output goes to."""
        return self._process.log

    async def start(self) -> None:
        """Start it and return once it is ready. A leftover of an earlier run is ended first.

        Raises:
            MissingProgram: there is no such program.
            DidNotStart: it ended, or was not ready in time.
        """
        await asyncio.to_thread(end_leftover, self._pid_file)
        self._process.start()
        try:
            await self._process.until_ready(self._is_ready, within=self._within)
        except BaseException:
            await self._process.kill()
            raise

    async def until_ready(self) -> None:
        """Return once the running process is ready, for instance after somebody else started it again."""
        await self._process.until_ready(self._is_ready, within=self._within)

    async def wait(self) -> int | None:
        """Wait for its end; the exit code (negative: the signal that ended it)."""
        return await self._process.wait()

    async def stop(self) -> None:
        """Ask it to end and wait for the grace it has. Safe to call twice."""
        await self._process.stop(grace=self._grace)

    async def kill(self) -> None:
        """End it and its children with SIGKILL, as a crash would."""
        await self._process.kill()

    async def _is_ready(self) -> str | None:
        pid = self.pid
        return await self._ready(pid) if pid is not None else "it ended"
