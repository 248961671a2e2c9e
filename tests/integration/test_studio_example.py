"""examples/studio.py: what its docstring promises."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from embedded.temporal import TemporalServer
from examples import studio
from perdure import Client
from perdure.testing import call, say
from storage.sessions import SessionStore
from tests.gateway.harness import open_gateway
from tests.integration.harness import open_world


async def test_the_farm_answers_by_a_task_token(
    temporal: TemporalServer, sqlite_store: SessionStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(studio, "JOBS", tmp_path / "jobs")
    async with (
        open_world(temporal.address, sqlite_store, [studio.agent]) as world,
        open_gateway(world, agents=[studio.agent]) as gateway,
    ):

        def farm() -> list[str]:
            with Client(gateway.url, gateway.tokens.give(apps={"studio"})) as client:
                return studio.work(client)

        keys = [world.key("studio") for _ in range(2)]
        for key in keys:
            world.gemini.script(call("render", scene="the sea"))
            assert (await world.runner.ask(key, "Render 'the sea'", message_id="m1")).status == "waiting"
        await world.runner.end(keys[0])
        world.gemini.script(say("Here it is."))
        assert await asyncio.to_thread(farm) == ["the sea"], "nobody waits for the other any more"
        assert (await world.runner.ask(keys[1], "Render 'the sea'", message_id="m1")).text == "Here it is."
        response = await world.store.event(keys[1], "m1:t1.0")
        assert response is not None
        assert "'of': 'the sea'" in str(response.content)
        assert await asyncio.to_thread(farm) == []
