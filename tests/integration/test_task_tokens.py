"""A long-running tool is completed by one text: by every face, and as docs/waiting.md says."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client

from cli import main
from embedded import devfile
from embedded.temporal import TemporalServer
from perdure import Agent, AsyncClient, ToolContext, tool
from perdure import Client as BlockingClient
from perdure.errors import AlreadySettled, CallNotFound, Forbidden, InvalidTaskToken
from perdure.tasktoken import read_task_token, task_token
from perdure.testing import call, say
from perdure.types import JsonObject, SessionKey
from storage.sessions import SessionStore
from tests.gateway.harness import Gateway, open_gateway
from tests.integration.harness import World, open_world

DOCS = Path(__file__).parents[2] / "docs"
handed: list[str] = []
"""What the tools of this module gave to the farm."""


class Farm:
    """The service of the docs, which is given what it has to answer to."""

    def start(self, scene: str, *, answer_to: str) -> SimpleNamespace:
        handed.append(answer_to)
        return SimpleNamespace(id=f"job-{scene}")


def of_the_page(what: str) -> JsonObject:
    """What the block of docs/waiting.md that has this in it defines."""
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "waiting.md").read_text("utf-8"), re.DOTALL)
    [found] = [block for block in blocks if what in block]
    defined: JsonObject = {"tool": tool, "ToolContext": ToolContext, "Client": Client, "farm": Farm()}
    exec(found, defined)
    return defined


BY_TOKEN = of_the_page("answer_to=context.task_token")
BY_UPDATE = of_the_page("async def complete(client: Client")
AGENTS = [
    Agent(name="painter", tools=[BY_TOKEN["render"]]),
    Agent(name="signwriter", tools=[BY_UPDATE["render"]]),
]


@pytest_asyncio.fixture
async def gateway(temporal: TemporalServer, tmp_path: Path) -> AsyncIterator[Gateway]:
    urls = {
        "database_url": f"sqlite:///{tmp_path / 'perdure.db'}",
        "artifacts_url": f"file://{tmp_path / 'artifacts'}",
    }
    store = await SessionStore.open(urls["database_url"], urls["artifacts_url"], migrate=True)
    async with (
        open_world(temporal.address, store, AGENTS) as world,
        open_gateway(world, agents=AGENTS) as opened,
    ):
        settings = {**urls, "temporal_address": temporal.address, "task_queue": world.settings.task_queue}
        devfile.write(tmp_path, devfile.DevFile(settings=settings))
        yield opened
    await store.close()


async def parked(world: World, app: str = "painter") -> tuple[SessionKey, str]:
    """A session that waits, and what its tool handed on."""
    key = world.key(app)
    world.gemini.clear()
    world.gemini.script(call("render", scene="sea"), say("done"))
    assert (await world.runner.ask(key, "go", message_id="m1")).status == "waiting"
    return key, handed[-1]


async def told(world: World, key: SessionKey) -> str:
    """What the model was told of the call."""
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    response = await world.store.event(key, "m1:t1.0")
    return str(response.content if response else "")


async def test_the_runner_takes_a_token(gateway: Gateway) -> None:
    world = gateway.world
    key, token = await parked(world)
    assert read_task_token(token) == (key, "m1:t1.0")
    await world.runner.task_progress(token, "half", percent=50)
    [waits] = await world.runner.waiting(key)
    assert (waits.text, waits.percent) == ("half", 50)
    assert (await world.runner.complete_task(token, {"url": "x"}, by="farm")).decision == "result"
    assert "'url': 'x'" in await told(world, key)
    with pytest.raises(AlreadySettled):
        await world.runner.complete_task(token, error="too late")
    with pytest.raises(CallNotFound):
        await world.runner.complete_task(task_token(key, "m1:t7.0"), 1)
    with pytest.raises(InvalidTaskToken):
        await world.runner.complete_task(token[:-1], 1)


async def test_s63_a_token_outlives_the_run_that_it_was_made_in(gateway: Gateway) -> None:
    key, token = await parked(gateway.world)
    await gateway.world.handle(key).terminate()
    assert (await gateway.world.runner.ask(key, "go", message_id="m1")).status == "waiting"
    await gateway.world.runner.complete_task(token, {"url": "x"})
    assert "'url': 'x'" in await told(gateway.world, key)


async def test_a_rewind_voids_it(gateway: Gateway) -> None:
    key, token = await parked(gateway.world)
    await gateway.world.runner.rewind(key, "m1")
    with pytest.raises(AlreadySettled):
        await gateway.world.runner.complete_task(token, {"url": "x"})


async def test_the_gateway_takes_a_token_from_who_reaches_the_session(gateway: Gateway) -> None:
    key, token = await parked(gateway.world)
    done: JsonObject = {"taskToken": token, "result": {"url": "x"}}
    half: JsonObject = {"taskToken": token, "text": "half", "percent": 50}
    async with gateway.client_of("somebody-else", app="painter") as stranger:
        for route, body in (("/tasks/complete", done), ("/tasks/progress", half)):
            refused = await stranger.post(route, json=body)
            assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    async with gateway.client(None) as nobody:
        assert (await nobody.post("/tasks/complete", json=done)).status_code == 401
    async with gateway.client_of(key.user_id, app="painter") as own:
        assert (await own.post("/tasks/progress", json=half)).json()["decision"] == "progress"
        changed = await own.post("/tasks/complete", json=done | {"taskToken": token[:-2] + "AA"})
        assert (changed.status_code, changed.json()["code"]) == (400, "invalid-task-token")
        both = await own.post("/tasks/complete", json=done | {"error": "and not"})
        assert both.status_code == 400
        once = [
            await own.post("/tasks/complete", json=done, headers={"Idempotency-Key": "k1"}) for _ in range(2)
        ]
        assert [each.json() for each in once] == [{"callId": "m1:t1.0", "decision": "result"}] * 2
        late = await own.post("/tasks/complete", json=done)
        assert (late.status_code, late.json()["code"]) == (409, "already-settled")
    assert "'url': 'x'" in await told(gateway.world, key)


@pytest.mark.parametrize("blocking", [False, True])
async def test_the_client_takes_a_token(gateway: Gateway, blocking: bool) -> None:
    key, token = await parked(gateway.world)
    mine = gateway.tokens.give(apps={"painter"}, users={key.user_id})
    if blocking:

        def send() -> str:
            with BlockingClient(gateway.url, mine) as client:
                client.task_progress(token, percent=50)
                return client.complete_task(token, error="no light").decision

        assert await asyncio.to_thread(send) == "failed"
    else:
        async with AsyncClient(gateway.url, gateway.tokens.give(apps={"other"})) as stranger:
            with pytest.raises(Forbidden):
                await stranger.complete_task(token, 1)
        async with AsyncClient(gateway.url, mine) as client:
            with pytest.raises(InvalidTaskToken):
                await client.complete_task(token[1:], 1)
            await client.task_progress(token, "half")
            assert (await client.complete_task(token, error="no light")).decision == "failed"
    assert "no light" in await told(gateway.world, key)


async def test_the_command_line_takes_a_token(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    key, token = await parked(gateway.world)

    async def perdure(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["perdure", "sessions", *arguments, "--data", str(tmp_path)])
        code = await asyncio.to_thread(main.run)
        said = capsys.readouterr()
        return code, said.out + said.err

    assert await perdure("progress", token, "half", "--percent", "50") == (
        0,
        f"{key} is told how far m1:t1.0 has come.\n",
    )
    code, said = await perdure("complete", token[:-3], "1")
    assert code
    assert "InvalidTaskToken" in said
    assert await perdure("complete", token, '{"url": "x"}') == (0, f"{key} goes on: m1:t1.0 has 'result'.\n")
    assert "'url': 'x'" in await told(gateway.world, key)


async def test_who_has_only_temporals_client_completes_as_the_page_says(gateway: Gateway) -> None:
    key, answer_to = await parked(gateway.world, "signwriter")
    complete: Any = BY_UPDATE["complete"]
    plain = await Client.connect(gateway.world.client.service_client.config.target_host)
    await complete(plain, answer_to, {"url": "x"})
    assert "'url': 'x'" in await told(gateway.world, key)
