"""Fills a database of ours in bulk, with the rows that the store itself would have written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.types import Event, Json, SessionKey
from storage import projection, session_row, state
from storage.engine import Database
from storage.options import StoreOptions
from storage.records import event_values
from storage.schema import events, sessions

__all__ = ["APP", "LIST_APP", "METADATA", "USER", "event_of", "fill", "fill_sessions", "key_of"]

APP = "bench"
LIST_APP = "bench-list"
USER = "someone"
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
CONTENT: dict[str, Json] = {
    "role": "model",
    "parts": [{"text": "The weather of this week is fair, and that of the next is not known yet. " * 4}],
}
METADATA = {"tenant": "tenant-7"}
"""What is searched for: one session in 200 has it."""
AT_ONCE = 5_000


def key_of(name: str) -> SessionKey:
    """The key of a session of the bench."""
    return SessionKey(app=APP, user_id=USER, session_id=name)


def event_of(number: int) -> Event:
    """The event of a number, from 1; each says 300 bytes and changes one small key."""
    return Event(
        id=f"event-{number}",
        invocation_id=f"turn-{number}",
        author="model",
        content=CONTENT,
        state_delta={"counter": number},
    )


async def fill(url: str, wanted: Mapping[str, tuple[int, Mapping[str, Json]]]) -> None:
    """Make sessions.

    Args:
        url: of a database that is migrated.
        wanted: for each id how many events it has, and its state but for the counter.
    """
    database = await Database.open(url, StoreOptions())
    try:
        for name, (count, values) in wanted.items():
            await database.write(partial(_make, key=key_of(name), count=count, values=values))
    finally:
        await database.close()


async def _make(conn: AsyncConnection, *, key: SessionKey, count: int, values: Mapping[str, Json]) -> None:
    row = await session_row.insert(conn, key, created_at=BEGAN)
    assert row is not None, f"{key} was filled already"
    for rows in _batches(key, count):
        await conn.execute(insert(events), rows)
    await state.write_own(conn, key, {**values, "counter": count})
    row.head = row.version = count
    await row.save(conn)


async def fill_sessions(url: str, count: int) -> None:
    """Make so many sessions without events, for a list."""
    rows: list[dict[str, Any]] = [
        {
            "app": LIST_APP,
            "user_id": f"user-{number % 100}",
            "id": f"session-{number}",
            "version": 1,
            "epoch": 0,
            "head": 0,
            "projection": projection.fresh(),
            "metadata": {"tenant": f"tenant-{number % 200}", "plan": "team"},
            "created_at": BEGAN,
            "updated_at": BEGAN + timedelta(seconds=number),
        }
        for number in range(count)
    ]

    async def work(conn: AsyncConnection) -> None:
        for start in range(0, count, AT_ONCE):
            await conn.execute(insert(sessions), rows[start : start + AT_ONCE])

    database = await Database.open(url, StoreOptions())
    try:
        await database.write(work)
    finally:
        await database.close()


def _batches(key: SessionKey, count: int) -> Iterator[Sequence[dict[str, Any]]]:
    for start in range(1, count + 1, AT_ONCE):
        rows = []
        for number in range(start, min(start + AT_ONCE, count + 1)):
            values = event_values(key, event_of(number))
            values["seq"] = number
            values["state_undo"] = {"counter": number - 1}
            values["created_at"] = BEGAN + timedelta(seconds=number)
            rows.append(values)
        yield rows
