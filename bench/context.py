"""What a prompt costs, in characters and in time, as its session grows; with compaction and without.

    make bench-context [JSON=FILE]
    python -m bench.context [--turns 10 100 1000 3000] [--databases sqlite postgres] [--json FILE]

Sessions are filled in bulk with the rows that a worker would have written: turns of four
events, a message, a call, its response and an answer. Then the prompt of the message of turn
N is made again and again, as ``call_model`` does it, up to where the client would take it.

- *characters*: of instruction, tools and contents, as JSON.
- *cold*: milliseconds (median) to read the context from the database and to make the prompt of it.
- *cached*: the same on a worker that took the step before and remembers what it read then.
- *x*: the number through the one of the fewest turns.

With compaction there is a summary after every 5 turns, and the last one of them stays raw.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from activities.model_request import ModelRequest, model_request
from activities.prompt import model_event_id, response_event_id
from bench.agents import caller
from embedded.postgres import PostgresServer
from perdure.instructions import state_keys
from perdure.types import Event, JsonObject, SessionKey
from storage import session_row
from storage.engine import Database
from storage.options import StoreOptions
from storage.records import event_values
from storage.schema import events
from storage.sessions import Context, SessionStore

__all__ = ["main"]

INTERVAL = 5
"""Turns between two summaries; the last one that a summary covers stays in the prompt."""
QUESTION = "Count the words of 'the quick brown fox jumps over the lazy dog and back again', please. " * 3
ANSWER = "There are twelve words in that text; in all of the three together, there are thirty-six. " * 3
SUMMARY = "The user has words counted, and likes foxes; the last count was thirty-six. " * 40
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = 5_000
"""Inserted by one statement."""
SECONDS = 8.0
"""Of rounds, for the sessions of one kind."""
SHORT = 0.02
"""Seconds that a session gets in a round, at least."""
LEAST = 5
"""Rounds."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one prompt."""

    turn: int
    characters: int
    cold: float
    """Seconds."""
    cached: float
    """Seconds."""


async def bench(turns: Sequence[int], databases: Sequence[str]) -> dict[str, dict[str, list[Cost]]]:
    """The costs by database, without compaction and with it."""
    found: dict[str, dict[str, list[Cost]]] = {}
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        for name in databases:
            async with _stores(name, Path(folder)) as (url, store):
                found[name] = {}
                for kind in ("without", "with"):
                    keys = [SessionKey(app=caller.name, user_id=kind, session_id=str(turn)) for turn in turns]
                    await _fill(url, keys)
                    found[name][kind] = await _measure(store, keys)
    return found


@asynccontextmanager
async def _stores(name: str, folder: Path) -> AsyncIterator[tuple[str, SessionStore]]:
    async with AsyncExitStack() as stack:
        url = f"sqlite:///{folder / 'perdure.db'}"
        if name == "postgres":
            url = (await stack.enter_async_context(PostgresServer())).url
        store = await SessionStore.open(url, f"file://{folder / 'artifacts'}", migrate=True)
        stack.push_async_callback(store.close)
        yield url, store


async def _measure(store: SessionStore, keys: Sequence[SessionKey]) -> list[Cost]:
    """In rounds, so that all sessions see the same machine."""
    cases: list[tuple[SessionKey, Context | None]] = []
    characters: list[int] = []
    for key in keys:
        whole, request = await _build(store, key)
        earlier = replace(whole.session, head=whole.session.head - 2)
        before = replace(whole, session=earlier, events=list(whole.events[:-2]))
        assert await _build(store, key, before) == (whole, request), f"{key}: remembering changed the prompt"
        characters.append(
            len(json.dumps([request.system, request.tools, request.contents], ensure_ascii=False))
        )
        cases += [(key, None), (key, before)]
    taken: list[list[float]] = [[] for _ in cases]
    end = time.perf_counter() + SECONDS
    while len(taken[0]) < LEAST or time.perf_counter() < end:
        for (key, known), times in zip(cases, taken, strict=True):
            times += await _times(store, key, known)
    medians = [median(times) for times in taken]
    return [
        Cost(turn=int(key.session_id), characters=size, cold=cold, cached=cached)
        for key, size, cold, cached in zip(keys, characters, medians[::2], medians[1::2], strict=True)
    ]


async def _build(
    store: SessionStore, key: SessionKey, known: Context | None = None
) -> tuple[Context, ModelRequest]:
    context = await store.context(key, state_keys=state_keys(caller.instruction), known=known)
    return context, model_request(caller, context)


async def _times(store: SessionStore, key: SessionKey, known: Context | None) -> list[float]:
    """How long it takes: once, or, where that is short, a few times."""
    taken: list[float] = []
    while sum(taken) < SHORT:
        began = time.perf_counter()
        await _build(store, key, known)
        taken.append(time.perf_counter() - began)
    return taken


async def _fill(url: str, keys: Sequence[SessionKey]) -> None:
    database = await Database.open(url, StoreOptions())
    try:
        for key in keys:

            async def work(conn: AsyncConnection, key: SessionKey = key) -> None:
                row = await session_row.insert(conn, key)
                assert row is not None, f"{key} was filled already"
                rows = list(_rows(key))
                for start in range(0, len(rows), ROWS):
                    await conn.execute(insert(events), rows[start : start + ROWS])
                row.head = len(rows)
                await row.save(conn)

            await database.write(work)
    finally:
        await database.close()


def _rows(key: SessionKey) -> Iterator[dict[str, Any]]:
    """The log up to the message of the turn that the session is named for."""
    last = int(key.session_id)
    seq = 0
    for turn in range(1, last + 1):
        name, begun = f"turn-{turn}", seq + 1
        for event in _turn(name)[: 1 if turn == last else None]:
            seq += 1
            yield _row(key, event, seq)
        if key.user_id == "with" and turn < last and turn % INTERVAL == 0:
            covered = {"start": 1, "end": seq, "tail": begun}
            text = {"role": "user", "parts": [{"text": SUMMARY}]}
            made = _event(name, f"{name}:compact", "perdure", text)
            seq += 1
            yield _row(key, replace(made, compaction=covered), seq)


def _row(key: SessionKey, event: Event, seq: int) -> dict[str, Any]:
    return event_values(key, replace(event, seq=seq, created_at=BEGAN))


def _turn(name: str) -> list[Event]:
    call = {"functionCall": {"name": "count_words", "args": {"text": QUESTION}}}
    response = {"functionResponse": {"name": "count_words", "response": {"result": 36}}}
    asked = _event(name, model_event_id(name, 1), caller.name, {"role": "model", "parts": [call]})
    given = _event(name, response_event_id(name, 1, 0), caller.name, {"role": "user", "parts": [response]})
    said = _event(name, model_event_id(name, 2), caller.name, {"role": "model", "parts": [{"text": ANSWER}]})
    return [
        _event(name, f"{name}:user", "user", {"role": "user", "parts": [{"text": QUESTION}]}),
        replace(asked, meta={"step": 1}),
        replace(given, meta={"call": {"step": 1, "index": 0}}),
        replace(said, meta={"step": 2}),
    ]


def _event(name: str, event_id: str, author: str, content: JsonObject) -> Event:
    return Event(id=event_id, invocation_id=name, author=author, content=content)


def numbers_of(found: dict[str, dict[str, list[Cost]]]) -> JsonObject:
    """The numbers as they are written to JSON."""
    return {
        database: {
            kind: {str(cost.turn): _numbers(cost, costs[0]) for cost in costs}
            for kind, costs in kinds.items()
        }
        for database, kinds in found.items()
    }


def _numbers(cost: Cost, first: Cost) -> dict[str, float]:
    return {
        "characters": cost.characters,
        "characters_ratio": round(cost.characters / first.characters, 2),
        "cold_ms": round(cost.cold * 1000, 2),
        "cold_ratio": round(cost.cold / first.cold, 2),
        "cached_ms": round(cost.cached * 1000, 2),
        "cached_ratio": round(cost.cached / first.cached, 2),
    }


def _show(numbers: JsonObject) -> None:
    for database, kinds in numbers.items():
        table = Table(title=database)
        table.add_column("compaction")
        for head in ("turn", "characters", "x", "cold ms", "x", "cached ms", "x"):
            table.add_column(head, justify="right")
        for kind, costs in kinds.items():
            for turn, row in costs.items():
                table.add_row(kind, turn, *(f"{number:,}" for number in row.values()))
            table.add_section()
        Console(width=110).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.context", description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, nargs="+", default=[10, 100, 1_000, 3_000], help="from 2 up")
    parser.add_argument(
        "--databases", nargs="+", choices=["sqlite", "postgres"], default=["sqlite", "postgres"]
    )
    parser.add_argument("--json", default=os.environ.get("JSON"), metavar="FILE", help="write the numbers")
    options: Any = parser.parse_args(arguments)
    if min(options.turns) < 2:
        parser.error("--turns: the first turn has nothing before it; give numbers from 2 up")
    numbers = numbers_of(asyncio.run(bench(options.turns, options.databases)))
    _show(numbers)
    if options.json:
        Path(options.json).write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    main()
