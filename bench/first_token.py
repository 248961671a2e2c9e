"""How long a token takes from the model to the client: ``python -m bench.first_token``.

The stand-in's answer is held open behind its first chunk. Measured is from the moment at
which the stand-in has read the request, and sends that chunk, to the one at which an HTTP
client of the gateway has it, through the worker, the database's notifications and the
gateway, all in one process here.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from examples import counter
from perdure.testing import say
from storage.sessions import SessionStore
from tests.gateway.harness import Gateway, open_gateway, path_of
from tests.gateway.sse import opened
from tests.integration.harness import open_world

TURNS = 50


async def first_token(gateway: Gateway, http: httpx2.AsyncClient) -> float:
    """Seconds from the stand-in's first chunk to the client."""
    model = gateway.world.gemini
    model.script(say("a few words that come in some pieces"))
    model.hang(after=1)
    async with opened(http, path_of(gateway.key(), "/messages"), body={"text": "hi"}) as stream:
        await stream.until(lambda message: message.partial)
        heard = datetime.now(UTC)
        model.release()
        await stream.rest()
    # The request has come, and its first chunk is sent, in one breath.
    return (heard - model.requests[-1].started).total_seconds()


async def measure(url: str, temporal: TemporalServer, folder: Path) -> list[float]:
    """The times of all turns on one database."""
    options = {"announce": True}
    store = await SessionStore.open(url, f"file://{folder}", options=options, migrate=True)
    try:
        async with (
            open_world(temporal.address, store, [counter.agent]) as world,
            open_gateway(world) as gateway,
        ):
            await first_token(gateway, gateway.http)  # connections are made
            return [await first_token(gateway, gateway.http) for _ in range(TURNS)]
    finally:
        await store.close()


async def main() -> None:
    """Print the median and the worst, on SQLite and on PostgreSQL."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with TemporalServer(folder / "temporal") as temporal, PostgresServer() as postgres:
            urls = {"sqlite": f"sqlite:///{folder / 'perdure.db'}", "postgres": postgres.url}
            for kind, url in urls.items():
                times = sorted(1000 * seconds for seconds in await measure(url, temporal, folder))
                middle, p95 = statistics.median(times), times[int(len(times) * 0.95)]
                print(f"{kind:9} p50 {middle:.1f} ms, p95 {p95:.1f} ms, worst {times[-1]:.1f} ms, of {TURNS}")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
