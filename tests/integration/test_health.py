"""``/healthz`` and ``/livez`` of a real worker, as a load balancer and a supervisor see them."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette

from embedded.ports import free_port
from embedded.postgres import PostgresServer
from embedded.process import Process
from embedded.stack import environment_of
from embedded.temporal import TemporalServer
from gateway.listening import address_of, listening
from perdure.errors import InvalidOption
from perdure.settings import Settings
from perdure.testing import StandIn
from storage.sessions import SessionStore
from tests.conformance.servers import BUCKET, s3_server
from tests.integration.crashes import AGENTS, ROOT
from tests.integration.harness import until
from tests.integration.proxy import Proxy
from tests.integration.test_crashes import open_stage
from tests.integration.test_shutdown import ENOUGH, Deployed


def get(port: int, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


async def healthz(port: int) -> tuple[int, Any]:
    return await asyncio.to_thread(get, port, "/healthz")


@asynccontextmanager
async def worker_with(
    settings: Settings, folder: Path, variables: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Process, int]]:
    """``perdure worker`` with a probe; the process and the probe's port."""
    port = free_port()
    given = settings.model_copy(update={"health_address": f"127.0.0.1:{port}"})
    environment = {**environment_of(given), "PATH": "/usr/bin:/bin", "HOME": str(folder), **(variables or {})}
    command = [sys.executable, "-m", "perdure", "worker"]
    process = Process("worker", command, log=folder / "worker.log", env=environment, cwd=ROOT)
    process.start()

    async def up() -> bool:
        assert process.running, process.tail()
        return "worker ready" in process.log.read_text()

    try:
        await until(up, within=60)
        yield process, port
    finally:
        await process.kill()


async def told(port: int, expected: Mapping[str, object]) -> dict[str, str]:
    """Wait until these parts, and no others, are down; the reasons."""

    async def found() -> dict[str, str] | None:
        status, answer = await healthz(port)
        down: dict[str, str] = answer["down"]
        if set(down) != set(expected):
            return None
        assert (status, answer["ready"]) == ((503, False) if expected else (200, True))
        return down or {"nothing": "is down"}

    reasons = await until(found, within=60)
    assert reasons is not None
    return reasons


async def test_a_worker_is_ready_while_all_it_needs_answers_and_alive_anyhow(
    temporal: TemporalServer, tmp_path: Path
) -> None:
    async with PostgresServer(fsync=False) as postgres, StandIn() as gemini:
        artifacts = tmp_path / "artifacts"
        store = await SessionStore.open(postgres.url, f"file://{artifacts}", migrate=True)
        await store.close()
        settings = Settings(
            _env_file=None,
            database_url=postgres.url,
            artifacts_url=f"file://{artifacts}",
            temporal_address=temporal.address,
            task_queue=tmp_path.name,
            agents=(AGENTS,),
            model_base_url=gemini.url,
            graceful_shutdown=60,
        )
        async with worker_with(settings, tmp_path) as (process, port):
            await told(port, {})
            await postgres.kill()
            reasons = await told(port, {"database": ...})
            assert reasons["database"]
            assert await asyncio.to_thread(get, port, "/livez") == (200, {"alive": True})
            await postgres.start()
            await told(port, {})
            if artifacts.exists():
                artifacts.rmdir()
            artifacts.write_text("in the way")
            assert "no folder" in (await told(port, {"artifacts": ...}))["artifacts"]
            artifacts.unlink()
            await told(port, {})
            check = [sys.executable, "-m", "perdure", "worker", "--check"]
            environment = {"PERDURE_HEALTH_ADDRESS": f"127.0.0.1:{port}", "PATH": "/usr/bin:/bin"}
            checked = Process("check", check, log=tmp_path / "check.log", env=environment, cwd=ROOT)
            checked.start()
            assert await checked.wait(60) == 0, checked.tail()
            await process.stop(grace=60)
            checked.start()
            assert await checked.wait(60) == 1
            assert "no worker answers" in checked.tail()


async def test_a_worker_whose_bucket_or_temporal_is_away_is_alive_and_not_ready(tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'perdure.db'}"
    await (await SessionStore.open(database, "memory://health", migrate=True)).close()
    with s3_server() as variables:
        port = urlsplit(variables["AWS_ENDPOINT_URL"]).port
        assert port is not None
        async with TemporalServer(tmp_path / "temporal") as temporal, Proxy(port) as s3, StandIn() as gemini:
            settings = Settings(
                _env_file=None,
                database_url=database,
                artifacts_url=f"s3://{BUCKET}/health",
                temporal_address=temporal.address,
                task_queue=tmp_path.name,
                agents=(AGENTS,),
                model_base_url=gemini.url,
            )
            variables["AWS_ENDPOINT_URL"] = s3.url(variables["AWS_ENDPOINT_URL"])
            async with worker_with(settings, tmp_path, variables) as (process, probe):
                await told(probe, {})
                s3.down()
                assert (await told(probe, {"artifacts": ...}))["artifacts"]
                s3.up()
                await told(probe, {})
                s3.hold()
                assert "no answer in" in (await told(probe, {"artifacts": ...}))["artifacts"]
                assert await asyncio.to_thread(get, probe, "/livez") == (200, {"alive": True})
                s3.let_pass()
                await told(probe, {})
                await temporal.kill()
                assert (await told(probe, {"temporal": ...}))["temporal"]
                s3.down()
                await told(probe, {"artifacts": ..., "temporal": ...})
                assert await asyncio.to_thread(get, probe, "/livez") == (200, {"alive": True})
                s3.up()
                await temporal.start()
                await told(probe, {})
                assert process.running


async def test_a_worker_that_stops_is_not_ready_any_more(temporal: TemporalServer, tmp_path: Path) -> None:
    port = free_port()
    async with StandIn() as gemini:
        stage = await open_stage(temporal.address, f"sqlite:///{tmp_path / 'perdure.db'}", gemini, tmp_path)
        settings = {**ENOUGH, "PERDURE_HEALTH_ADDRESS": f"127.0.0.1:{port}"}
        async with Deployed(stage, settings=settings) as scene:
            await told(port, {})
            gemini.hang(contains=scene.mark)
            turn = scene.say("work", "m1")
            await scene.model_is_asked(1)
            scene.signal(signal.SIGTERM)
            await scene.hears_of_it()
            assert "stopping" in (await told(port, {"temporal": ...}))["temporal"]
            gemini.release()
            assert await scene.forked.wait() == 0
            turn.cancel()
        await stage.store.close()


@pytest.mark.parametrize("address", ["8081", "nowhere", "127.0.0.1:", "127.0.0.1:99999", ":8081"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InvalidOption, match="host:port"):
        address_of(address)


async def test_an_address_that_is_taken_is_refused() -> None:
    async with listening(Starlette(), "127.0.0.1", 0) as port:
        with pytest.raises(InvalidOption, match="choose another address"):
            async with listening(Starlette(), "127.0.0.1", port):
                raise AssertionError("two listen at one port")
