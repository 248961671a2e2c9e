"""Breaks things at random: workers, the Temporal server, the database, the model."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

from embedded.errors import DidNotStart
from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from tests.soak.ledger import Tally
from tests.soak.stage import Stage

__all__ = ["Monkey"]

Fault = Callable[[], Awaitable[bool]]

AT_ONCE = 3
"""Faults at a time, at most."""
STARTS = 3
"""Tries to start a server on a busy machine."""


class Monkey:
    """Breaks a stage.

    Args:
        stage: what to break.
        tally: where it counts.
        rng: what is left to chance.
        pause: seconds between faults, on average.
    """

    def __init__(self, stage: Stage, tally: Tally, rng: random.Random, *, pause: float) -> None:
        self._stage = stage
        self._tally = tally
        self._rng = rng
        self._pause = pause
        self._temporal = asyncio.Lock()
        self._database = asyncio.Lock()
        self._weights: dict[str, tuple[int, Fault]] = {
            "worker killed": (8, self._kill_worker),
            "worker asked to stop": (3, self._stop_worker),
            "worker frozen": (4, self._freeze_worker),
            "Temporal killed": (2, self._kill_temporal),
            "model 429": (3, self._busy_model),
            "model 500": (3, self._broken_model),
            "model hangs": (3, self._hanging_model),
            "model cut": (3, self._cut_model),
        }
        if stage.postgres is not None:
            self._weights["Postgres killed"] = (3, self._kill_postgres)
        else:
            self._weights["SQLite locked"] = (3, self._lock_sqlite)

    async def run(self, stop: asyncio.Event) -> None:
        """Break something every now and then, each kind once at first; when told to stop, mend it all."""
        names = list(self._weights)
        first = self._rng.sample(names, len(names))
        running: set[asyncio.Task[None]] = set()
        while not stop.is_set():
            name = (
                first.pop() if first else self._rng.choices(names, [w for w, _ in self._weights.values()])[0]
            )
            running.add(asyncio.create_task(self._break(name)))
            await _wait(stop, self._rng.uniform(0, 2 * self._pause))
            if len(running) >= AT_ONCE:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in running if task.done()]:
                running.remove(task)
                task.result()
        await asyncio.gather(*running)
        self._stage.gemini.clear()
        self._stage.gemini.release()

    async def _break(self, name: str) -> None:
        if await self._weights[name][1]():
            self._tally.faults[name] += 1

    async def _kill_worker(self) -> bool:
        return self._rng.choice(self._stage.berths).signal(signal.SIGKILL)

    async def _stop_worker(self) -> bool:
        return self._rng.choice(self._stage.berths).signal(signal.SIGTERM)

    async def _freeze_worker(self) -> bool:
        """Now for a moment, now for so long that it is taken for dead and goes on as a zombie."""
        return await self._rng.choice(self._stage.berths).freeze(self._rng.uniform(1, 16))

    async def _kill_temporal(self) -> bool:
        return await self._kill(self._stage.temporal, self._temporal)

    async def _kill_postgres(self) -> bool:
        assert self._stage.postgres is not None, "on Postgres"
        return await self._kill(self._stage.postgres, self._database)

    async def _kill(self, server: TemporalServer | PostgresServer, lock: asyncio.Lock) -> bool:
        away = self._rng.uniform(0, 4)
        async with lock:
            await server.kill()
            await asyncio.sleep(away)
            for left in reversed(range(STARTS)):
                try:
                    await server.start()
                    return True
                except DidNotStart:
                    if not left:
                        raise
        return False

    async def _lock_sqlite(self) -> bool:
        path = Path(self._stage.settings.database_url.removeprefix("sqlite:///"))
        async with self._database:
            connection = await asyncio.to_thread(_locked, path)
            try:
                await asyncio.sleep(self._rng.uniform(0.5, 8))
            finally:
                connection.close()
        return True

    async def _busy_model(self) -> bool:
        self._stage.gemini.fail(429, retry_after=1, times=self._rng.randint(1, 4))
        return True

    async def _broken_model(self) -> bool:
        self._stage.gemini.fail(500, times=self._rng.randint(1, 4))
        return True

    async def _hanging_model(self) -> bool:
        self._stage.gemini.hang(after=self._rng.choice([None, 1]), times=self._rng.randint(1, 3))
        return True

    async def _cut_model(self) -> bool:
        self._stage.gemini.cut(after=self._rng.randint(0, 2), times=self._rng.randint(1, 4))
        return True


def _locked(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=60, isolation_level=None, check_same_thread=False)
    connection.execute("BEGIN IMMEDIATE")
    return connection


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
