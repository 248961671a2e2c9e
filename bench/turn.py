"""What a turn costs: events and bytes of history, and time, beside the least that Temporal allows.

    make bench-turn [JSON=FILE]
    python -m bench.turn [--turns 200] [--database postgres] [--json FILE] [--explain]

It starts a Temporal dev server, the model's stand-in, a worker of Perdure's and one for the
floor (see :mod:`bench.floor`), each a process of its own, and sends one message to each of
three sessions in turn: to one that only talks, to one that calls a tool, and to the floor.
So all three see the same machine.

- *events*, *bytes*: of all runs of the session, divided by its turns; so the start of a
  session and continue-as-new are in them. From the bytes the user's own message is taken
  off, once a turn. Both are as Temporal counts them (``describe``).
- *p50*: from sending a message to holding the answer, as the caller sees it. The model's
  stand-in answers at once, but a conversation that is never summed up is read, sent and
  received whole at every step; *first 20* and *last 20* show what that comes to.
- *slope*: the bytes of late turns through those of early ones. Turns 2 to 8 of the first run
  are set against turns 2 to 8 of the last run that has so many (of 200: 194 to 200), the same
  places between two continue-as-new; the turns that begin or end a run are in neither.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, median
from typing import Any

from rich.console import Console
from rich.table import Table
from temporalio.client import Client, WorkflowHandle

from bench.floor import Floor
from bench.history import Gauge, Reading, explain
from embedded.ports import HOST, free_port
from embedded.postgres import PostgresServer
from embedded.process import Process
from embedded.stack import environment_of
from embedded.temporal import TemporalServer
from gateway.runner import Runner, connect
from perdure.settings import Settings
from perdure.types import SessionKey
from storage.sessions import SessionStore
from workflows.session import TURNS_PER_RUN

__all__ = ["main"]

ROOT = Path(__file__).parents[1]
TEXT = "Tell me what you think of the weather of this week, and of the week after it. " * 3
TOOL = f"Count the words of '{'the quick brown fox jumps over the lazy dog and back again, ' * 3}', please."
PLACES = range(2, 9)
"""The turns of a run that are compared for the slope."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One row of the table."""

    name: str
    message: str
    take: Callable[[], Awaitable[object]]
    """One turn."""
    gauge: Gauge


@dataclass
class Cost:
    """What the turns of one kind came to."""

    message_bytes: int
    readings: list[Reading] = field(default_factory=list[Reading])
    """After each turn."""
    seconds: list[float] = field(default_factory=list[float])

    @property
    def slope(self) -> float:
        """The bytes of late turns through those of early ones."""
        runs_before = (len(self.readings) - PLACES[-1]) // TURNS_PER_RUN
        skipped = runs_before * TURNS_PER_RUN or len(self.readings) - PLACES[-1]
        return fmean(self._grown(turn + skipped) for turn in PLACES) / fmean(map(self._grown, PLACES))

    def _grown(self, turn: int) -> int:
        """The bytes that a turn added to its run."""
        before, after = self.readings[turn - 2 : turn]
        if before.run != after.run:
            raise RuntimeError(f"turn {turn} began a new run, and cannot be compared")
        return after.size - before.size


async def bench(turns: int, database: str, explained: bool) -> dict[str, Cost]:
    """Run it all; what the turns of each kind came to."""
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        async with _stage(Path(folder), database) as (client, kinds):
            costs = {kind.name: Cost(message_bytes=len(kind.message.encode())) for kind in kinds}
            for _ in range(turns):
                for kind in kinds:
                    await _measure(kind, costs[kind.name])
            if explained:
                await _explain(client, kinds)
    return costs


async def _measure(kind: Kind, cost: Cost) -> None:
    began = time.perf_counter()
    await kind.take()
    cost.seconds.append(time.perf_counter() - began)
    cost.readings.append(await kind.gauge.read())


def numbers_of(cost: Cost, floor: Cost) -> dict[str, float]:
    """The numbers of one kind, as they are written to JSON."""
    turns = len(cost.readings)
    return {
        "events": round(cost.readings[-1].events / turns, 2),
        "bytes": round(cost.readings[-1].size / turns - cost.message_bytes, 1),
        "p50_ms": _p50(cost.seconds),
        "floor_ratio": round(median(cost.seconds) / median(floor.seconds), 2),
        "slope": round(cost.slope, 3),
    }


def _p50(seconds: Sequence[float]) -> float:
    return round(median(seconds) * 1000, 1)


@asynccontextmanager
async def _stage(folder: Path, database: str) -> AsyncIterator[tuple[Client, Sequence[Kind]]]:
    async with AsyncExitStack() as stack:
        temporal = await stack.enter_async_context(TemporalServer(folder / "temporal"))
        model_port = free_port()
        if database == "postgres":
            database_url = (await stack.enter_async_context(PostgresServer())).url
        else:
            database_url = f"sqlite:///{folder / 'perdure.db'}"
        settings = Settings(
            _env_file=None,
            database_url=database_url,
            artifacts_url=f"file://{folder / 'artifacts'}",
            temporal_address=temporal.address,
            agents=(str(ROOT / "bench" / "agents.py"),),
            model_base_url=f"http://{HOST}:{model_port}",
            log_level="WARNING",
        )
        store = await SessionStore.open(settings.database_url, settings.artifacts_url, migrate=True)
        stack.push_async_callback(store.close)
        programs = {
            "stand-in": ["perdure.testing.gemini", "--port", str(model_port)],
            "worker": ["perdure", "worker"],
            "floor": ["bench.floor", temporal.address, "floor"],
        }
        for name, command in programs.items():
            process = Process(
                name,
                [sys.executable, "-m", *command],
                log=folder / f"{name}.log",
                env={**os.environ, **environment_of(settings)},
                cwd=ROOT,
            )
            process.start()
            stack.push_async_callback(process.stop)
        client = await connect(settings)
        yield client, await _kinds(client, Runner(client, store, task_queue=settings.task_queue))


async def _kinds(client: Client, runner: Runner) -> Sequence[Kind]:
    await client.start_workflow(Floor.run, id="floor", task_queue="floor")
    floor: WorkflowHandle[Floor, None] = client.get_workflow_handle("floor")

    def kind(name: str, app: str, message: str, expected: str) -> Kind:
        key = SessionKey(app=app, user_id="bench", session_id="one")

        async def take() -> None:
            answer = await runner.ask(key, message)
            if answer.status != "answered" or expected not in answer.text:
                raise RuntimeError(f"turn {answer.invocation_id} of {key} went wrong: {answer}")

        return Kind(name=name, message=message, take=take, gauge=Gauge(client, key.workflow_id))

    return [
        Kind(
            name="floor",
            message=TEXT,
            take=lambda: floor.execute_update(Floor.turn, TEXT, id=uuid.uuid4().hex),
            gauge=Gauge(client, "floor"),
        ),
        kind("text", "talker", TEXT, "stand-in"),
        kind("tool", "caller", TOOL, "36"),
    ]


async def _explain(client: Client, kinds: Sequence[Kind]) -> None:
    """Print the last turn of each kind, event by event."""
    for kind in kinds:
        await kind.take()
        workflow_id = {"floor": "floor", "text": "talker/bench/one", "tool": "caller/bench/one"}[kind.name]
        events = list((await client.get_workflow_handle(workflow_id).fetch_history()).events)
        ends = [
            place
            for place, event in enumerate(events)
            if event.HasField("workflow_execution_update_completed_event_attributes")
        ]
        start = ends[-2] + 1 if len(ends) > 1 else 0
        print(f"\nthe last {kind.name} turn, its message of {len(kind.message)} bytes included:")
        print(explain(events[start : ends[-1] + 1]))


def _show(costs: dict[str, Cost], numbers: dict[str, dict[str, float]], title: str) -> None:
    table = Table(title=title)
    heads = ["events", "bytes over the message", "p50 ms", "x floor", "slope", "first 20 ms", "last 20 ms"]
    table.add_column("a turn of")
    for head in heads:
        table.add_column(head, justify="right")
    for name, row in numbers.items():
        ends = [_p50(costs[name].seconds[:20]), _p50(costs[name].seconds[-20:])]
        table.add_row(name, *(f"{number:g}" for number in [*row.values(), *ends]))
    Console(width=110).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.turn", description=__doc__.partition("\n")[0])
    parser.add_argument("--turns", type=int, default=200, help="of each kind; at least 20")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--json", default=os.environ.get("JSON"), metavar="FILE", help="write the numbers")
    parser.add_argument("--explain", action="store_true", help="print where the bytes of a turn go")
    options: Any = parser.parse_args(arguments)
    if options.turns < 20:
        parser.error("--turns: the slope needs 20 or more")
    print(f"{options.turns} turns of each kind; this takes about {options.turns * 0.3:.0f} s …", flush=True)
    costs = asyncio.run(bench(options.turns, options.database, options.explain))
    numbers = {name: numbers_of(cost, costs["floor"]) for name, cost in costs.items()}
    _show(costs, numbers, f"{options.turns} turns each, {options.database}")
    if options.json:
        Path(options.json).write_text(json.dumps(numbers, indent=2) + "\n")


if __name__ == "__main__":
    main()
