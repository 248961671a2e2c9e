"""``perdure serve`` as a process, with keys that ``perdure keys`` made; and what it refuses to be."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path

import httpx2
import pytest

from embedded.postgres import PostgresServer
from embedded.stack import environment_of
from embedded.temporal import TemporalServer
from examples import counter
from gateway.serving import beside_worker
from perdure.registry import Registry
from perdure.settings import Settings
from storage.sessions import SessionStore
from tests.gateway.test_sessions_routes import is_problem
from tests.integration.harness import open_world

ROOT = Path(__file__).parents[2]


async def perdure(*arguments: str, settings: Settings) -> asyncio.subprocess.Process:
    """The command, in a process of its own."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "perdure", *arguments),
        cwd=ROOT,
        env={**os.environ, **environment_of(settings), "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


async def said(*arguments: str, settings: Settings, code: int = 0) -> str:
    """What the command says, to its end."""
    process = await perdure(*arguments, settings=settings)
    out, _ = await process.communicate()
    assert process.returncode == code, out.decode()
    return out.decode()


async def test_it_serves_who_has_a_key_until_it_is_revoked(
    temporal: TemporalServer, postgres: PostgresServer, tmp_path: Path
) -> None:
    settings = Settings(
        _env_file=None,
        database_url=await postgres.create_database("served"),
        artifacts_url=f"file://{tmp_path}/artifacts",
        temporal_address=temporal.address,
        task_queue="served",
        agents=("examples.counter",),
        gateway_address="127.0.0.1:0",
    )
    store = await SessionStore.open(settings.database_url, settings.artifacts_url, migrate=True)
    made = json.loads(
        await said("keys", "create", "ann", "--app", "counter", "--user", "ann", "--json", settings=settings)
    )
    async with open_world(temporal.address, store, [counter.agent], queue="served"):
        process = await perdure("serve", settings=settings)
        assert process.stdout is not None
        url = await asyncio.wait_for(url_in(process.stdout), 120)
        headers = {"authorization": f"Bearer {made['token']}"}
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False) as ann:
            path = "/apps/counter/users/ann/sessions/served"
            answer = await ann.post(f"{path}/messages", json={"text": "Add one."})
            assert answer.json()["status"] == "answered", answer.text
            is_problem(await ann.get("/apps/counter/users/bob/sessions/s1/status"), 403, "forbidden")
            listed = await said("keys", "list", settings=settings)
            assert made["id"] in listed
            assert made["token"] not in listed
            await said("keys", "revoke", made["id"], settings=settings)
            is_problem(await ann.get(f"{path}/status"), 401, "unauthenticated")
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
        process._transport.close()  # type: ignore[attr-defined]  # else its pipe is complained of
    await store.close()


async def url_in(stream: asyncio.StreamReader) -> str:
    """The URL that the gateway prints once it listens."""
    while line := (await stream.readline()).decode():
        if found := re.search(r"gateway ready: (\S+)", line):
            return found[1]
    raise AssertionError("the gateway ended")


async def test_beside_a_worker_it_is_where_the_settings_say(
    temporal: TemporalServer, sqlite_store: SessionStore
) -> None:
    async with open_world(temporal.address, sqlite_store, [counter.agent]) as world:
        agents = Registry([counter.agent])
        update = {"gateway_address": "127.0.0.1:0", "gateway_auth": "none"}
        settings = world.settings.model_copy(update=update)
        async with beside_worker(world.settings, world.client, sqlite_store, agents):
            pass  # no address, no gateway
        async with beside_worker(settings, world.client, sqlite_store, agents) as url:
            assert url is not None
            async with httpx2.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
                assert (await http.get("/list-apps")).json() == ["counter"]
                evil = await http.get("/list-apps", headers={"host": "evil.example"})
                is_problem(evil, 403, "forbidden")


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"agents": ()}, "needs agents"),
        ({"database_url": "sqlite:///x.db"}, "with SQLite the gateway runs in the worker's process"),
    ],
)
async def test_what_could_not_work_is_refused(update: dict[str, object], words: str) -> None:
    given = {"database_url": "postgresql://x@127.0.0.1:9/x", "agents": ("examples.counter",), **update}
    settings = Settings(_env_file=None).model_copy(update=given)
    assert words in await said("serve", settings=settings, code=1)


async def test_a_key_that_is_not_there_is_not_revoked(tmp_path: Path) -> None:
    settings = Settings(_env_file=None).model_copy(update={"database_url": f"sqlite:///{tmp_path}/x.db"})
    store = await SessionStore.open(settings.database_url, "memory://x", migrate=True)
    await store.close()
    assert "no keys" in await said("keys", "list", settings=settings)
    assert "there is no key 'x'" in await said("keys", "revoke", "x", settings=settings, code=1)
