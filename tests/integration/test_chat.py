"""A conversation in the terminal, on a running Perdure: what it shows is what the database has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import RPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode

from cli import conversation
from cli.conversation import Chat
from gateway.runner import Answer
from perdure.errors import InvocationNotFound
from perdure.types import SessionKey
from tests.integration.harness import World

ADD_ONE = "Increment 'visits' counter by 1 and show its value"


@pytest_asyncio.fixture
async def key(sqlite_world: World) -> AsyncIterator[SessionKey]:
    key = sqlite_world.key()
    yield key
    sqlite_world.gemini.clear()


@pytest.fixture
def chat(sqlite_world: World, key: SessionKey) -> Chat:
    return Chat(sqlite_world.runner, key)


async def test_it_shows_calls_results_and_the_answer(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    await chat.say(ADD_ONE)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "  increment_counter(counter_name=visits, amount=1)"
    assert lines[1].startswith(
        '  increment_counter → {"counter_name": "visits", "old_value": 0, "new_value": 1'
    )
    assert lines[2] == "I've incremented the 'visits' counter by 1. The new value is 1."


async def test_it_goes_on_where_the_session_is(
    sqlite_world: World, key: SessionKey, capsys: pytest.CaptureFixture[str]
) -> None:
    await Chat(sqlite_world.runner, key).greet()
    await Chat(sqlite_world.runner, key).say(ADD_ONE)
    await Chat(sqlite_world.runner, key).greet()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{key}: a new session. /help lists the commands."
    assert lines[-1] == f"{key}: 4 events so far. /help lists the commands."


async def test_rewind_undoes_the_last_turn_and_redo_brings_it_back(
    chat: Chat, capsys: pytest.CaptureFixture[str]
) -> None:
    await chat.say(ADD_ONE)
    await chat.say(ADD_ONE)
    capsys.readouterr()
    await chat.command("/rewind")
    told, state = capsys.readouterr().out.splitlines()
    assert told.startswith("  as it was before ")
    assert state == '  counters = {"visits": 1}'
    await chat.command("/redo")
    assert capsys.readouterr().out.splitlines()[1:] == ['  counters = {"visits": 2}']


async def test_there_may_be_nothing_to_rewind_or_redo(
    chat: Chat, sqlite_world: World, key: SessionKey
) -> None:
    await sqlite_world.store.create(key)
    with pytest.raises(InvocationNotFound, match="no turn to undo"):
        await chat.command("/rewind")
    with pytest.raises(InvocationNotFound, match="nothing was rewound"):
        await chat.command("/redo")


async def test_it_shows_state_artifacts_and_history(chat: Chat, capsys: pytest.CaptureFixture[str]) -> None:
    await chat.say('Save current counter values to "report.txt"')
    capsys.readouterr()
    await chat.command("/state")
    await chat.command("/artifacts")
    await chat.command("/history")
    await chat.command("/help")
    said = capsys.readouterr().out
    assert said.startswith("  no state\n  report.txt  version 1  text/plain  ")
    assert "saved report.txt, version 1" in said
    assert "/rewind [INVOCATION]" in said


async def test_cancelling_ends_the_turn_in_the_log(
    chat: Chat, sqlite_world: World, key: SessionKey, capsys: pytest.CaptureFixture[str]
) -> None:
    sqlite_world.gemini.slow(60)
    turn = asyncio.create_task(chat.say(ADD_ONE))
    await sqlite_world.gemini.wait_in_flight()
    turn.cancel()
    await turn
    assert capsys.readouterr().out.endswith("(cancelled)\n")
    sqlite_world.gemini.clear()
    await chat.say(ADD_ONE)
    assert await sqlite_world.kinds(key) == ["user", "end", "user", "model", "tool", "model"]


@pytest.mark.parametrize(
    "away", [RPCError("away", RPCStatusCode.UNAVAILABLE, b""), RPCTimeoutOrCancelledError("late")]
)
async def test_a_message_is_sent_again_under_its_id_until_temporal_takes_it(
    chat: Chat,
    sqlite_world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    away: Exception,
) -> None:
    ask, sent = sqlite_world.runner.ask, []

    async def twice_away(*args: Any, message_id: str, **more: Any) -> Answer:
        sent.append(message_id)
        if len(sent) < 3:
            raise away
        return await ask(*args, message_id=message_id, **more)

    monkeypatch.setattr(sqlite_world.runner, "ask", twice_away)
    monkeypatch.setattr(conversation, "_AGAIN_AFTER", 0)
    await chat.say(ADD_ONE)
    assert len(sent) == 3
    assert len(set(sent)) == 1
    said = capsys.readouterr().out
    assert said.count("Temporal does not answer") == 1
    assert said.endswith("The new value is 1.\n")
