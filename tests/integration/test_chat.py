"""A conversation in the terminal, on a running Perdure: what it shows is what the database has."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import RPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode

from cli import conversation, main
from cli.conversation import Chat
from cli.keyboard import Keyboard
from embedded import devfile
from gateway.runner import Answer
from perdure.errors import InvocationNotFound
from perdure.testing import call, say
from perdure.types import JsonObject, SessionKey
from tests.integration.agents import gate
from tests.integration.harness import PATIENCE, World, until
from tests.integration.test_cli_waiting import Here, here

__all__ = ["here"]

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
    await chat.command("/nonsense")
    assert capsys.readouterr().out.startswith("no command /nonsense; these are:\n")


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


@pytest.fixture
def talking(sqlite_world: World) -> Chat:
    """A chat with an agent whose tool can be held."""
    gate.reset()
    return Chat(sqlite_world.runner, sqlite_world.key("tester"))


async def held(world: World, chat: Chat, *then: JsonObject) -> asyncio.Task[None]:
    """A turn that runs."""
    world.gemini.script(call("wait_at_gate", label="first"), *then)
    turn = asyncio.create_task(chat.say("first"))
    await gate.held()
    return turn


async def heard(world: World, chat: Chat, count: int = 1) -> None:
    """So many messages wait in the session."""

    async def arrived() -> bool:
        return (await world.runner.status(chat.key)).queued == count

    await until(arrived)


async def told(capsys: pytest.CaptureFixture[str], line: str) -> str:
    """What is printed until a line is."""
    said = ""

    async def there() -> bool:
        nonlocal said
        said += capsys.readouterr().out
        return line in said.splitlines()

    await until(there)
    return said


def answers(said: str) -> list[str]:
    return [line for line in said.splitlines() if not line.startswith("  wait_at_gate")]


async def test_what_is_typed_while_a_turn_runs_is_said_behind_it(
    talking: Chat, sqlite_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = await held(sqlite_world, talking, say("one"), say("two"))
    talking.meanwhile("second")
    await heard(sqlite_world, talking)
    talking.meanwhile("/state")
    await told(capsys, "  no state")
    talking.meanwhile("/redo")
    await told(capsys, "/redo is for when the turn has ended; /cancel ends it")
    gate.open.set()
    await turn
    assert answers(capsys.readouterr().out)[-3:] == ["one", "> second", "two"]


async def test_what_joins_and_what_interrupts(
    talking: Chat, sqlite_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = await held(sqlite_world, talking, say("both"))
    talking.meanwhile("/join And this.")
    await heard(sqlite_world, talking)
    gate.open.set()
    await turn
    assert answers(capsys.readouterr().out)[-2:] == ["  > And this.", "both"]
    gate.reset()
    turn = await held(sqlite_world, talking, say("instead"))
    talking.meanwhile("/interrupt No.")
    await turn
    assert answers(capsys.readouterr().out)[-2:] == ["> No.", "instead"]
    sqlite_world.gemini.script(say("plain"))
    await talking.command("/join Where no turn runs.")
    assert capsys.readouterr().out == "plain\n"


async def test_a_turn_is_cancelled_by_command_and_the_next_is_said(
    talking: Chat, sqlite_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = await held(sqlite_world, talking, say("two"))
    talking.meanwhile("second")
    await heard(sqlite_world, talking)
    talking.meanwhile("/cancel")
    await turn
    assert answers(capsys.readouterr().out) == ["  interrupted: cancelled", "> second", "two"]


async def test_ctrl_c_calls_off_what_waits_too(
    talking: Chat, sqlite_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = await held(sqlite_world, talking)
    talking.meanwhile("second")
    await heard(sqlite_world, talking)
    turn.cancel()
    await turn
    assert capsys.readouterr().out.endswith("(cancelled)\n")
    sqlite_world.gemini.script(say("third answer"))
    await talking.say("third")
    events = (await sqlite_world.session(talking.key)).events
    assert [event.text for event in events if event.author == "user" and event.content] == ["first", "third"]


async def test_one_that_is_refused_is_told_and_the_others_go_on(
    talking: Chat, sqlite_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    turn = await held(sqlite_world, talking, say("one"))
    talking.meanwhile("/join")
    said = await told(capsys, "InvalidMessage: the message is empty")
    gate.open.set()
    await turn
    shown = answers(said + capsys.readouterr().out)
    assert shown == ["InvalidMessage: the message is empty", "one"]


async def test_a_line_is_heard_when_it_is_whole() -> None:
    terminal, typed = os.pipe()
    keyboard, lines, two = Keyboard(terminal), list[str](), asyncio.Event()

    def hear(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            two.set()

    try:
        with keyboard.listening(hear):
            for some in (b"gr\xc3", b"\xbc\xc3\x9f", b"e\n\n  /join this \nbeg"):
                os.write(typed, some)
            await asyncio.wait_for(two.wait(), PATIENCE)
        assert lines == ["gr\u00fc\u00dfe", "/join this"]
    finally:
        os.close(typed)
        os.close(terminal)


async def test_the_keyboard_is_listened_to_while_a_turn_runs(
    sqlite_world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    gate.reset()
    terminal, typed = os.pipe()
    try:
        talking = Chat(sqlite_world.runner, sqlite_world.key("tester"), keyboard=Keyboard(terminal))
        turn = await held(sqlite_world, talking, say("both"))
        os.write(typed, b"/join And this.\n")
        await heard(sqlite_world, talking)
        gate.open.set()
        await turn
    finally:
        os.close(typed)
        os.close(terminal)
    assert answers(capsys.readouterr().out)[-2:] == ["  > And this.", "both"]


async def piped(here: Here, monkeypatch: pytest.MonkeyPatch, key: SessionKey, said: str) -> int:
    """Run ``perdure chat`` with lines that come through a pipe; its exit code."""
    session = ("--user", key.user_id, "--session", key.session_id)
    monkeypatch.chdir(here.data)
    monkeypatch.setattr(sys, "argv", ["perdure", "chat", key.app, *session, "--data", str(here.data)])
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    return await asyncio.to_thread(main.run)


async def test_a_pipe_tells_by_its_exit_code_whether_something_failed(
    here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = here.world.key("clerk")
    assert await piped(here, monkeypatch, key, "Hi.\n/state\n") == 0
    lines = capsys.readouterr().out.splitlines()
    [answer] = [line for line in lines if line.startswith("I am a stand-in")]
    assert lines.index("> Hi.") < lines.index(answer) < lines.index("> /state")
    assert await piped(here, monkeypatch, key, "/redo\n/state\n") == 1
    assert "InvocationNotFound: nothing was rewound" in capsys.readouterr().out
    here.world.gemini.fail(400, "no such thing", contains="Fail.", times=10)
    assert await piped(here, monkeypatch, key, "Fail.\n/state\n") == 1
    assert "no such thing" in capsys.readouterr().out


async def test_an_agent_that_is_not_served_is_told_before_anything_is_said(
    here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = devfile.read(here.data)
    assert file is not None
    devfile.write(here.data, file.model_copy(update={"serves": ("clerk", "counter")}))
    assert await piped(here, monkeypatch, here.world.key("clerk"), "") == 0
    assert "serves no agent" not in capsys.readouterr().out
    assert await piped(here, monkeypatch, here.world.key("typo"), "Hi.\n") == 1
    _, told, *said = capsys.readouterr().out.splitlines()
    assert told == (
        "perdure dev serves no agent named 'typo', so what you say will be refused; there are: clerk, counter"
    )
    assert any(line.startswith("UnknownAgent: no agent named 'typo' is served here") for line in said)
