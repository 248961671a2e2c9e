"""What the gateway adds to a turn: sessions over HTTP, with readers, beside a bare Temporal client.

    make bench-gateway [JSON=FILE]
    python -m bench.gateway [--seconds 60] [--sessions 50] [--readers 100] [--json FILE]

It starts Postgres, a Temporal dev server, the model's stand-in, a worker and ``perdure serve``,
each a process of its own. Two sides take the same turns, each in sessions of its own, one
message after the other in every session:

- *gateway*: ``POST …/messages``, each user with an API key, while the readers follow these
  sessions as streams (``GET …/events``), and hear every event and every piece of an answer.
- *bare client*: the update that docs/signals.md describes, with the answer inline; no
  gateway, no ``Runner``, no read of the database.

They go by turns, some seconds each, so that both see the same machine. On a machine of few
processors all of it, the clients included, waits for the same ones; so the CPU time that a
turn takes in each process says more than the times do, and the ratios more than the numbers.

- *p50*, *p95*: from sending a message to holding the answer, with all sessions at it at once.
- *memory*: resident, once every session has had a turn and every reader is there, and at the end.
- *missed*, *twice*: stored events that a reader did not get, or got again. There is none, or
  the bench fails.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles
from typing import Any

import httpx2
import psutil
from rich.console import Console
from rich.table import Table
from temporalio.client import Client, WithStartWorkflowOperation
from temporalio.common import WorkflowIDConflictPolicy

from bench.gateway_readers import Reader, Target
from embedded.ports import HOST, free_port
from embedded.postgres import PostgresServer
from embedded.process import Process
from embedded.stack import environment_of
from embedded.temporal import TemporalServer
from perdure.settings import Settings
from perdure.types import SessionKey
from storage.sessions import SessionStore

__all__ = ["main"]

ROOT = Path(__file__).parents[1]
TEXT = "Tell me what you think of the weather of this week, and of the week after it."
ROUND = 10.0
"""Seconds that a side has before it is the other's turn."""
MEGABYTE = 1_000_000
STARTS_WITHIN = 60.0
ARRIVES_WITHIN = 30.0
"""Seconds after the last turn in which its events have to be with the readers."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What runs."""

    client: Client
    store: SessionStore
    task_queue: str
    port: int
    """The gateway's."""
    pids: Mapping[str, int]

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU time that each process has had; ``client`` is this one."""
        return {name: _cpu(pid) for name, pid in self.pids.items()}

    def memory(self) -> dict[str, float]:
        """Resident megabytes of what is ours."""
        return {
            name: round(psutil.Process(self.pids[name]).memory_info().rss / MEGABYTE, 1)
            for name in ("gateway", "worker")
        }


@dataclass(kw_only=True)
class Side:
    """One way to send the same turns."""

    name: str
    take: Callable[[int], Awaitable[None]]
    """One turn of the session of this number."""
    seconds: list[float] = field(default_factory=list[float])
    """Of each turn that ended in time."""
    turns: int = 0
    """Of all there were."""
    elapsed: float = 0.0
    cpu: dict[str, float] = field(default_factory=dict[str, float])

    def numbers(self) -> dict[str, Any]:
        """The numbers, as they are written to JSON."""
        if len(self.seconds) < 2:
            raise RuntimeError(f"{self.name}: {len(self.seconds)} turns ended in time; give it more seconds")
        percentiles = quantiles(self.seconds, n=20)
        return {
            "turns": len(self.seconds),
            "turns_per_second": round(len(self.seconds) / self.elapsed, 2),
            "p50_ms": round(percentiles[9] * 1000, 1),
            "p95_ms": round(percentiles[18] * 1000, 1),
            "cpu_ms_a_turn": {name: round(1000 * spent / self.turns, 2) for name, spent in self.cpu.items()},
        }


async def bench(seconds: float, sessions: int, readers: int) -> dict[str, Any]:
    """Run it all; the numbers, as they are written to JSON."""
    with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
        async with (
            _stage(Path(folder)) as stage,
            httpx2.AsyncClient(
                base_url=f"http://{HOST}:{stage.port}",
                timeout=600,
                trust_env=False,
                limits=httpx2.Limits(max_connections=sessions),
            ) as http,
        ):
            tokens = [await _token(stage, number) for number in range(sessions)]
            sides = [_gateway(http, tokens), _bare(stage)]
            for side in sides:
                # Every session is there then, and every token known: new ones, so many at once, are refused.
                for number in range(sessions):
                    await side.take(number)
            following = [Reader(_target(stage, tokens, number % sessions)) for number in range(readers)]
            for reader in following:
                reader.start()
            await _arrived(stage, following, sessions)
            before, loads = stage.memory(), [os.getloadavg()[0]]
            rounds = max(1, round(seconds / ROUND))
            for number in range(rounds):
                for side in sides if number % 2 == 0 else reversed(sides):
                    await _round(stage, side, seconds / rounds, sessions)
            loads.append(os.getloadavg()[0])
            await _arrived(stage, following, sessions)
            after = stage.memory()
            for reader in following:
                await reader.stop()
    told = {side.name: side.numbers() for side in sides}
    return {
        "sessions": sessions,
        "readers": readers,
        "seconds": seconds,
        **told,
        "ratio": {
            name: round(told["gateway"][name] / told["bare"][name], 2)
            for name in ("turns_per_second", "p50_ms", "p95_ms")
        },
        "memory_mb": {"before": before, "after": after},
        "streams": {
            name: sum(getattr(reader, name) for reader in following)
            for name in ("events", "pieces", "missed", "twice")
        },
        "load": [round(load, 1) for load in loads],
        "processors": os.cpu_count(),
    }


async def _round(stage: Stage, side: Side, seconds: float, sessions: int) -> None:
    """All sessions at once, each one turn after the other, for so many seconds."""
    before, began = stage.cpu(), time.perf_counter()

    async def work(number: int) -> None:
        while (sent := time.perf_counter()) < began + seconds:
            await side.take(number)
            answered = time.perf_counter()
            side.turns += 1
            if answered <= began + seconds:
                side.seconds.append(answered - sent)

    async with asyncio.TaskGroup() as group:
        for number in range(sessions):
            group.create_task(work(number))
    side.elapsed += seconds
    for name, spent in stage.cpu().items():
        side.cpu[name] = side.cpu.get(name, 0.0) + spent - before[name]


def _gateway(http: httpx2.AsyncClient, tokens: Sequence[str]) -> Side:
    async def take(number: int) -> None:
        path = f"/apps/talker/users/g{number}/sessions/one/messages"
        headers = {"authorization": f"Bearer {tokens[number]}"}
        response = await http.post(path, json={"text": TEXT}, headers=headers)
        if response.status_code != 200:
            raise RuntimeError(f"{path}: {response.status_code} {response.text}")
        _check(path, response.json())

    return Side(name="gateway", take=take)


def _bare(stage: Stage) -> Side:
    async def take(number: int) -> None:
        workflow_id = f"talker/b{number}/one"
        start: WithStartWorkflowOperation[Any, Any] = WithStartWorkflowOperation(
            "AgentSession",
            id=workflow_id,
            task_queue=stage.task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        )
        message = {"text": TEXT, "inline": True}
        reply = await stage.client.execute_update_with_start_workflow(
            "ask", message, start_workflow_operation=start
        )
        _check(workflow_id, reply)

    return Side(name="bare", take=take)


def _check(where: str, answer: Mapping[str, Any]) -> None:
    if answer["status"] != "answered" or "stand-in" not in answer["text"]:
        raise RuntimeError(f"a turn of {where} went wrong: {answer}")


async def _token(stage: Stage, number: int) -> str:
    """An API key for one user."""
    _, token = await stage.store.create_key(f"bench-{number}", apps=["talker"], users=[f"g{number}"])
    return token


def _target(stage: Stage, tokens: Sequence[str], number: int) -> Target:
    path = f"/apps/talker/users/g{number}/sessions/one/events"
    return Target(host=HOST, port=stage.port, path=path, token=tokens[number])


async def _arrived(stage: Stage, following: Sequence[Reader], sessions: int) -> None:
    """Wait until every reader has what is in its session's log."""
    for number in range(min(sessions, len(following))):
        key = SessionKey(app="talker", user_id=f"g{number}", session_id="one")
        head = (await stage.store.get(key, max_events=0)).head
        for reader in following[number::sessions]:
            await reader.until(head, within=ARRIVES_WITHIN)


@asynccontextmanager
async def _stage(folder: Path) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        temporal = await stack.enter_async_context(TemporalServer(folder / "temporal"))
        postgres = await stack.enter_async_context(PostgresServer())
        port, model_port = free_port(), free_port()
        settings = Settings(
            _env_file=None,
            database_url=postgres.url,
            artifacts_url=f"file://{folder / 'artifacts'}",
            temporal_address=temporal.address,
            agents=(str(ROOT / "bench" / "agents.py"),),
            model_base_url=f"http://{HOST}:{model_port}",
            log_level="WARNING",
        )
        store = await SessionStore.open(settings.database_url, settings.artifacts_url, migrate=True)
        stack.push_async_callback(store.close)
        programs = {
            "model": ["perdure.testing.gemini", "--port", str(model_port)],
            "worker": ["perdure", "worker"],
            "gateway": ["perdure", "serve", "--address", f"{HOST}:{port}"],
        }
        pids = {"client": os.getpid()}
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
            pids[name] = _pid(process.pid)
        await process.until_ready(lambda: _answers(port), within=STARTS_WITHIN)
        pids |= {"temporal": _pid(temporal.pid), "postgres": _pid(postgres.pid)}
        client = await Client.connect(temporal.address)
        yield Stage(client=client, store=store, task_queue=settings.task_queue, port=port, pids=pids)


async def _answers(port: int) -> str | None:
    """None if the gateway answers, else why not."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        try:
            await http.get(f"http://{HOST}:{port}/livez")
        except httpx2.TransportError as error:
            return str(error)
    return None


def _pid(found: int | None) -> int:
    assert found is not None, "it was started"
    return found


def _cpu(pid: int) -> float:
    """Seconds of CPU time of a process and its children; of this one, whose children are measured, alone."""
    root = psutil.Process(pid)
    if pid == os.getpid():
        return sum(root.cpu_times()[:2])
    spent = sum(root.cpu_times()[:4])  # with the children that have ended
    for child in root.children():
        with suppress(psutil.NoSuchProcess):
            spent += sum(child.cpu_times()[:2])
    return spent


def _show(found: Mapping[str, Any]) -> None:
    title = f"{found['sessions']} sessions, {found['readers']} readers, {found['seconds']:g} s each"
    table = Table(title=title)
    table.add_column("")
    for head in ("gateway", "bare client", "ratio"):
        table.add_column(head, justify="right")
    gateway, bare = found["gateway"], found["bare"]
    for name, label in (("turns_per_second", "turns/s"), ("p50_ms", "p50 ms"), ("p95_ms", "p95 ms")):
        table.add_row(label, f"{gateway[name]:g}", f"{bare[name]:g}", f"{found['ratio'][name]:g}")
    for name in gateway["cpu_ms_a_turn"]:
        table.add_row(
            f"CPU ms a turn, {name}", *(f"{side['cpu_ms_a_turn'][name]:g}" for side in (gateway, bare)), ""
        )
    console = Console(width=110)
    console.print(table)
    before, after = found["memory_mb"]["before"], found["memory_mb"]["after"]
    console.print(
        "memory: " + ", ".join(f"{name} {before[name]:g} MB, then {after[name]:g}" for name in before)
    )
    streams = found["streams"]
    console.print(
        f"streams: {streams['events']} events and {streams['pieces']} pieces delivered, "
        f"{streams['missed']} missed, {streams['twice']} twice"
    )
    first, last = found["load"]
    console.print(f"load: {first} at the beginning, {last} at the end, on {found['processors']} processors")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it and print the numbers."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of turns, of each side; at least 1")
    parser.add_argument("--sessions", type=int, default=50, help="that take turns at once, of each side")
    parser.add_argument("--readers", type=int, default=100, help="that follow the gateway's sessions")
    parser.add_argument("--json", default=os.environ.get("JSON"), metavar="FILE", help="write the numbers")
    options: Any = parser.parse_args(arguments)
    if options.seconds < 1 or options.sessions < 1 or options.readers < 0:
        parser.error("at least a second and a session; readers can be none")
    print(f"{options.seconds:g} s of turns twice, and half a minute around it …", flush=True)
    found = asyncio.run(bench(options.seconds, options.sessions, options.readers))
    _show(found)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=2) + "\n")
    if found["streams"]["missed"] or found["streams"]["twice"]:
        raise SystemExit("a stream left out events, or gave some twice")


if __name__ == "__main__":
    main()
