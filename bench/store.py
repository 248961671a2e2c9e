"""What the session store costs, beside the floor and beside google-adk's.

    make bench-store [JSON=FILE]
    python -m bench.store [--database sqlite] [--no-adk] [--quick] [--json FILE]

On a SQLite file and on a PostgreSQL server of its own, both of which wait for the disk at
each commit, it measures the same work by three contenders whose samples alternate, so that
noise hits all alike:

- *ours*: :class:`storage.sessions.SessionStore`. Every event changes one small key of the
  state, so a rewind of 10,000 events has 10,000 changes to take back.
- *the floor* (:mod:`bench.store_floor`): one transaction by hand through the same driver, and the
  least there can be, the same handed over at once.
- *google-adk*: its ``DatabaseSessionService`` and, for the rewinds, its ``Runner``, in the
  environment of its own that the tests make (:mod:`bench.store_adk`), on a database of its
  own of the same kind, in a process that waits while the others are measured.

A step of google-adk's that takes more than a minute is given up, and the table says so.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import asyncpg

from bench.store_cases import AT_ONCE, FULL, QUICK, Case, Sizes, cases_of, filling, measure
from bench.store_child import Child
from bench.store_fill import fill, fill_sessions
from bench.store_floor import Floor, PostgresFloor, SqliteFloor
from bench.store_report import numbers_of, show, targets_of
from embedded.postgres import PostgresServer
from storage.sessions import SessionStore

__all__ = ["bench", "main"]

DATABASES = ("sqlite", "postgres")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One kind of database, ready to be filled."""

    url: str
    floor: Floor
    adk_url: str


async def bench(databases: Sequence[str], sizes: Sizes, *, adk: bool) -> dict[str, list[Case]]:
    """Run it all; the cases with their samples, for each database."""
    results = {}
    for database in databases:
        with tempfile.TemporaryDirectory(prefix="perdure-bench-") as folder:
            async with _stage(database, Path(folder)) as stage:
                results[database] = await _run(stage, sizes, Path(folder), adk=adk)
    return results


async def _run(stage: Stage, sizes: Sizes, folder: Path, *, adk: bool) -> list[Case]:
    async with AsyncExitStack() as stack:
        options = {"pool_size": AT_ONCE}
        store = await SessionStore.open(stage.url, f"file://{folder}/blobs", options=options, migrate=True)
        stack.push_async_callback(store.close)
        wanted = filling(sizes)
        await fill(stage.url, wanted)
        await fill_sessions(stage.url, sizes.sessions)
        await stage.floor.start(list(wanted))
        stack.push_async_callback(stage.floor.close)
        child = Child(stage.adk_url, folder / "google-adk.log") if adk else None
        if child is not None:
            stack.push_async_callback(child.stop)
            for session, (count, state) in wanted.items():
                await child.fill("fill", session=session, count=count, state=dict(state))
            await child.fill("fill_sessions", count=sizes.sessions)
            await child.fill("settle")
        if stage.url.startswith("postgresql"):
            await _settle(stage.url)
        groups = cases_of(sizes, store, stage.floor)
        for cases in groups:
            await measure(cases, child)
        return list(chain(*groups))


async def _settle(url: str) -> None:
    """Do what autovacuum would do some time during the bench."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("VACUUM ANALYZE")
    finally:
        await connection.close()


@asynccontextmanager
async def _stage(database: str, folder: Path) -> AsyncIterator[Stage]:
    if database == "sqlite":
        path = folder / "ours.db"
        adk_url = f"sqlite+aiosqlite:///{folder / 'google-adk.db'}"
        yield Stage(url=f"sqlite:///{path}", floor=SqliteFloor(str(path)), adk_url=adk_url)
        return
    async with PostgresServer(fsync=True) as server:
        url = await server.create_database("ours")
        adk_url = (await server.create_database("google_adk")).replace("postgresql", "postgresql+asyncpg", 1)
        yield Stage(url=url, floor=PostgresFloor(url, AT_ONCE), adk_url=adk_url)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.store", description=__doc__.partition("\n")[0])
    parser.add_argument("--database", choices=DATABASES, help="only this one")
    parser.add_argument("--no-adk", action="store_true", help="without google-adk")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--json", default=os.environ.get("JSON"), metavar="FILE", help="write the numbers")
    options: Any = parser.parse_args(arguments)
    sizes = QUICK if options.quick else FULL
    databases = (options.database,) if options.database else DATABASES
    if not options.quick:
        print("this takes some minutes …", flush=True)
    began = time.monotonic()
    results = asyncio.run(bench(databases, sizes, adk=not options.no_adk))
    show(results, sizes)
    load = os.getloadavg()[1]
    print(f"in {time.monotonic() - began:.0f} s, at a load of {load:.1f} on {os.cpu_count()} processors")
    if options.json:
        told = {
            "sizes": asdict(sizes),
            "databases": {
                name: {case.name: numbers_of(case) for case in cases} for name, cases in results.items()
            },
            "load": load,
            "targets": {
                name: [
                    asdict(target) | {"verdict": target.verdict} for target in targets_of(name, cases, sizes)
                ]
                for name, cases in results.items()
            },
        }
        Path(options.json).write_text(json.dumps(told, indent=2) + "\n")


if __name__ == "__main__":
    main()
