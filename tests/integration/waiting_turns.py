"""Turns whose calls wait, for tests: how one begins, and what came of it."""

from __future__ import annotations

from perdure.testing import call, say
from perdure.types import Event, JsonObject, SessionKey
from tests.integration.harness import World
from tests.integration.waiting_agents import ran

__all__ = ["TRANSFER", "made", "parked", "response", "response_event"]

TRANSFER = call("transfer", to="ann", amount=5)


async def parked(world: World, *calls: JsonObject, app: str = "clerk", message_id: str = "m1") -> SessionKey:
    """A session whose turn waits."""
    key = world.key(app)
    world.gemini.script(list(calls), say("done"))
    answer = await world.runner.ask(key, "go", message_id=message_id)
    assert answer.status == "waiting"
    assert len(answer.waiting) == len(calls)
    return key


def made(key: SessionKey) -> list[tuple[str, int]]:
    """The payments of a session."""
    return [(to, amount) for session, to, amount in ran if session == key.session_id]


async def response(world: World, key: SessionKey, call_id: str = "m1:t1.0") -> JsonObject:
    """What the model was told came of a call."""
    event = await response_event(world, key, call_id)
    assert event.content is not None
    said = event.content["parts"][0]["functionResponse"]["response"]
    assert isinstance(said, dict)
    return said


async def response_event(world: World, key: SessionKey, call_id: str) -> Event:
    event = await world.store.event(key, call_id)
    assert event is not None
    return event
