"""How soon a cancel is felt, and what it costs that it is.

    make bench-cancel [SAMPLES=20] [JSON=FILE]
    python -m bench.cancel [--samples 20] [--calls 100] [--seconds 10] [--json FILE]

It starts a Temporal dev server, the model's stand-in and a worker, all but the server in this process.

- *felt*: from sending the ``cancel`` signal to where the work hears of it: a model call that has no byte
  yet and one that streams (the stand-in sees its connection closed), a tool that awaits
  (``CancelledError``), and a sync tool that looks at ``context.cancelled``. An activity hears of it with
  its next heartbeat, so the cancels come at chance moments between two.
- *cost*: CPU of this process and of the server while so many model calls hang, as percent of one core. A
  heartbeat is an update of the workflow's record in the server's database.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from activities.gemini import Gemini
from activities.runtime import HEARTBEAT_EVERY
from embedded.temporal import TemporalServer
from gateway.runner import Runner, connect
from perdure import Agent, ToolContext, tool
from perdure.registry import Registry
from perdure.settings import Settings
from perdure.testing import StandIn, call
from perdure.types import SessionKey
from storage.sessions import SessionStore
from worker import build_worker

__all__ = ["main"]

LOOK_EVERY = 0.005


@dataclass
class Felt:
    """When a tool began, and when it heard of its cancellation."""

    began: asyncio.Event = field(default_factory=asyncio.Event)
    heard: asyncio.Event = field(default_factory=asyncio.Event)


_felt = Felt()


@tool
async def awaits() -> str:
    """Wait for nothing, in vain."""
    _felt.began.set()
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        _felt.heard.set()
        raise
    return "never"


_loop: asyncio.AbstractEventLoop


@tool
def looks(context: ToolContext) -> str:
    """Work in a thread, and look now and then whether to go on."""
    _loop.call_soon_threadsafe(_felt.began.set)
    while not context.cancelled:
        time.sleep(LOOK_EVERY)
    _loop.call_soon_threadsafe(_felt.heard.set)
    return "stopped"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What runs."""

    runner: Runner
    gemini: StandIn
    server: psutil.Process

    async def felt(self, kind: str, number: int) -> float:
        """Seconds from a cancel to where it is felt."""
        global _felt
        _felt = Felt()
        key = SessionKey(app="cancelled", user_id=kind, session_id=str(number))
        self.gemini.clear()
        begun, heard = self._prepared(kind)
        turn = asyncio.create_task(self.runner.ask(key, "Go."))
        await begun()
        await asyncio.sleep(random.uniform(0, 2 * HEARTBEAT_EVERY))
        sent = time.perf_counter()
        await self.runner.cancel(key)
        await heard()
        seconds = time.perf_counter() - sent
        status = (await turn).status
        if status != "cancelled":
            raise RuntimeError(f"the turn of {key} was to be cancelled, and is {status}")
        return seconds

    def _prepared(self, kind: str) -> tuple[Callable[[], Awaitable[Any]], Callable[[], Awaitable[Any]]]:
        if kind.startswith("model"):
            self.gemini.hang(after=1 if kind == "model that streams" else None)
            return self.gemini.wait_in_flight, self.gemini.wait_idle
        self.gemini.script(call("awaits" if kind == "tool that awaits" else "looks"))
        return _felt.began.wait, _felt.heard.wait

    async def cost(self, calls: int, seconds: float) -> dict[str, float]:
        """Percent of a core while so many model calls hang."""
        self.gemini.clear()
        self.gemini.hang(times=calls)
        keys = [SessionKey(app="cancelled", user_id="many", session_id=str(n)) for n in range(calls)]
        turns = [asyncio.create_task(self.runner.ask(key, "Go.")) for key in keys]
        await self.gemini.wait_in_flight(calls, timeout=120)
        here = psutil.Process()
        before = [_cpu(here), _cpu(self.server)]
        await asyncio.sleep(seconds)
        used = [_cpu(here) - before[0], _cpu(self.server) - before[1]]
        self.gemini.release()
        await asyncio.gather(*turns)
        return {
            name: round(100 * cpu / seconds, 1) for name, cpu in zip(("worker", "server"), used, strict=True)
        }


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


KINDS = ("model that says nothing", "model that streams", "tool that awaits", "sync tool that looks")


async def bench(samples: int, calls: int, seconds: float) -> dict[str, Any]:
    """Run it all; the numbers, as they are written to JSON."""
    global _loop
    _loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        async with _stage(Path(folder)) as stage:
            felt = {kind: [await stage.felt(kind, n) for n in range(samples)] for kind in KINDS}
            idle = await stage.cost(1, seconds)
            cost = await stage.cost(calls, seconds) if calls else idle
    return {
        "heartbeat_seconds": HEARTBEAT_EVERY,
        "felt_seconds": {
            kind: {"p50": round(median(found), 2), "most": round(max(found), 2)}
            for kind, found in felt.items()
        },
        "calls": calls,
        "cpu_percent": {"1 call": idle, f"{calls} calls": cost},
    }


@asynccontextmanager
async def _stage(folder: Path) -> AsyncIterator[Stage]:
    async with TemporalServer(folder / "temporal") as temporal, StandIn() as gemini:
        settings = Settings(_env_file=None, temporal_address=temporal.address, max_concurrent_model_calls=500)
        client = await connect(settings)
        store = await SessionStore.open(
            f"sqlite:///{folder / 'perdure.db'}", f"file://{folder / 'artifacts'}", migrate=True
        )
        model = Gemini(base_url=gemini.url)
        agent = Agent(name="cancelled", tools=[awaits, looks])
        try:
            async with build_worker(client, store, Registry([agent]), model, settings):
                runner = Runner(client, store, task_queue=settings.task_queue)
                yield Stage(runner=runner, gemini=gemini, server=psutil.Process(temporal.pid))
        finally:
            await model.close()
            await store.close()


def _show(found: dict[str, Any]) -> None:
    print(f"a heartbeat every {found['heartbeat_seconds']:g} s; seconds from the cancel until it is felt:")
    for kind, times in found["felt_seconds"].items():
        print(f"  {kind:26} p50 {times['p50']:.2f}, at most {times['most']:.2f}")
    for what, cpu in found["cpu_percent"].items():
        print(f"{what} waiting: worker {cpu['worker']} %, server {cpu['server']} % of a core")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it and print the numbers."""
    parser = argparse.ArgumentParser(prog="python -m bench.cancel", description=__doc__.partition("\n")[0])
    parser.add_argument("--samples", type=int, default=20, help="cancels of each kind")
    parser.add_argument("--calls", type=int, default=100, help="model calls that hang at once")
    parser.add_argument("--seconds", type=float, default=10, help="for how long their cost is measured")
    parser.add_argument("--json", default=os.environ.get("JSON"), metavar="FILE", help="write the numbers")
    options: Any = parser.parse_args(arguments)
    found = asyncio.run(bench(options.samples, options.calls, options.seconds))
    _show(found)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
