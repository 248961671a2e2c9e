"""Users' memory through real workflows: ends, requests, the tool, vectors, and what a rewind takes out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio
from temporalio.client import WorkflowExecutionStatus

from activities import memory as memories
from embedded.temporal import TemporalServer
from examples import memory
from perdure.errors import SessionNotFound
from perdure.testing import call, say
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.integration.harness import PATIENCE, World, open_world, until
from tests.integration.memory_agents import MEMORY_AGENTS


@pytest.fixture(autouse=True)
def _time_to_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search is not done by words alone where this process stands still."""
    monkeypatch.setattr(memories, "SEARCH_TIMEOUT", PATIENCE)


@pytest_asyncio.fixture
async def world(temporal: TemporalServer, store: SessionStore) -> AsyncIterator[World]:
    async with open_world(temporal.address, store, MEMORY_AGENTS) as opened:
        yield opened


@pytest_asyncio.fixture
async def sqlite_world(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    async with open_world(temporal.address, sqlite_store, MEMORY_AGENTS) as opened:
        yield opened


async def told(
    world: World, key: SessionKey, text: str, reply: str = "I see.", message_id: str = "m1"
) -> None:
    world.gemini.script(say(reply))
    assert (await world.runner.ask(key, text, message_id=message_id)).status == "answered"


async def found(world: World, key: SessionKey, query: str) -> list[str]:
    return [each.text for each in await world.runner.search_memory(key.app, key.user_id, query)]


async def closed(world: World, key: SessionKey) -> None:
    async def is_over() -> bool:
        described = await world.handle(key).describe()
        return described.status is not WorkflowExecutionStatus.RUNNING

    await until(is_over)


async def test_an_end_leaves_what_is_live_to_the_next_session(world: World) -> None:
    key = world.key("friend")
    await told(world, key, "My cat is called Mia.")
    await told(world, key, "My cat is called Rex.", message_id="m2")
    await world.runner.rewind(key, "m2")
    await world.runner.end(key)
    assert await found(world, key, "cat") == ["My cat is called Mia."]
    later = replace(key, session_id="later")
    world.gemini.script(call("search_memory", query="What is my cat called?"), say("Mia."))
    assert (await world.runner.ask(later, "What is my cat called?")).text == "Mia."
    asked = world.gemini.model_calls()[-1]
    [response] = [
        part["functionResponse"]["response"]
        for content in asked.contents
        for part in content["parts"]
        if "functionResponse" in part
    ]
    [passage] = response["found"]
    assert passage["text"] == "My cat is called Mia."
    assert (passage["said_by"], passage["session"]) == ("user", key.session_id)


async def test_a_tool_of_ones_own_searches_from_its_thread(sqlite_world: World) -> None:
    key = sqlite_world.key("friend")
    await told(sqlite_world, key, "A cat.")
    await sqlite_world.runner.remember(key)
    sqlite_world.gemini.script(call("recall"), say("Yes."))
    await sqlite_world.runner.ask(key, "And?", message_id="m2")
    log = await sqlite_world.log(key)
    assert any("'result': ['A cat.']" in str(event.content) for event in log)


async def test_it_is_remembered_at_any_moment_and_once(world: World) -> None:
    key = world.key("discreet")
    await told(world, key, "red")
    for _ in range(2):
        done = await world.runner.remember(key, request_id="r1")
        assert (done.request_id, done.upto, done.passages) == ("r1", 2, 2)
    await told(world, key, "green", message_id="m2")
    await world.handle(key).signal("remember", {})

    async def is_there() -> bool:
        return len(await found(world, key, "red green")) == 2

    await until(is_there)
    await world.runner.rewind(key, "m2")
    assert await found(world, key, "red green") == ["red"]
    with pytest.raises(SessionNotFound):
        await world.runner.remember(replace(key, session_id="none"))


async def test_a_request_that_is_sent_again_does_not_undo_a_forget(sqlite_world: World) -> None:
    key = sqlite_world.key("discreet")
    await told(sqlite_world, key, "red")
    await sqlite_world.runner.remember(key, request_id="r1")
    assert await sqlite_world.runner.forget(key)
    done = await sqlite_world.runner.remember(key, request_id="r1")
    assert (done.upto, done.passages) == (0, 0)
    assert await found(sqlite_world, key, "red") == []
    assert (await sqlite_world.runner.remember(key)).passages == 2


async def test_only_agents_that_ask_for_it_have_their_ends_remembered(sqlite_world: World) -> None:
    for app in ("discreet", "forgetful"):
        key = sqlite_world.key(app)
        await told(sqlite_world, key, "red")
        await sqlite_world.runner.end(key)
        assert await found(sqlite_world, key, "red") == []
        await closed(sqlite_world, key)
        done = await sqlite_world.runner.remember(key)
        assert done.passages == 2, "also of a session that has ended, and whose workflow is closed"
        assert await found(sqlite_world, key, "red") == ["red"]
        await closed(sqlite_world, key)


async def test_vectors_come_behind_the_end_and_find_what_words_do_not(world: World) -> None:
    key = world.key("knower")
    await told(world, key, "Mia is my tabby", reply="Lovely!")
    await told(world, key, "I drive an automobile", reply="Good.", message_id="m2")
    await world.runner.end(key)
    await closed(world, key)
    [asked] = world.gemini.model_calls("embed")
    assert asked.model == "embedder"
    assert len(asked.body["requests"]) == 4
    assert {each["taskType"] for each in asked.body["requests"]} == {"RETRIEVAL_DOCUMENT"}
    later = replace(key, session_id="later")
    world.gemini.script(call("search_memory", query="the cat"), say("Mia."))
    await world.runner.ask(later, "What is my cat called?")
    response = str(world.gemini.model_calls()[-1].contents[-1])
    assert response.index("Mia is my tabby") < response.index("I drive an automobile")
    # The Runner of this world has no model client: it knows the words alone.
    assert await found(world, key, "cat") == []
    done = await world.runner.remember(key)
    assert done.passages == 4
    assert len(world.gemini.model_calls("embed")) == 2, "the end's and the search's: nothing lacked a vector"


async def test_a_model_that_fails_leaves_the_words(sqlite_world: World) -> None:
    key = sqlite_world.key("knower")
    sqlite_world.gemini.fail(400, kind="embed", times=1)
    await told(sqlite_world, key, "red")
    await sqlite_world.runner.end(key)
    assert await found(sqlite_world, key, "red") == ["red"]
    await closed(sqlite_world, key)
    assert await sqlite_world.store.lacking_vectors(key, "embedder/64", 10)
    await sqlite_world.runner.remember(key)
    assert not await sqlite_world.store.lacking_vectors(key, "embedder/64", 10)
    sqlite_world.gemini.fail(503, kind="embed", times=1)
    sqlite_world.gemini.script(call("search_memory", query="red"), say("Red."))
    later = replace(key, session_id="later")
    assert (await sqlite_world.runner.ask(later, "Colour?")).text == "Red."
    assert "'text': 'red'" in str(sqlite_world.gemini.model_calls()[-1].contents[-1])


async def test_a_model_that_is_away_for_a_moment_is_asked_again(sqlite_world: World) -> None:
    key = sqlite_world.key("knower")
    sqlite_world.gemini.fail(503, kind="embed", times=1)
    await told(sqlite_world, key, "red")
    done = await sqlite_world.runner.remember(key)
    assert done.passages == 2
    assert len(sqlite_world.gemini.model_calls("embed")) == 2
    assert not await sqlite_world.store.lacking_vectors(key, "embedder/64", 10)


async def test_what_is_forgotten_is_found_no_more(sqlite_world: World) -> None:
    key = sqlite_world.key("friend")
    await told(sqlite_world, key, "red")
    await sqlite_world.runner.end(key)
    assert await sqlite_world.runner.forget(key) is True
    assert await found(sqlite_world, key, "red") == []
    await sqlite_world.runner.delete(key)
    other = replace(key, session_id="s2")
    await told(sqlite_world, other, "green")
    await sqlite_world.runner.remember(other)
    await sqlite_world.runner.delete(other)
    assert await found(sqlite_world, key, "green") == ["green"]
    assert await sqlite_world.runner.forget_user(key.app, key.user_id) == 1
    assert await found(sqlite_world, key, "green") == []


async def test_a_turn_that_runs_is_remembered_as_far_as_it_is(sqlite_world: World) -> None:
    key = sqlite_world.key("friend")
    sqlite_world.gemini.hang()
    await sqlite_world.runner.message(key, "red", message_id="m1")
    await sqlite_world.gemini.wait_in_flight()
    assert (await sqlite_world.runner.remember(key)).passages == 1
    assert await found(sqlite_world, key, "red") == ["red"]
    sqlite_world.gemini.release()
    assert (await sqlite_world.runner.ask(key, "red", message_id="m1")).status == "answered"
    assert (await sqlite_world.runner.remember(key)).passages == 2


async def test_what_the_message_finds_is_shown_with_it(sqlite_world: World) -> None:
    """At each step of its turn, as the memory is by then; the log and later turns have nothing of it."""
    key = sqlite_world.key("reminded")
    for number, text in enumerate(("My cat is called Mia.", "My cat is called Rex.", "It rains.")):
        await told(sqlite_world, key, text, reply="I see.", message_id=f"m{number}")
    await sqlite_world.runner.remember(key)
    await sqlite_world.runner.rewind(key, "m1")
    await told(sqlite_world, key, "It rains.", message_id="m4")
    await sqlite_world.runner.end(key)
    later = replace(key, session_id="later")
    sqlite_world.gemini.script(call("recall"), say("Mia."), say("Nothing."))
    assert (await sqlite_world.runner.ask(later, "What is my cat called?", message_id="m1")).text == "Mia."
    for asked in sqlite_world.gemini.model_calls()[-2:]:
        note, said = (part["text"] for part in asked.contents[0]["parts"])
        assert said == "What is my cat called?"
        assert note.startswith("<memory>")
        assert "user: My cat is called Mia." in note
        assert "Rex" not in note
        assert "rains" not in note
    # Its own words are in the prompt already.
    await sqlite_world.runner.remember(later)
    await sqlite_world.runner.ask(later, "What is a whale?", message_id="m2")
    contents = sqlite_world.gemini.model_calls()[-1].contents
    assert contents[0] == {"role": "user", "parts": [{"text": "What is my cat called?"}]}
    assert "What is my cat called?" not in contents[-1]["parts"][0]["text"]
    log = await sqlite_world.store.log(later)
    assert "<memory>" not in str(log)
    await sqlite_world.runner.forget_user(key.app, key.user_id)
    await told(sqlite_world, later, "What is my cat called?", message_id="m3")
    [said] = sqlite_world.gemini.model_calls()[-1].contents[-1]["parts"]
    assert said == {"text": "What is my cat called?"}


async def test_a_fork_is_not_reminded_of_what_its_source_said(sqlite_world: World) -> None:
    key = sqlite_world.key("reminded")
    await told(sqlite_world, key, "My cat is called Mia.")
    await sqlite_world.runner.remember(key)
    fork = (await sqlite_world.store.fork(key, "fork")).key
    await told(sqlite_world, fork, "And my cat?", message_id="m2")
    assert "<memory>" not in str(sqlite_world.gemini.model_calls()[-1].contents)


async def test_a_turn_of_many_steps_embeds_its_message_once(sqlite_world: World) -> None:
    key = sqlite_world.key("seer")
    await told(sqlite_world, key, "Mia is my tabby")
    await sqlite_world.runner.remember(key)
    before = len(sqlite_world.gemini.model_calls("embed"))
    later = replace(key, session_id="later")
    sqlite_world.gemini.script(call("nothing"), say("Mia."))
    await sqlite_world.runner.ask(later, "the cat", message_id="m1")
    assert len(sqlite_world.gemini.model_calls("embed")) == before + 1
    assert "Mia is my tabby" in sqlite_world.gemini.model_calls()[-1].contents[0]["parts"][0]["text"]


async def test_the_history_has_nothing_that_was_said(sqlite_world: World) -> None:
    key = sqlite_world.key("knower")
    await told(sqlite_world, key, "Tell me a secret.", reply="A whale.")
    await sqlite_world.runner.remember(key)
    sqlite_world.gemini.script(call("search_memory", query="walrus or whale"), say("That one."))
    await sqlite_world.runner.ask(key, "Which?", message_id="m2")
    await sqlite_world.runner.end(key)
    await closed(sqlite_world, key)
    history = str((await sqlite_world.handle(key).fetch_history()).events)
    assert "Tell me a secret." in history, "the user's own message is"
    assert "whale" not in history
    assert "walrus" not in history


async def test_the_example(temporal: TemporalServer, sqlite_store: SessionStore) -> None:
    async with open_world(temporal.address, sqlite_store, [memory.agent]) as world:
        key = world.key("friend")
        await told(world, key, "My tabby is called Mia.")
        await world.runner.end(key)
        await closed(world, key)
        later = replace(key, session_id="another-day")
        world.gemini.script(call("search_memory", query="cat"), say("Mia."))
        assert (await world.runner.ask(later, "What is my cat called?")).text == "Mia."
        assert "My tabby is called Mia." in str(world.gemini.model_calls()[-1].contents[-1])
