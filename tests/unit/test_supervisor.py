"""The supervisor over services that end when told to: order, restarts, waits."""

from __future__ import annotations

import asyncio

import pytest

from embedded.errors import DidNotStart
from embedded.supervisor import Backoff, Supervisor

QUICK = Backoff(first=0.001, longest=0.004, forget_after=60)


class Fake:
    """A service that ends when :meth:`end` is called, and fails to start as often as told."""

    def __init__(self, name: str, history: list[str], *, failures: int = 0) -> None:
        self.name = name
        self.failures = failures
        self.starts = asyncio.Semaphore(0)
        self._history = history
        self._ended: asyncio.Queue[int] = asyncio.Queue()

    async def start(self) -> None:
        self._history.append(f"start {self.name}")
        if self.failures:
            self.failures -= 1
            raise DidNotStart(f"{self.name} did not start")
        self.starts.release()

    async def wait(self) -> int | None:
        return await self._ended.get()

    async def stop(self) -> None:
        self._history.append(f"stop {self.name}")

    def end(self, code: int) -> None:
        self._ended.put_nowait(code)


async def test_it_starts_stage_by_stage_and_stops_in_reverse() -> None:
    history: list[str] = []
    server, model, worker = (Fake(name, history) for name in ("server", "model", "worker"))
    supervisor = Supervisor([[server], [model, worker]], say=history.append)
    await supervisor.start()
    await supervisor.stop()
    assert history == [
        "start server",
        "start model",
        "start worker",
        "stop worker",
        "stop model",
        "stop server",
    ]


async def test_stopping_twice_is_stopping_once() -> None:
    history: list[str] = []
    supervisor = Supervisor([[Fake("server", history)]], say=history.append)
    await supervisor.start()
    await supervisor.stop()
    await supervisor.stop()
    assert history == ["start server", "stop server"]


async def test_a_service_that_ends_is_started_again_and_it_says_so() -> None:
    history: list[str] = []
    worker = Fake("worker", history)
    supervisor = Supervisor([[worker]], say=history.append, backoff=QUICK)
    await supervisor.start()
    await worker.starts.acquire()
    worker.end(-9)
    await worker.starts.acquire()
    await supervisor.stop()
    assert history == [
        "start worker",
        "worker ended (signal 9); starting it again in 0.001 s",
        "start worker",
        "worker runs again",
        "stop worker",
    ]


async def test_a_restart_that_fails_is_tried_again() -> None:
    history: list[str] = []
    worker = Fake("worker", history)
    supervisor = Supervisor([[worker]], say=history.append, backoff=QUICK)
    await supervisor.start()
    await worker.starts.acquire()
    worker.failures = 2
    worker.end(1)
    await worker.starts.acquire()
    await supervisor.stop()
    said = [line for line in history if line.startswith("worker")]
    assert said == [
        "worker ended (exit code 1); starting it again in 0.001 s",
        "worker did not start",
        "worker ended (it did not start); starting it again in 0.002 s",
        "worker did not start",
        "worker ended (it did not start); starting it again in 0.004 s",
        "worker runs again",
    ]


async def test_a_first_start_that_fails_stops_the_others_and_raises() -> None:
    history: list[str] = []
    server, worker = Fake("server", history), Fake("worker", history, failures=1)
    supervisor = Supervisor([[server], [worker]], say=history.append)
    with pytest.raises(DidNotStart, match="worker did not start"):
        await supervisor.start()
    assert history == ["start server", "start worker", "stop worker", "stop server"]


async def test_left_alone_it_starts_nothing_again() -> None:
    history: list[str] = []
    worker = Fake("worker", history)
    supervisor = Supervisor([[worker]], say=history.append, backoff=QUICK)
    await supervisor.start()
    await supervisor.leave()
    worker.end(-9)
    await asyncio.sleep(0.01)
    assert history == ["start worker"]


async def test_watching_raises_a_defect() -> None:
    worker = Fake("worker", [])

    def broken(_: str) -> None:
        raise RuntimeError("nobody listens")

    supervisor = Supervisor([[worker]], say=broken, backoff=QUICK)
    await supervisor.start()
    worker.end(1)
    with pytest.raises(RuntimeError, match="nobody listens"):
        await supervisor.watch()
    await supervisor.stop()


def test_the_wait_grows_to_its_limit_and_is_forgotten_after_a_long_run() -> None:
    backoff = Backoff(first=1, longest=3, forget_after=30)
    waits = [0.0]
    for _ in range(4):
        waits.append(backoff.next(waits[-1], ran_for=0.5))
    assert waits[1:] == [1, 2, 3, 3]
    assert backoff.next(3, ran_for=30) == 1
