"""examples/steering.py: what its docstring promises."""

from __future__ import annotations

import threading

import pytest

from embedded.temporal import TemporalServer
from examples import steering
from perdure import ToolContext
from perdure.testing import call, say
from storage.sessions import SessionStore
from tests.integration.harness import open_world, until


async def test_the_researcher_is_told_something_while_it_reads(
    temporal: TemporalServer, sqlite_store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steering, "SECONDS_A_PAGE", 1.0)
    async with open_world(temporal.address, sqlite_store, [steering.agent]) as world:
        key = world.key("researcher")
        read = call("read_page", number=1)
        world.gemini.script(*[read] * 200)
        await world.runner.message(key, "Read the pages 1 to 50", message_id="m1")
        await world.gemini.wait_for_requests(1)
        await world.runner.message(key, "Only those about ships", message_id="m2", during="join")

        async def joined() -> bool:
            return list((await world.runner.status(key)).joined) == ["m2"]

        await until(joined)
        world.gemini.clear()
        world.gemini.script(*[say("Ships.")] * 3)
        answer = await world.runner.ask(key, "Leave that: what have you found?", during="interrupt")
        assert answer.text == "Ships."
        events = (await world.session(key)).events
        assert [event.text for event in events if event.author == "user" and "call" not in event.meta] == [
            "Read the pages 1 to 50",
            "Only those about ships",
            "Leave that: what have you found?",
        ]
        await world.runner.schedule(key, "0 8 * * 1-5", "What is new?", schedule_id="morning")
        assert await world.runner.unschedule(key, "morning")


def test_the_count_stops_when_it_is_told_to() -> None:
    stop = threading.Event()
    stop.set()
    assert steering.count_words(1_000_000, ToolContext(stop=stop)) == 0
