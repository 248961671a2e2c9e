"""What open sessions cost that do nothing: memory, and the time to go on after they left a worker's cache.

    make bench-idle [SESSIONS=10000] [JSON=FILE]
    python -m bench.idle [--sessions 10000] [--cache 1000] [--sample 50] [--json FILE]

It starts a Temporal dev server, the model's stand-in and a worker, each a process of its own,
and opens so many sessions with one turn each. The worker keeps ``--cache`` of them in memory
(``PERDURE_MAX_CACHED_WORKFLOWS``); the others are evicted, and are from then on a row here and
there. All stay open: their workflows run, and wait for a message.

- *memory*: of the worker and of the Temporal server, resident, before the first session and
  after the last. The dev server keeps its own caches and an SQLite file; a cluster is another
  matter.
- *opened a second*: with ``--at-once`` sessions at a time; a turn and the start of a workflow.
- *first reply*: from sending a message to holding the answer, of a session that was evicted, which
  is replayed from its history first, and of one that was not; one after the other in turn, so
  that both see the same machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

from embedded.ports import HOST, free_port
from embedded.process import Process
from embedded.stack import environment_of
from embedded.temporal import TemporalServer
from gateway.runner import Runner, connect
from perdure.settings import Settings
from perdure.types import SessionKey
from storage.sessions import SessionStore

__all__ = ["main"]

ROOT = Path(__file__).parents[1]
TEXT = "Tell me what you think of the weather of this week, and of the week after it."
MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What runs."""

    runner: Runner
    temporal: TemporalServer
    worker: Process
    database: Path

    def memory(self) -> dict[str, float]:
        """Resident megabytes, and those of Temporal's file."""
        return {
            "worker_mb": _resident(self.worker.pid),
            "server_mb": _resident(self.temporal.pid),
            "server_file_mb": round(
                sum(file.stat().st_size for file in self.database.iterdir()) / MEGABYTE, 1
            ),
        }


def _resident(pid: int | None) -> float:
    """Of a process and those it started, in MB."""
    root = psutil.Process(pid)
    tree = [root, *root.children(recursive=True)]
    return round(sum(process.memory_info().rss for process in tree) / MEGABYTE, 1)


async def bench(sessions: int, cache: int, sample: int, at_once: int) -> dict[str, Any]:
    """Run it all; the numbers, as they are written to JSON."""
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        async with _stage(Path(folder), cache) as stage:
            for number in range(at_once):
                await _ask(stage.runner, _key(f"warm-{number}"))
            before = stage.memory()
            began = time.perf_counter()
            await _open(stage.runner, sessions, at_once)
            seconds = time.perf_counter() - began
            after = stage.memory()
            # The first that were opened left the cache long ago; the last are in it.
            evicted, cached = [], []
            for number in range(sample):
                evicted.append(await _ask(stage.runner, _key(str(number))))
                cached.append(await _ask(stage.runner, _key(str(sessions - 1 - number))))
            numbers = [_key(str(number)) for number in (0, sample - 1, sessions // 2, sessions - 1)]
            for key in numbers:
                status = await stage.runner.status(key)
                if (status.status, status.doing) != ("open", None):
                    raise RuntimeError(f"{key} is not open and idle: {status}")
    grown = {name: after[name] - before[name] for name in before}
    return {
        "sessions": sessions,
        "cache": cache,
        "opened_per_second": round(sessions / seconds, 1),
        "before": before,
        "after": after,
        "kb_a_session": {name: round(1000 * value / sessions, 2) for name, value in grown.items()},
        "evicted_ms": _times(evicted),
        "cached_ms": _times(cached),
    }


def _times(seconds: Sequence[float]) -> dict[str, float]:
    return {
        "p50": round(median(seconds) * 1000, 1),
        "p95": round(quantiles(seconds, n=20)[-1] * 1000, 1),
    }


def _key(name: str) -> SessionKey:
    return SessionKey(app="talker", user_id="bench", session_id=name)


async def _open(runner: Runner, sessions: int, at_once: int) -> None:
    """One turn each, so many at a time."""
    numbers = iter(range(sessions))
    began = time.perf_counter()

    async def work() -> None:
        for number in numbers:
            await _ask(runner, _key(str(number)))
            if (number + 1) % 1000 == 0:
                print(f"  {number + 1} open after {time.perf_counter() - began:.0f} s", flush=True)

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())


async def _ask(runner: Runner, key: SessionKey) -> float:
    """One turn; its seconds."""
    began = time.perf_counter()
    answer = await runner.ask(key, TEXT)
    if answer.status != "answered":
        raise RuntimeError(f"turn {answer.invocation_id} of {key} went wrong: {answer}")
    return time.perf_counter() - began


@asynccontextmanager
async def _stage(folder: Path, cache: int) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        data = folder / "temporal"
        temporal = await stack.enter_async_context(TemporalServer(data))
        model_port = free_port()
        settings = Settings(
            _env_file=None,
            database_url=f"sqlite:///{folder / 'perdure.db'}",
            artifacts_url=f"file://{folder / 'artifacts'}",
            temporal_address=temporal.address,
            agents=(str(ROOT / "bench" / "agents.py"),),
            model_base_url=f"http://{HOST}:{model_port}",
            max_cached_workflows=cache,
            log_level="WARNING",
        )
        store = await SessionStore.open(settings.database_url, settings.artifacts_url, migrate=True)
        stack.push_async_callback(store.close)
        programs = {
            "stand-in": ["perdure.testing.gemini", "--port", str(model_port)],
            "worker": ["perdure", "worker"],
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
        runner = Runner(await connect(settings), store, task_queue=settings.task_queue)
        yield Stage(runner=runner, temporal=temporal, worker=process, database=data)


def _show(found: dict[str, Any]) -> None:
    table = Table(title=f"{found['sessions']} open sessions, {found['cache']} of them in the worker's memory")
    for head in ("", "before", "after", "a session"):
        table.add_column(head, justify="left" if not head else "right")
    for name, what in (
        ("worker_mb", "worker"),
        ("server_mb", "Temporal server"),
        ("server_file_mb", "its files"),
    ):
        row = (
            f"{found['before'][name]} MB",
            f"{found['after'][name]} MB",
            f"{found['kb_a_session'][name]} kB",
        )
        table.add_row(what, *row)
    console = Console(width=110)
    console.print(table)
    console.print(f"opened a second: {found['opened_per_second']}")
    for name, what in (("evicted_ms", "evicted"), ("cached_ms", "cached")):
        console.print(f"first reply, {what}: p50 {found[name]['p50']} ms, p95 {found[name]['p95']} ms")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it and print the numbers."""
    parser = argparse.ArgumentParser(prog="python -m bench.idle", description=__doc__.partition("\n")[0])
    parser.add_argument("--sessions", type=int, default=10_000, help="to open; at least cache + 2 x sample")
    parser.add_argument("--cache", type=int, default=1000, help="sessions that the worker keeps in memory")
    parser.add_argument("--sample", type=int, default=50, help="first replies that are timed, of each kind")
    parser.add_argument("--at-once", type=int, default=32, help="sessions that are opened at a time")
    parser.add_argument("--json", default=os.environ.get("JSON"), metavar="FILE", help="write the numbers")
    options: Any = parser.parse_args(arguments)
    if options.sample < 2 or options.cache < 2 * options.sample:
        parser.error("--sample: at least 2, and at most half the cache")
    if options.sessions < options.cache + 2 * options.sample:
        parser.error("--sessions: so many that some are evicted: at least cache + 2 x sample")
    print(f"{options.sessions} sessions; 10,000 take ten minutes, or thirty on a busy machine …", flush=True)
    found = asyncio.run(bench(options.sessions, options.cache, options.sample, options.at_once))
    _show(found)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
