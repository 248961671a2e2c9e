"""What is handed to a Runner and cannot be sent is refused, typed, before anything is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from unittest.mock import Mock

import pytest
import pytest_asyncio

from gateway.runner import Runner
from perdure.errors import InvalidContent
from perdure.types import SessionKey
from storage.sessions import SessionStore

KEY = SessionKey(app="clerk", user_id="ada", session_id="main")
ENDLESS: dict[str, Any] = {}
ENDLESS["it"] = ENDLESS
DEEP: list[Any] = []
for _ in range(20_000):
    DEEP = [DEEP]


@pytest_asyncio.fixture
async def runner() -> AsyncIterator[Runner]:
    store = await SessionStore.open("sqlite://", "memory://runner-values")
    yield Runner(Mock(side_effect=AssertionError("it was sent")), store)
    await store.close()


@pytest.mark.parametrize(
    "value",
    [datetime(2030, 1, 31, tzinfo=UTC), b"pdf", {1, 2}, ENDLESS, DEEP, 10**4_400],
    ids=["date", "bytes", "set", "endless", "deep", "many digits"],
)
async def test_s07_what_a_call_waits_for_is_json(runner: Runner, value: Any) -> None:
    for send in (
        lambda: runner.tool_result(KEY, "m1:t1.0", value),
        lambda: runner.approve(KEY, "m1:t1.0", arguments={"to": value}),
        lambda: runner.notify(KEY, "paid", value),
    ):
        with pytest.raises(InvalidContent):
            await send()


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
@pytest.mark.parametrize(
    "look",
    [
        lambda runner, name: runner.waiting_page({name}),
        lambda runner, name: runner.waiting_page({"clerk"}, {name}),
        lambda runner, name: runner.schedules(SessionKey(app="clerk", user_id=name, session_id="main")),
    ],
    ids=["app", "user", "schedules"],
)
async def test_s07_nobody_is_looked_for_whose_name_no_query_holds(
    runner: Runner, look: Callable[[Runner, str], Any], name: str
) -> None:
    with pytest.raises(InvalidContent):
        await look(runner, name)


@pytest.mark.parametrize("wrong", [{"cron": "\ud800"}, {"timezone": "\ud800"}])
async def test_s07_a_time_that_is_no_text_is_not_scheduled(runner: Runner, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidContent):
        await runner.schedule(KEY, **{"cron": "@daily", "text": "hi", **wrong})
    assert not (await runner.store.list_sessions("clerk", "ada")).sessions
