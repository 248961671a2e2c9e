"""What the model is sent, byte by byte, and what ``perdure sessions context`` says of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import pytest_asyncio

from bench.agents import caller
from cli.prompt_view import show_context
from embedded.temporal import TemporalServer
from examples import counter
from perdure import Agent
from perdure.errors import SessionNotFound
from perdure.settings import Settings
from perdure.testing import Request, call, say
from perdure.types import SessionKey
from tests.integration.conftest import open_sqlite
from tests.integration.harness import World, open_world, until

NOTED = Agent(name="noted", instruction="Mood: {mood?}.", tools=caller.tools)


@pytest_asyncio.fixture(params=[64, 0], ids=["cached", "uncached"])
async def world(
    request: pytest.FixtureRequest, temporal: TemporalServer, tmp_path: Path
) -> AsyncIterator[World]:
    """Perdure on a SQLite file of its own, with the workers' memory of contexts and without."""
    store = await open_sqlite(tmp_path)
    settings = Settings(
        _env_file=None,
        database_url=f"sqlite:///{tmp_path / 'perdure.db'}",
        artifacts_url=f"file://{tmp_path / 'artifacts'}",
        agents=("examples.counter", "bench.agents"),
        context_cache=request.param,
    )
    async with open_world(
        temporal.address, store, [counter.agent, caller, NOTED], settings=settings
    ) as opened:
        yield opened
    await store.close()


def split(request: Request) -> tuple[str, str, str]:
    """The bytes of a request before its contents, the contents without the closing bracket, and the rest."""
    body = request.raw.decode()
    start = body.index('"contents":') + len('"contents":')
    start += len(body[start:]) - len(body[start:].lstrip())
    contents, end = json.JSONDecoder().raw_decode(body, start)
    assert contents == request.contents
    assert body[end - 1] == "]"
    return body[:start], body[start : end - 1], body[end:]


async def settled(world: World, key: SessionKey) -> None:
    async def done() -> bool:
        return not (await world.runner.status(key)).compacting

    await until(done)


async def test_the_beginning_of_a_prompt_stays_the_same_to_the_byte(world: World) -> None:
    key = world.key("caller")
    for number in range(10):
        world.gemini.script(
            call("count_words", text=f"one « two » {number}.0", call_id=f"c{number}"),
            say(f"There are {number} … “words”."),
        )
        await world.runner.ask(key, f"Count «{number}», please: é \\u00e9 1e3")
    requests = world.gemini.model_calls()
    assert len(requests) == 20
    parts = [split(request) for request in requests]
    for (head, contents, rest), (next_head, next_contents, next_rest) in pairwise(parts):
        assert (head, rest) == (next_head, next_rest)
        assert next_contents.startswith(contents)
        assert len(next_contents) > len(contents)


async def test_between_two_summaries_the_beginning_of_a_prompt_stays_the_same(world: World) -> None:
    key = world.key()
    for number in range(8):
        await world.runner.ask(key, f"Increment 'visits' counter by {number + 1}")
        await settled(world, key)
    parts = [split(request) for request in world.gemini.model_calls()]
    assert len({(head, rest) for head, _, rest in parts}) == 1, "instruction and tools never change"
    grown = [later.startswith(earlier) for (_, earlier, _), (_, later, _) in pairwise(parts)]
    summaries = [event for event in (await world.session(key)).events if event.compaction]
    assert grown.count(False) == len(summaries) >= 2


async def test_a_state_key_that_changes_changes_the_instruction_and_nothing_else(world: World) -> None:
    key = world.key("noted")
    await world.runner.ask(key, "hello")
    await world.store.update(key, request_id="u1", state={"mood": "gay"})
    await world.runner.ask(key, "hello again")
    first, second = world.gemini.model_calls()
    assert (first.system, second.system) == ("Mood: .", "Mood: gay.")
    assert split(second)[1].startswith(split(first)[1])


async def test_context_as_json_is_the_next_request_but_for_the_new_message(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    key = world.key()
    for number in range(4):
        await world.runner.ask(key, f"Increment 'visits' counter by {number + 1}")
        await settled(world, key)
        capsys.readouterr()
        await show_context(world.settings, key, as_json=True)
        told = json.loads(capsys.readouterr().out)
        sent = len(world.gemini.requests)
        await world.runner.ask(key, "Show all counters")
        await settled(world, key)
        request = world.gemini.requests[sent]
        message = {"role": "user", "parts": [{"text": "Show all counters"}]}
        assert json.dumps({**told, "contents": [*told["contents"], message]}) == json.dumps(request.body)


async def test_context_says_what_the_model_would_get_with_sizes(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    key = world.key()
    for _ in range(3):
        await world.runner.ask(key, "Increment 'visits' counter by 1")
        await settled(world, key)
    await world.runner.ask(key, "Show all counters [bold]now[/bold]")
    await settled(world, key)
    await show_context(world.settings, key, as_json=False)
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0] == f"SESSION  {key}, 17 events"
    assert lines[1] == f"MODEL    {counter.agent.model}"
    size = len(counter.agent.instruction)
    assert f"SYSTEM INSTRUCTION  {size} characters, about {-(-size // 4)} tokens" in lines
    assert f"  {counter.agent.instruction}" in lines
    assert any(line.startswith("  increment_counter(counter_name, amount)  Increment") for line in lines)
    rows = [line.split() for line in lines[lines.index("") :] if line[:1].isdigit()]
    marks = [(row[0], row[1], row[2]) for row in rows]
    context = await world.store.context(key)
    assert context.summary is not None
    assert marks[0] == ("1–12", "summary", "user")
    assert marks[1:] == [
        *((str(seq), "overlap", role) for seq, role in zip(range(9, 13), ("user", "model") * 2, strict=True)),
        *((str(seq), "tail", role) for seq, role in zip(range(14, 18), ("user", "model") * 2, strict=True)),
    ]
    assert context.summary.text.splitlines()[0] in out
    assert "Show all counters [bold]now[/bold]" in out
    assert 'show_counters → {"visits": 3}' in out
    usage = context.events[-1].usage
    assert usage is not None
    assert f"LAST CALL  {usage['promptTokenCount']:,} tokens of prompt" in out
    [total] = [line for line in lines if line.startswith("TOTAL")]
    told = int(total.split()[1].replace(",", ""))
    assert told > size + sum(len(json.dumps(content)) for content in world.gemini.model_calls()[-1].contents)


async def test_context_of_a_session_that_said_nothing_yet(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    key = world.key()
    with pytest.raises(SessionNotFound):
        await show_context(world.settings, key, as_json=False)
    await world.store.create(key)
    await show_context(world.settings, key, as_json=False)
    out = capsys.readouterr().out
    assert "the next prompt is the next message alone" in out
    assert "LAST CALL  none yet" in out
    await show_context(world.settings, key, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["contents"] == []
    assert told["systemInstruction"]["parts"] == [{"text": counter.agent.instruction}]


async def test_context_without_the_agent_is_the_conversation(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    key = world.key()
    await world.runner.ask(key, "Increment 'visits' counter by 1")
    lost = world.settings.model_copy(update={"agents": ("bench.agents",)})
    await show_context(lost, key, as_json=False)
    said = capsys.readouterr()
    assert "UnknownAgent" in said.err
    assert "the conversation alone" in said.err
    assert "MODEL" not in said.out
    assert "Increment 'visits' counter by 1" in said.out
    await show_context(lost.model_copy(update={"agents": ()}), key, as_json=True)
    said = capsys.readouterr()
    assert "PERDURE_AGENTS" in said.err
    assert json.loads(said.out) == {
        "contents": [event.content for event in (await world.session(key)).events]
    }
    needy = replace(key, app="needy")
    await world.store.create(needy)
    await show_context(
        world.settings.model_copy(update={"agents": ("tests.integration.agents",)}), needy, as_json=False
    )
    assert "InvalidInstruction" in capsys.readouterr().err
