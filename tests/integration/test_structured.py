"""Answers that are JSON of a schema: checked, mended once, or refused by type."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from pydantic import BaseModel, Field

from cli.conversation import Chat
from embedded.temporal import TemporalServer
from examples import report
from perdure import Agent, Budget, Compaction, Limits
from perdure.testing import call, say
from perdure.types import JsonObject
from storage.sessions import SessionStore
from tests.integration.agents import add
from tests.integration.harness import World, open_world


class City(BaseModel):
    """A city."""

    name: str
    people: int = Field(ge=0)


AGENTS = [
    report.agent,
    Agent(name="city", output_schema=City, output_key="city"),
    Agent(name="older", model="gemini-2.5-flash", tools=[add], output_schema=City),
    Agent(name="brief", output_schema=City, limits=Limits(steps=1)),
    Agent(name="poor", output_schema=City, budget=Budget(steps=1)),
    Agent(name="summed", output_schema=City, compaction=Compaction(interval=1)),
    Agent(name="words", output_key="said"),
]
GOOD = '{"name": "Ulm", "people": 126000}'
BAD = '{"name": "Ulm", "people": -1}'


@pytest_asyncio.fixture
async def world(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    async with open_world(temporal.address, sqlite_store, AGENTS) as opened:
        yield opened


def config(world: World) -> JsonObject:
    found: JsonObject = world.gemini.model_calls()[-1].body.get("generationConfig") or {}
    return found


async def test_an_answer_that_fits_is_given_as_json_and_kept_in_the_state(world: World) -> None:
    key = world.key("city")
    world.gemini.script(say(GOOD))
    answer = await world.runner.ask(key, "Which city?", message_id="m1")
    assert (answer.status, answer.text, answer.output) == ("answered", GOOD, json.loads(GOOD))
    assert config(world)["responseMimeType"] == "application/json"
    assert config(world)["responseJsonSchema"]["required"] == ["name", "people"]
    assert (await world.session(key)).state == {"city": json.loads(GOOD)}
    again = await world.runner.ask(key, "Which city?", message_id="m1")
    assert (again.output, again.spent) == (answer.output, answer.spent), "sent again, it gets the first reply"
    world.gemini.script(say('{"name": "Bonn", "people": 1}'))
    await world.runner.ask(key, "And another?", message_id="m2")
    await world.runner.rewind(key, "m2")
    assert (await world.session(key)).state == {"city": json.loads(GOOD)}


async def test_one_that_does_not_is_mended_once(world: World) -> None:
    key = world.key("city")
    world.gemini.script(say(BAD), say(GOOD))
    answer = await world.runner.ask(key, "Which city?", message_id="m1")
    assert answer.output == json.loads(GOOD)
    assert answer.spent is not None
    assert answer.spent.model_calls == 2
    log = await world.log(key)
    assert [event.id for event in log] == ["m1:user", "m1:m1", "m1:m2"]
    assert log[1].text == BAD, "what did not fit stays in the log"
    assert log[1].state_delta == {}
    said = world.gemini.model_calls()[-1].contents
    assert [content["role"] for content in said] == ["user", "model", "user"]
    assert "people: Input should be greater than or equal to 0" in said[-1]["parts"][0]["text"]
    world.gemini.script(say(GOOD))
    await world.runner.ask(key, "Again?")
    later = world.gemini.model_calls()[-1].contents
    assert later[: len(said)] == said, "a prompt only grows"
    status = await world.runner.status(key)
    assert (status.model_calls, status.turns) == (3, 2)
    history = [event async for event in world.handle(key).fetch_history_events()]
    assert "Ulm" not in str(history)


async def test_a_person_sees_which_answer_counts(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.gemini.script(say(BAD), say(GOOD))
    await Chat(world.runner, world.key("city")).say("Which city?")
    bad, why, good = capsys.readouterr().out.splitlines()
    assert (bad, good) == (f"  {BAD}", GOOD)
    assert why == "  (does not fit the schema, and is to be mended)"


async def test_the_second_ends_the_turn_by_type_and_the_session_lives(world: World) -> None:
    key = world.key("city")
    world.gemini.script(say(BAD), say("Ulm, I think"))
    answer = await world.runner.ask(key, "Which city?", message_id="m1")
    assert (answer.status, answer.text, answer.output) == ("failed", "", None)
    assert answer.failure is not None
    assert answer.failure.type == "InvalidAnswer"
    assert "Invalid JSON" in answer.failure.message
    log = await world.log(key)
    assert (log[-1].id, log[-1].text) == ("m1:m2", "Ulm, I think"), "with the raw text"
    assert (await world.session(key)).state == {}
    status = await world.runner.status(key)
    assert status.last_error is not None
    assert status.last_error.type == "InvalidAnswer"
    assert "Invalid JSON" not in status.last_error.message, "what could quote an answer stays in the log"
    again = await world.runner.ask(key, "Which city?", message_id="m1")
    assert (again.status, again.failure) == (answer.status, answer.failure)
    world.gemini.script(say(GOOD))
    assert (await world.runner.ask(key, "Again")).output == json.loads(GOOD)


async def test_one_that_was_cut_off_is_told_to_be_shorter(world: World) -> None:
    key = world.key("city")
    world.gemini.finish("MAX_TOKENS", '{"name": "Llanfair')
    answer = await world.runner.ask(key, "Which city?")
    assert answer.status == "answered"
    assert "give a shorter one" in world.gemini.model_calls()[-1].contents[-1]["parts"][0]["text"]


async def test_the_mending_counts_as_a_step_and_is_in_the_budget(world: World) -> None:
    for name, error in (("brief", "LimitExceeded"), ("poor", "BudgetExceeded")):
        world.gemini.script(say(BAD))
        answer = await world.runner.ask(world.key(name), "Which city?")
        assert answer.failure is not None
        assert answer.failure.type == error
    assert len(world.gemini.model_calls()) == 2


async def test_a_model_that_takes_no_schema_beside_tools_is_told_in_words(world: World) -> None:
    key = world.key("older")
    fenced = f"```json\n{GOOD}\n```"
    world.gemini.script(call("add", name="n"), say(fenced))
    answer = await world.runner.ask(key, "Add one, then: which city?")
    assert (answer.text, answer.output) == (fenced, json.loads(GOOD))
    assert "responseMimeType" not in config(world)
    assert '"required": ["name", "people"]' in world.gemini.model_calls()[-1].system


async def test_a_turn_that_was_mended_is_summed_up_as_any_other(world: World) -> None:
    key = world.key("summed")
    world.gemini.script(say(BAD), say(GOOD))
    assert (await world.runner.ask(key, "Which city?")).status == "answered"
    await world.runner.compact(key)
    world.gemini.script(say(GOOD))
    assert (await world.runner.ask(key, "And now?")).status == "answered"
    assert "summary" in world.gemini.model_calls()[-1].contents[0]["parts"][0]["text"].lower()


async def test_without_a_schema_the_key_has_the_text(world: World) -> None:
    key = world.key("words")
    world.gemini.script(say("Good morning."))
    answer = await world.runner.ask(key, "Hello")
    assert (answer.output, (await world.session(key)).state) == (None, {"said": "Good morning."})


async def test_the_analyst_of_the_examples_reports(world: World) -> None:
    key = world.key("analyst")
    given = {"region": "north", "findings": [{"what": "It fell.", "numbers": [140, 95]}], "confidence": 0.9}
    vague = {**given, "findings": []}
    world.gemini.script(call("sales_of", region="north"), say(json.dumps(vague)), say(json.dumps(given)))
    answer = await world.runner.ask(key, "How did the north do?")
    assert report.Report.model_validate(answer.output).findings[0].numbers == [140, 95]
    session = await world.session(key)
    assert session.state == {"last_report": given}
    assert 0 < session.spent.usd < 0.10
    by_rule = await world.runner.ask(key, "And what would you say of 7 and 8?")
    said = report.Report.model_validate(by_rule.output)
    assert len(said.findings) == 1, "the stand-in itself answers by schema"
