"""Calls that wait, through both faces of the client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from embedded.temporal import TemporalServer
from perdure.errors import AlreadySettled, CallNotFound
from perdure.testing import call, say
from storage.sessions import SessionStore
from tests.client.faces import Face
from tests.gateway.harness import Gateway, open_gateway_of
from tests.integration.waiting_agents import WAITING_AGENTS


@pytest_asyncio.fixture
async def opened(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[Gateway]:
    async with open_gateway_of(WAITING_AGENTS, temporal, sqlite_store) as gateway:
        yield gateway


async def test_what_waits_is_decided_and_answered(opened: Gateway, face: Face) -> None:
    key = opened.key("clerk")
    async with face.client(opened.url, opened.tokens.give()) as client:
        session = client.session(key.app, key.user_id, key.session_id)
        opened.world.gemini.script(
            [
                call("transfer", to="ann", amount=5),
                call("render", scene="sea"),
                call("transfer", to="bob", amount=1),
            ],
            call("wait_for_event", name="paid"),
            say("done"),
        )
        answer: Any = await session.ask("go", message_id="m1")
        assert answer.status == "waiting"
        assert sorted(each.call_id for each in answer.waiting) == ["m1:t1.0", "m1:t1.1", "m1:t1.2"]
        found = {each.call_id: each for each in await session.waiting()}
        assert found["m1:t1.0"].arguments == {"to": "ann", "amount": 5}
        assert found["m1:t1.1"].ticket["job"] == "job-sea"
        for _ in range(2):
            settled = await session.approve("m1:t1.0", by="boss", request_id="yes-1")
            assert settled.decision == "yes"
        assert (await session.decline("m1:t1.2", reason="no")).decision == "no"
        with pytest.raises(AlreadySettled):
            await session.approve("m1:t1.2")
        with pytest.raises(CallNotFound):
            await session.approve("m1:t7.0")
        await session.tool_progress("m1:t1.1", "half", percent=50)
        await session.tool_result("m1:t1.1", {"url": "x"})
        again = await session.ask("go", message_id="m1")
        assert [each.event for each in again.waiting] == ["paid"]
        assert await session.notify("paid", 5, notification_id="n1") == "n1"
        assert (await session.ask("go", message_id="m1")).text == "done"
