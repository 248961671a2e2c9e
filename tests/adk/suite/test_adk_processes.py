"""Two processes that append to copies of one session at the same instant."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from google.adk.errors import StaleSessionError
from google.adk.events import Event, EventActions

from integrations.google_adk import PerdureSessionService
from tests.adk.suite.conftest import Database

WHO: dict[str, Any] = {"app_name": "shop", "user_id": "ada", "session_id": "s1"}
ROUNDS = 25
ROOT = Path(__file__).resolve().parents[3]
MODULE = "tests.adk.suite.test_adk_processes"


async def write(name: str, url: str, artifacts_url: str) -> None:
    """Read the session and say so; append when told to, and say what came of it; again and again."""
    async with PerdureSessionService(url, artifacts_url) as service:
        while True:
            session = await service.get_session(**WHO)
            assert session is not None
            print("ready", flush=True)
            # Blocking on purpose: nothing else runs here, and the answer comes the sooner.
            number = sys.stdin.readline().strip()
            if not number:
                return
            delta = {f"{name}{number}": True}
            event = Event(invocation_id=number, author=name, actions=EventActions(state_delta=delta))
            try:
                await service.append_event(session, event)
            except StaleSessionError:
                print("stale", flush=True)
            else:
                print("appended", flush=True)


@asynccontextmanager
async def writer(name: str, database: Database) -> AsyncIterator[Process]:
    """A process that runs :func:`write`."""
    command = (sys.executable, "-m", MODULE, name, database.url, database.artifacts_url)
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdin=PIPE, stdout=PIPE)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()


async def line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def test_s9_of_two_processes_one_is_refused(database: Database) -> None:
    """Every time: not most times, and nobody twice."""
    service = database.service()
    await service.create_session(**WHO)
    won = {"a": 0, "b": 0}
    async with AsyncExitStack() as stack:
        writers = {name: await stack.enter_async_context(writer(name, database)) for name in won}
        for number in range(ROUNDS):
            for process in writers.values():
                assert await line(process) == "ready"
            for process in writers.values():
                assert process.stdin is not None
                process.stdin.write(f"{number}\n".encode())
            said = dict(zip(won, await asyncio.gather(*map(line, writers.values())), strict=True))
            assert sorted(said.values()) == ["appended", "stale"], f"round {number}: {said}"
            won[next(name for name, word in said.items() if word == "appended")] += 1
    session = await service.get_session(**WHO)
    assert session is not None
    assert len(session.events) == len(session.state) == ROUNDS
    for name, count in won.items():
        assert len([event for event in session.events if event.author == name]) == count


if __name__ == "__main__":
    asyncio.run(write(*sys.argv[1:]))
