"""Messages with the client while a turn runs: they join it, or interrupt it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure.client import Answer
from perdure.errors import InvalidMessage, InvalidRequest
from perdure.testing import call, say
from perdure.types import Event, SessionKey
from tests.gateway.harness import Gateway, path_of
from tests.integration.agents import gate
from tests.integration.harness import until


@pytest.fixture(autouse=True)
def _closed_gate() -> None:
    gate.reset()


async def held(client: Any, gateway: Gateway) -> tuple[SessionKey, Any, asyncio.Task[Any]]:
    """A turn m1 that is held in its tool."""
    key = gateway.key("tester")
    session = client.session(key.app, key.user_id, key.session_id)
    gateway.world.gemini.script(call("wait_at_gate", label="m1"), say("both done"))
    turn = asyncio.create_task(session.ask("go", message_id="m1"))
    await gate.held()
    return key, session, turn


async def queued(gateway: Gateway, key: SessionKey) -> None:
    async def arrived() -> bool:
        return (await gateway.world.runner.status(key)).queued == 1

    await until(arrived)


async def test_a_message_joins_a_turn_and_hears_what_comes_of_it(
    client: Any, sqlite_gateway: Gateway
) -> None:
    key, session, turn = await held(client, sqlite_gateway)

    async def listen() -> tuple[list[str], Answer]:
        stream = session.stream("and this", message_id="m2", during="join")
        return [item.id async for item in stream if isinstance(item, Event)], await stream.finish()

    heard = asyncio.create_task(listen())
    await queued(sqlite_gateway, key)
    gate.open.set()
    first = await turn
    assert await heard == (["m2:user", "m1:m2"], first)
    assert await session.ask("and this", message_id="m2", during="join") == first
    assert await listen() == (["m2:user", "m1:m2"], first)


async def test_a_message_interrupts_a_turn(client: Any, sqlite_gateway: Gateway) -> None:
    _, session, turn = await held(client, sqlite_gateway)
    sent = await session.send("instead", message_id="m2", during="interrupt")
    assert (await turn).status == "cancelled"
    assert (await session.ask("instead", message_id=sent)).text == "both done"


async def test_another_way_is_refused(client: Any, sqlite_gateway: Gateway) -> None:
    key = sqlite_gateway.key("tester")
    session = client.session(key.app, key.user_id, key.session_id)
    with pytest.raises((InvalidMessage, InvalidRequest), match="during"):
        await session.ask("hello", during="shout")
    answer = await sqlite_gateway.http.post(path_of(key, "/messages"), json={"text": "x", "during": 1})
    assert answer.status_code == 422


async def test_messages_by_the_clock(client: Any, sqlite_gateway: Gateway) -> None:
    key = sqlite_gateway.key("tester")
    session = client.session(key.app, key.user_id, key.session_id)
    name = await session.schedule("0 9 * * 1-5", "Report.", schedule_id="daily 1", timezone="Europe/Berlin")
    assert name == "daily 1"

    async def listed() -> Any:
        return await session.schedules()

    [found] = await until(listed)
    assert (found.schedule_id, found.cron, found.timezone) == ("daily 1", "0 9 * * 1-5", "Europe/Berlin")
    assert (found.text, found.during, found.paused, found.sent) == ("Report.", "queue", False, 0)
    assert found.next_times[0].tzinfo is not None
    assert (await session.status()).schedules == [found]
    for _ in range(2):
        await session.unschedule("daily 1")
    assert not await sqlite_gateway.world.runner.unschedule(key, "daily 1")
    with pytest.raises(InvalidMessage):
        await session.schedule("tomorrow", "Report.")
