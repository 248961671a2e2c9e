"""google-adk's DatabaseSessionService at the same work; runs where google-adk is installed.

    python bench/store_adk.py DATABASE_URL

It answers one line of JSON on its output for each on its input: ``{"do": …}`` by
``{"ms": […]}``, or ``{"error": …}``. Appends go to a session that it holds, as a running turn
does, so no append has to read the log first. Its pool has a connection for each session that
appends at once, as the others' have; all else is as google-adk makes it (on SQLite
synchronous=FULL with a rollback journal).
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.events import Event, EventActions
from google.adk.runners import Runner
from google.adk.sessions import DatabaseSessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig
from google.adk.sessions.schemas.v1 import StorageEvent, StorageSession
from google.genai import types
from sqlalchemy import insert, text, update

BEGAN = datetime(2026, 1, 1)
AT_ONCE = 5_000
CONNECTIONS = 16
TEXT = "The weather of this week is fair, and that of the next is not known yet. " * 4


class Contender:
    """The service on one database."""

    def __init__(self, url: str) -> None:
        self._service = DatabaseSessionService(url, pool_size=CONNECTIONS)
        self._held: dict[str, Session] = {}

    async def close(self) -> None:
        """Close the connections."""
        await self._service.close()

    async def fill(self, session: str, count: int, state: dict[str, Any]) -> list[float]:
        """Make a session with so many events, in bulk, with the rows that the service would write."""
        await self._service.create_session(
            app_name="bench", user_id="someone", session_id=session, state={**state, "counter": count}
        )
        owner = {"app_name": "bench", "user_id": "someone", "session_id": session}
        async with self._service.db_engine.begin() as connection:
            for start in range(1, count + 1, AT_ONCE):
                rows = []
                for number in range(start, min(start + AT_ONCE, count + 1)):
                    made = BEGAN + timedelta(seconds=number)
                    event = _event(number)
                    event.timestamp = made.timestamp()
                    data = event.model_dump(exclude_none=True, mode="json")
                    invocation = {"id": event.id, "invocation_id": event.invocation_id}
                    rows.append({**owner, **invocation, "timestamp": made, "event_data": data})
                await connection.execute(insert(StorageEvent), rows)
            last = BEGAN + timedelta(seconds=count)
            mine = update(StorageSession).where(StorageSession.id == session)
            await connection.execute(mine.values(update_time=last))
        return []

    async def fill_sessions(self, count: int) -> list[float]:
        """Make so many sessions without events."""
        await self._service.prepare_tables()
        rows = []
        for number in range(count):
            made = BEGAN + timedelta(seconds=number)
            owner = {"app_name": "bench-list", "user_id": f"user-{number % 100}", "id": f"session-{number}"}
            state = {"tenant": f"tenant-{number % 200}", "plan": "team"}
            rows.append({**owner, "state": state, "create_time": made, "update_time": made})
        async with self._service.db_engine.begin() as connection:
            for start in range(0, count, AT_ONCE):
                await connection.execute(insert(StorageSession), rows[start : start + AT_ONCE])
        return []

    async def settle(self) -> list[float]:
        """Bring the planner's statistics up to date, on PostgreSQL."""
        if self._service.db_engine.dialect.name == "postgresql":
            async with self._service.db_engine.connect() as connection:
                alone = await connection.execution_options(isolation_level="AUTOCOMMIT")
                await alone.execute(text("VACUUM ANALYZE"))
        return []

    async def append(self, session: str) -> list[float]:
        """Append one event."""
        held = await self._hold(session)
        event = _event(None)
        return [await _timed(lambda: self._service.append_event(held, event))]

    async def many(self, sessions: list[str], times: int) -> list[float]:
        """Append to all of them at once; milliseconds for each append."""
        held = [await self._hold(session) for session in sessions]

        async def one(session: Session) -> None:
            for _ in range(times):
                await self._service.append_event(session, _event(None))

        took = await _timed(lambda: asyncio.gather(*map(one, held)))
        return [took / (times * len(held))]

    async def get(self, session: str, limit: int | None) -> list[float]:
        """A session with its last events, or all."""
        config = GetSessionConfig(num_recent_events=limit)
        return [await _timed(lambda: self._get(session, config))]

    async def page(self) -> list[float]:
        """All sessions: it has no pages."""
        return [await _timed(lambda: self._service.list_sessions(app_name="bench-list"))]

    async def rewind(self, session: str, before: int) -> list[float]:
        """The runner's rewind to before a turn."""
        agent = LlmAgent(name="bench_agent", model="none")
        runner = Runner(app_name="bench", agent=agent, session_service=self._service)
        where: dict[str, Any] = {"user_id": "someone", "session_id": session}
        turn = f"turn-{before}"
        return [await _timed(lambda: runner.rewind_async(**where, rewind_before_invocation_id=turn))]

    async def _hold(self, session: str) -> Session:
        if session not in self._held:
            self._held[session] = await self._get(session, GetSessionConfig(num_recent_events=0))
        return self._held[session]

    async def _get(self, session: str, config: GetSessionConfig) -> Session:
        found = await self._service.get_session(
            app_name="bench", user_id="someone", session_id=session, config=config
        )
        assert found is not None, f"session {session} was not filled"
        return found


def _event(number: int | None) -> Event:
    name = uuid.uuid4().hex if number is None else str(number)
    return Event(
        id=f"event-{name}",
        invocation_id=f"turn-{name}",
        author="model",
        content=types.Content(role="model", parts=[types.Part(text=TEXT)]),
        actions=EventActions(state_delta={"counter": number or 0}),
    )


async def _timed(work: Callable[[], Awaitable[object]]) -> float:
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1000


async def _serve(url: str) -> None:
    contender = Contender(url)
    while line := await asyncio.to_thread(sys.stdin.readline):
        asked = json.loads(line)
        try:
            answer: dict[str, Any] = {"ms": await getattr(contender, asked.pop("do"))(**asked)}
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a result of the bench
            answer = {"error": f"{type(error).__name__}: {str(error)[:200]}"}
        print(json.dumps(answer), flush=True)
    await contender.close()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
