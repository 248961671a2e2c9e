"""Names as long as they may be: Temporal shows them in titles, which have a limit of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from embedded.temporal import TemporalServer
from examples import counter
from perdure.errors import InvalidMessage, InvocationNotFound
from perdure.settings import Settings
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.integration.harness import World, open_world

EARTH = "🌍"
"""Four bytes. As many times as an id may have characters, that is more than a title may have."""


@pytest.fixture(params=["plain", "encrypted"])
async def either(
    request: pytest.FixtureRequest, temporal: TemporalServer, sqlite_store: SessionStore
) -> AsyncIterator[World]:
    """What is encrypted is longer."""
    keys = "k1:" + "A" * 43 + "=" if request.param == "encrypted" else None
    settings = Settings(_env_file=None, codec_keys=SecretStr(keys) if keys else None)
    async with open_world(temporal.address, sqlite_store, [counter.agent], settings=settings) as world:
        yield world


async def test_a_session_with_long_names_is_started_and_steered(either: World) -> None:
    short = either.key()
    key = SessionKey(
        app="counter",
        user_id=f"{short.user_id}-".ljust(255, "u"),
        session_id=f"{short.session_id}-".ljust(255, "s"),
    )
    first, second = f"a{EARTH * 60}", f"b{EARTH * 60}"
    assert (await either.runner.ask(key, "Add one.", message_id=first)).status == "answered"
    await either.runner.message(key, "Add one.", message_id=second)
    assert (await either.runner.ask(key, "Add one.", message_id=second)).status == "answered"
    assert await either.runner.compact(key, request_id=f"c{EARTH * 60}") is not None
    name = f"{EARTH * 400}.txt"
    assert await either.runner.save_artifact(key, name, b"x", "text/plain", request_id=f"d{EARTH * 60}") == 1
    assert (await either.runner.rewind(key, second, request_id=f"e{EARTH * 59}")).seq
    assert (await either.runner.end(key, request_id=f"f{EARTH * 60}")).ended_at is not None


async def test_an_id_that_is_too_long_is_refused(either: World) -> None:
    key, long = either.key(), EARTH * 128
    assert (await either.runner.ask(key, "Add one.")).status == "answered"
    with pytest.raises(InvocationNotFound):
        await either.runner.rewind(key, long, request_id="r1")
    with pytest.raises(InvalidMessage):
        await either.runner.ask(key, "Add one.", message_id=f"{long}x")
    assert (await either.runner.ask(key, "Add one.", message_id=long)).status == "answered"
