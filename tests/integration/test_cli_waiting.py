"""``perdure sessions waiting``, ``approve``, ``decline``, ``result``, ``notify``; and a chat that waits."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from cli import main
from cli.conversation import Chat
from embedded import devfile
from embedded.temporal import TemporalServer
from gateway import waiting_lists
from perdure.errors import CallNotFound
from perdure.testing import call, say
from perdure.types import JsonObject, SessionKey
from storage.sessions import SessionStore
from tests.integration.harness import PATIENCE, World, open_world, until
from tests.integration.waiting_agents import WAITING_AGENTS, ran

TRANSFER = call("transfer", to="ann", amount=5)
Command = Callable[..., Awaitable[tuple[int, str, str]]]


@dataclass(frozen=True, kw_only=True)
class Here:
    """A Perdure that runs, and a folder that says where."""

    world: World
    data: Path


@pytest_asyncio.fixture
async def here(
    temporal: TemporalServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Here]:
    # What the workflow says, and not what the log has where its worker stands still.
    monkeypatch.setattr(waiting_lists, "ASKED_FOR", timedelta(seconds=PATIENCE))
    urls = {
        "database_url": f"sqlite:///{tmp_path / 'perdure.db'}",
        "artifacts_url": f"file://{tmp_path / 'artifacts'}",
    }
    store = await SessionStore.open(urls["database_url"], urls["artifacts_url"], migrate=True)
    async with open_world(temporal.address, store, WAITING_AGENTS) as world:
        settings = {**urls, "temporal_address": temporal.address, "task_queue": world.settings.task_queue}
        devfile.write(tmp_path, devfile.DevFile(settings=settings))
        yield Here(world=world, data=tmp_path)
    await store.close()


@pytest.fixture
def perdure(here: Here, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run ``perdure sessions …`` as a terminal does; its exit code, its output, its complaints."""
    monkeypatch.chdir(here.data)

    async def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["perdure", "sessions", *arguments, "--data", str(here.data)])
        code = await asyncio.to_thread(main.run)
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


async def parked(world: World, *calls: JsonObject) -> SessionKey:
    key = world.key("clerk")
    world.gemini.clear()
    world.gemini.script(list(calls), say("done"))
    assert (await world.runner.ask(key, "go", message_id="m1")).status == "waiting"
    return key


async def listed(world: World, *keys: SessionKey) -> None:
    """Temporal has found out that these sessions, each of a user of its own, wait."""
    users = [key.user_id for key in keys]

    async def found() -> bool:
        waiting = [each.key for user in users async for each in world.runner.all_waiting(None, user)]
        return set(waiting) == set(keys)

    await until(found)


async def ended(world: World, key: SessionKey) -> str:
    return (await world.runner.ask(key, "go", message_id="m1")).text


async def test_what_waits_is_listed_across_sessions(here: Here, perdure: Command) -> None:
    pays = await parked(here.world, call("weekly", note="rent"))
    renders = await parked(here.world, call("render", scene="sea"), call("wait_for_event", name="paid 7"))
    await here.world.runner.tool_progress(renders, "m1:t1.0", "half", percent=50)
    await listed(here.world, pays, renders)
    code, out, _ = await perdure("waiting", "--app", "clerk", "--user", pays.user_id)
    lines = out.splitlines()
    assert (code, lines[0]) == (0, f"{pays}  m1:t1.0")
    assert lines[1].startswith("  waits for approval since 20")
    assert ", until 20" in lines[1]
    assert lines[2:] == [
        '  weekly {"note": "rent"}',
        f"  yes: perdure sessions approve {pays} m1:t1.0",
        f"  no:  perdure sessions decline {pays} m1:t1.0 --reason …",
    ]
    _, out, _ = await perdure("waiting", "--user", renders.user_id)
    assert "  50% half" in out
    assert '  ticket {"job": "job-sea", "answer_to": "m1:t1.0"}' in out
    assert f"  perdure sessions result {renders} m1:t1.0 …" in out
    assert f"  perdure sessions notify {renders} 'paid 7' …" in out
    _, out, _ = await perdure("waiting", "--user", pays.user_id, "--json")
    [told] = json.loads(out)["waiting"]
    assert (told["session"], told["call_id"], told["kind"]) == (str(pays), "m1:t1.0", "approval")
    assert told["arguments"] == {"note": "rent"}
    assert await perdure("waiting", "--user", "nobody") == (0, "nothing waits\n", "")


async def test_a_call_is_approved_with_other_arguments(here: Here, perdure: Command) -> None:
    key = await parked(here.world, TRANSFER)
    given = json.dumps({"to": "bob", "amount": 1})
    code, out, err = await perdure("approve", str(key), "m1:t1.0", "--arguments", given, "--by", "boss")
    assert (code, out) == (0, f"{key} goes on: m1:t1.0 has 'changed'.\n"), err
    assert await ended(here.world, key) == "done"
    assert [(to, amount) for session, to, amount in ran if session == key.session_id] == [("bob", 1)]
    code, _, err = await perdure("approve", str(key), "m1:t1.0")
    assert code != 0
    assert "AlreadySettled" in err


async def test_a_call_is_declined(here: Here, perdure: Command) -> None:
    key = await parked(here.world, TRANSFER)
    code, out, err = await perdure("decline", str(key), "m1:t1.0", "--reason", "too much")
    assert (code, out) == (0, f"{key} goes on: m1:t1.0 has 'no'.\n"), err
    assert await ended(here.world, key) == "done"
    assert not [to for session, to, _ in ran if session == key.session_id]
    assert "too much" in str(here.world.gemini.model_calls()[-1].contents)


async def test_a_result_and_an_error_are_given(here: Here, perdure: Command) -> None:
    key = await parked(here.world, call("render", scene="sea"), call("render", scene="sky"))
    code, out, err = await perdure("result", str(key), "m1:t1.0", '{"url": "x"}')
    assert (code, out) == (0, f"{key} goes on: m1:t1.0 has 'result'.\n"), err
    assert (await perdure("result", str(key), "m1:t1.1", "--error", "no light"))[0] == 0
    assert await ended(here.world, key) == "done"
    told = str(here.world.gemini.model_calls()[-1].contents)
    assert "no light" in told
    assert "url" in told


async def test_an_event_is_told_of(here: Here, perdure: Command) -> None:
    key = await parked(here.world, call("wait_for_event", name="paid"))
    code, out, err = await perdure("notify", str(key), "paid", '{"amount": 5}', "--id", "n1")
    assert (code, out) == (0, f"{key} is told of paid, as n1.\n"), err
    assert await ended(here.world, key) == "done"


@pytest.mark.parametrize(
    "arguments",
    [
        ("result", "m1:t1.0"),
        ("result", "m1:t1.0", "1", "--error", "both"),
        ("result", "m1:t1.0", "no json"),
        ("approve", "m1:t1.0", "--arguments", "[1]"),
        ("notify", "paid", "no json"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *rest = arguments
    monkeypatch.setattr(sys, "argv", ["perdure", "sessions", name, "clerk/ada/main", *rest])
    assert main.run()
    assert "InvalidOption" in capsys.readouterr().err


async def test_a_chat_says_what_its_turn_waits_for_and_takes_the_answer(
    here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    key = here.world.key("clerk")
    chat = Chat(here.world.runner, key)
    here.world.gemini.script([TRANSFER, call("transfer", to="bob", amount=7)], say("done"), say("next done"))
    await chat.say("go")
    out = capsys.readouterr().out
    assert "  waits for approval since 20" in out
    assert '  transfer {"to": "bob", "amount": 7}' in out
    assert "/approve" in out
    await chat.say("and then")
    assert "waits for approval" in capsys.readouterr().out, "it does not hang behind the turn that waits"
    with pytest.raises(CallNotFound, match="which call"):
        await chat.command("/approve")
    turn = (await here.world.runner.status(key)).invocation_id
    await chat.command(f"/decline {turn}:t1.1 too much")
    capsys.readouterr()
    await chat.command("/waiting")
    assert "bob" not in capsys.readouterr().out
    await chat.command("/approve")
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["done", "next done"], "what comes of it is shown, and of what was said behind it"
    assert [to for session, to, _ in ran if session == key.session_id] == ["ann"]
    await chat.command("/waiting")
    assert capsys.readouterr().out == "  nothing waits\n"


async def test_a_chat_shows_what_was_decided_elsewhere(
    here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    key = here.world.key("clerk")
    chat = Chat(here.world.runner, key)
    here.world.gemini.script(TRANSFER, say("done"), say("next done"))
    await chat.say("go")
    [waits] = await here.world.runner.waiting(key)
    await here.world.runner.approve(key, waits.call_id)
    await chat.say("and then")
    assert [line for line in capsys.readouterr().out.splitlines() if "done" in line] == ["done", "next done"]
