"""Messages that come while a turn runs: they join its next step, interrupt it, or are the next turn."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import pytest
from temporalio.client import WorkflowUpdateFailedError

from gateway.runner import Answer, Said
from perdure import Agent
from perdure.errors import EventConflict, InvalidMessage, InvocationNotFound, InvocationRewound
from perdure.testing import call, say
from perdure.types import During, Event, JsonObject, SessionKey
from tests.integration.agents import gate
from tests.integration.harness import PATIENCE, World, until
from tests.integration.waiting_agents import WAITING_AGENTS


@pytest.fixture(autouse=True)
def _fresh_gate() -> None:
    gate.reset()


@pytest.fixture
def agents() -> list[Agent]:
    return WAITING_AGENTS


def asked(world: World, key: SessionKey, message_id: str, **said: Any) -> asyncio.Task[Answer]:
    """A message on its way; it says its own id."""
    return asyncio.create_task(world.runner.ask(key, message_id, message_id=message_id, **said))


async def held(world: World, key: SessionKey, *then: JsonObject) -> asyncio.Task[Answer]:
    """The turn m1, held in its tool."""
    world.gemini.script(call("wait_at_gate", label="m1"), *(then or [say("went through")]))
    task = asked(world, key, "m1")
    await gate.held()
    return task


async def queued(world: World, key: SessionKey, count: int = 1) -> None:
    """So many messages wait in the session."""

    async def arrived() -> bool:
        return (await world.runner.status(key)).queued == count

    await until(arrived)


async def ids(world: World, key: SessionKey) -> list[tuple[str, str]]:
    """The live events: id and invocation."""
    return [(event.id, event.invocation_id) for event in (await world.session(key)).events]


JOINED = [("m1:user", "m1"), ("m1:m1", "m1"), ("m1:t1.0", "m1"), ("m2:user", "m1"), ("m1:m2", "m1")]


async def test_a_message_joins_the_next_step_and_both_get_its_answer(world: World) -> None:
    key = world.key("clerk")
    first = await held(world, key)
    second = asked(world, key, "m2", during="join")
    await queued(world, key)
    gate.open.set()
    answers = [await first, await second]
    assert [answer.text for answer in answers] == ["went through"] * 2
    assert [answer.invocation_id for answer in answers] == ["m1"] * 2
    assert await ids(world, key) == JOINED
    roles = [content["role"] for content in world.gemini.model_calls()[-1].contents]
    assert roles == ["user", "model", "user", "user"]
    *_, responses, said = world.gemini.model_calls()[-1].contents
    assert "functionResponse" in responses["parts"][0], "what was called is answered at once"
    assert said["parts"] == [{"text": "m2"}]
    ways: list[During] = ["join", "queue", "interrupt"]
    for during in ways:
        again = await world.runner.ask(key, "m2", message_id="m2", during=during)
        assert again == answers[1], "a message sent again gets the first reply"
    assert len(world.gemini.model_calls()) == 2
    assert (await world.runner.status(key)).turns == 1


async def test_what_joins_is_kept_out_of_the_next_turn_and_shown_meanwhile(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("clerk")
    first = await held(world, key, call("wait_at_gate", label="again"), say("done"))
    sent = [await world.runner.message(key, f"m{n}", message_id=f"m{n}", during="join") for n in (2, 3)]
    await queued(world, key, 2)
    gate.open.set()
    gate.entered.clear()
    gate.open = asyncio.Event()
    await gate.held()
    status = await world.runner.status(key)
    assert (status.joined, status.queued) == (sent, 0)
    gate.open.set()
    assert (await first).text == "done"
    status = await world.runner.status(key)
    assert (status.joined, status.turns) == ([], 1)
    history = (await world.handle(key).fetch_history()).to_json()
    assert "messages joining" in _summaries(history)


def _summaries(history: str) -> str:
    """What the UI says of the activities."""
    events = json.loads(history)["events"]
    found = [event.get("userMetadata", {}).get("summary", {}).get("data", "") for event in events]
    return " ".join(base64.b64decode(each).decode() for each in found)


async def test_a_turn_that_has_no_next_step_is_joined_by_none(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("clerk")
    world.gemini.script(say("one"), say("two"), say("three"))
    world.gemini.hang()
    first = asked(world, key, "m1")
    await world.gemini.wait_in_flight()
    second = asked(world, key, "m2")
    await queued(world, key)
    third = asked(world, key, "m3", during="join")
    await queued(world, key, 2)
    world.gemini.release()
    assert [(await each).text for each in (first, second, third)] == ["one", "two", "three"]
    assert (await third).invocation_id == "m3"


async def test_a_message_with_state_and_one_that_is_large_join(world: World) -> None:
    key = world.key("clerk")
    first = await held(world, key)
    large = "x" * 300_000
    second = asked(world, key, "m2", during="join", state={"mood": "good"})
    await queued(world, key)
    third = asyncio.create_task(world.runner.ask(key, large, message_id="m3", during="join"))
    await queued(world, key, 2)
    gate.open.set()
    assert [(await each).text for each in (first, second, third)] == ["went through"] * 3
    session = await world.session(key)
    assert session.state == {"label": "m1", "mood": "good"}
    said = {event.id: event for event in session.events if event.author == "user"}
    assert list(said) == ["m1:user", "m2:user", "m3:user"]
    assert said["m3:user"].artifact_delta, "what is too large is put away"
    assert (await world.runner.ask(key, large, message_id="m3")).text == "went through"
    with pytest.raises(EventConflict):
        await world.runner.ask(key, "something else", message_id="m2")


async def test_an_id_that_was_used_does_not_join_and_is_told_so(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("clerk")
    world.gemini.script(say("zero"))
    zero = await world.runner.ask(key, "zero", message_id="m0")
    first = await held(world, key)
    other = asyncio.create_task(world.runner.ask(key, "other", message_id="m0", during="join"))
    await queued(world, key)
    gate.open.set()
    assert (await first).text == "went through"
    with pytest.raises(EventConflict):
        await other
    gate.reset()
    world.gemini.script(call("wait_at_gate", label="m2"), say("two"))
    second = asked(world, key, "m2")
    await gate.held()
    again = asyncio.create_task(world.runner.ask(key, "zero", message_id="m0", during="join"))
    await queued(world, key)
    gate.open.set()
    assert (await second).text == "two"
    assert await again == zero


async def test_what_joins_a_turn_that_waits_is_seen_when_that_goes_on(world: World) -> None:
    key = world.key("clerk")
    world.gemini.script(call("transfer", to="ann", amount=5), say("paid"))
    assert (await world.runner.ask(key, "m1", message_id="m1")).status == "waiting"
    joining = await world.runner.ask(key, "m2", message_id="m2", during="join")
    assert (joining.status, joining.invocation_id) == ("waiting", "m1")
    assert (await world.runner.status(key)).queued == 1
    await world.runner.approve(key, "m1:t1.0")
    answers = [await asked(world, key, each, during="join") for each in ("m1", "m2")]
    assert [(answer.text, answer.invocation_id) for answer in answers] == [("paid", "m1")] * 2
    assert [each for each, _ in await ids(world, key)][-2:] == ["m2:user", "m1:m2"]


@pytest.mark.parametrize("during", ["join", "queue"])
async def test_a_message_with_state_that_comes_while_a_turn_waits_is_not_lost(
    sqlite_world: World, during: During
) -> None:
    world = sqlite_world
    key = world.key("clerk")
    world.gemini.script(call("transfer", to="ann", amount=5), say("paid"), say("next"))
    assert (await world.runner.ask(key, "m1", message_id="m1")).status == "waiting"
    said: Said = {"text": "m2", "message_id": "m2", "state": {"mood": "good"}}
    coming: Said = {**said, "during": during}
    assert (await world.runner.ask(key, **coming)).status == "waiting"
    await world.runner.approve(key, "m1:t1.0")

    async def over() -> bool:
        status = await world.runner.status(key)
        return not status.queued and not status.doing

    await until(over)
    assert (await world.runner.status(key)).last_error is None
    answer = await world.runner.ask(key, **said)
    assert answer.text == ("paid" if during == "join" else "next")
    assert (await world.session(key)).state == {"paid": 5, "mood": "good"}


async def test_a_cancel_ends_the_turn_for_those_that_have_joined_it(world: World) -> None:
    key = world.key("clerk")
    first = await held(world, key)
    second = asked(world, key, "m2", during="join")
    await queued(world, key)
    world.gemini.hang()
    gate.open.set()
    await world.gemini.wait_for_requests(2)
    await world.runner.cancel(key)
    assert [(await each).status for each in (first, second)] == ["cancelled"] * 2
    assert [each for each, _ in await ids(world, key)][-2:] == ["m2:user", "m1:end"]
    assert (await world.runner.ask(key, "m2", message_id="m2")) == await second


async def test_what_has_not_joined_yet_when_the_turn_is_cancelled_is_the_next_turn(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = sqlite_world
    key = world.key("clerk")
    first = await held(world, key)
    append, about_to = world.store.append, asyncio.Event()

    async def waits(key: SessionKey, event: Event, **options: Any) -> Event:
        if event.id == "m2:user":
            about_to.set()
            await asyncio.Event().wait()
        return await append(key, event, **options)

    monkeypatch.setattr(world.store, "append", waits)
    second = asked(world, key, "m2", during="join")
    await queued(world, key)
    gate.open.set()
    await asyncio.wait_for(about_to.wait(), PATIENCE)
    await world.runner.cancel(key)
    assert (await first).status == "cancelled"
    assert (await second).text == "went through"
    assert [each for each, _ in await ids(world, key)][-2:] == ["m2:user", "m2:m1"]


async def test_s58_a_message_joins_once_though_its_step_is_tried_twice(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = sqlite_world
    key = world.key("clerk")
    first = await held(world, key)
    append, failures = world.store.append, ["m2:user", "m1:m2"]

    async def fails_after(key: SessionKey, event: Event, **options: Any) -> Event:
        stored = await append(key, event, **options)
        if event.id in failures:
            failures.remove(event.id)
            raise OSError("the worker died just after the commit")
        return stored

    monkeypatch.setattr(world.store, "append", fails_after)
    second = asked(world, key, "m2", during="join")
    await queued(world, key)
    gate.open.set()
    assert [(await each).text for each in (first, second)] == ["went through"] * 2
    assert failures == []
    assert await ids(world, key) == JOINED
    assert len(world.gemini.model_calls()) == 2


async def test_a_rewind_takes_what_joined_with_the_turn_and_has_no_other_name_for_it(world: World) -> None:
    key = world.key("clerk")
    first = await held(world, key)
    second = asked(world, key, "m2", during="join")
    await queued(world, key)
    gate.open.set()
    await asyncio.gather(first, second)
    with pytest.raises(InvocationNotFound, match="joined invocation m1"):
        await world.runner.rewind(key, "m2")
    await world.runner.rewind(key, "m1", request_id="r1")
    assert [each for each, _ in await ids(world, key)] == ["r1:rewind"]
    with pytest.raises(InvocationRewound):
        await world.runner.ask(key, "m2", message_id="m2")
    await world.runner.rewind(key, "r1")
    assert (await world.runner.ask(key, "m2", message_id="m2")).text == "went through"


async def test_s60_what_had_joined_a_turn_that_was_lost_with_temporals_data(world: World) -> None:
    key = world.key("clerk")
    first = await held(world, key)
    second = asked(world, key, "m2", during="join")
    await queued(world, key)
    world.gemini.hang()
    gate.open.set()
    await world.gemini.wait_for_requests(2)
    await world.handle(key).terminate()
    lost = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(each) for each in lost] == [WorkflowUpdateFailedError] * 2
    world.gemini.clear()
    world.gemini.script(say("went through"))
    assert (await asked(world, key, "m1")).text == "went through"
    answer = await asked(world, key, "m2")
    assert (answer.text, answer.invocation_id) == ("went through", "m1")
    assert await ids(world, key) == JOINED


async def test_a_message_interrupts_and_is_the_next(world: World) -> None:
    key = world.key("clerk")
    first = await held(world, key, say("interrupting"), say("patient"))
    patient = asked(world, key, "m2")
    await queued(world, key)
    third = asked(world, key, "m3", during="interrupt")
    assert (await first).status == "cancelled"
    assert ((await third).text, (await patient).text) == ("interrupting", "patient")
    events = (await world.session(key)).events
    assert [event.id for event in events] == [
        "m1:user",
        "m1:m1",
        "m1:end",
        "m3:user",
        "m3:m1",
        "m2:user",
        "m2:m1",
    ]
    assert events[2].meta["reason"] == "interrupted by message m3"


async def test_a_message_that_interrupted_before_and_is_sent_again_interrupts_nothing(world: World) -> None:
    key = world.key("clerk")
    world.gemini.script(say("hello"))
    hello = await world.runner.ask(key, "hello", message_id="m0", during="interrupt")
    first = await held(world, key)
    again = asyncio.create_task(world.runner.ask(key, "hello", message_id="m0", during="interrupt"))
    await queued(world, key)
    await until(lambda: _interrupts(world, key))
    gate.open.set()
    assert (await first).text == "went through"
    assert await again == hello


async def _interrupts(world: World, key: SessionKey) -> bool:
    """An activity that is to interrupt has completed."""
    history = await world.handle(key).fetch_history()
    names = {
        event.event_id: event.activity_task_scheduled_event_attributes.activity_type.name
        for event in history.events
    }
    completed = (event.activity_task_completed_event_attributes for event in history.events)
    return any(names.get(done.scheduled_event_id) == "interrupt" for done in completed)


async def test_a_message_interrupts_a_turn_that_waits(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("clerk")
    world.gemini.script(call("transfer", to="ann", amount=5), say("instead"))
    assert (await world.runner.ask(key, "m1", message_id="m1")).status == "waiting"
    assert (await world.runner.ask(key, "m2", message_id="m2", during="interrupt")).text == "instead"
    assert (await world.runner.ask(key, "m1", message_id="m1")).status == "cancelled"
    assert (await world.runner.status(key)).waiting == []


async def test_a_turn_that_waits_is_spared_by_a_message_sent_again(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("clerk")
    world.gemini.script(say("hello"), call("transfer", to="ann", amount=5), say("paid"))
    await world.runner.ask(key, "m0", message_id="m0", during="interrupt")
    assert (await world.runner.ask(key, "m1", message_id="m1")).status == "waiting"
    await world.runner.message(key, "m0", message_id="m0", during="interrupt")
    await until(lambda: _interrupts(world, key))
    assert (await world.runner.ask(key, "m1", message_id="m1")).status == "waiting"
    await world.runner.approve(key, "m1:t1.0")
    assert (await world.runner.ask(key, "m1", message_id="m1")).text == "paid"


async def test_what_is_no_way_to_come_is_refused(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("clerk")
    with pytest.raises(InvalidMessage, match="queue, join, interrupt"):
        await world.runner.ask(key, "hello", during="shout")  # type: ignore[arg-type]  # is what is refused
    world.gemini.script(say("first"))
    assert (await world.runner.ask(key, "m1", message_id="m1", during="join")).text == "first"
