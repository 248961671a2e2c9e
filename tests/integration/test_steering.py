"""Cancel, rewind and end while a turn runs; resent messages; parallel calls; continue-as-new."""

from __future__ import annotations

import asyncio

import pytest

from perdure.errors import InvocationRewound, SessionEnded, SessionNotFound
from perdure.testing import call, say
from perdure.types import SessionKey
from tests.integration.agents import gate
from tests.integration.harness import World, until


@pytest.fixture(autouse=True)
def _fresh_gate() -> None:
    gate.reset()


async def held_turn(world: World, key: object, message_id: str) -> asyncio.Task[object]:
    """A turn that is held in its tool."""
    world.gemini.script(call("wait_at_gate", label=message_id), say("went through"))
    task: asyncio.Task[object] = asyncio.create_task(
        world.runner.ask(key, "hold", message_id=message_id)  # type: ignore[arg-type]  # a SessionKey
    )
    await gate.held()
    return task


async def test_a_cancel_ends_the_turn_and_keeps_what_was_committed(world: World) -> None:
    key = world.key("tester")
    task = await held_turn(world, key, "m1")
    await world.runner.cancel(key)
    answer = await task
    assert getattr(answer, "status", None) == "cancelled"
    gate.open.set()
    session = await world.session(key)
    assert [event.id for event in session.events] == ["m1:user", "m1:m1", "m1:end"]
    assert session.events[-1].meta["interrupted"] is True
    assert session.state == {}, "the call that was cancelled left nothing"
    world.gemini.clear()
    world.gemini.script(say("next"))
    assert (await world.runner.ask(key, "go on")).text == "next"
    again = await world.runner.ask(key, "hold", message_id="m1")
    assert again.status == "cancelled", "the message sent again gets the first reply"


async def test_s35_a_rewind_during_a_turn_cancels_it_first(world: World) -> None:
    key = world.key("tester")
    world.gemini.script(say("one"))
    first = await world.runner.ask(key, "one")
    task = await held_turn(world, key, "m2")
    ack = await world.runner.rewind(key, first.invocation_id, request_id="r1")
    assert getattr(await task, "status", None) == "cancelled"
    gate.open.set()
    log = await world.log(key)
    assert [event.id for event in log if event.live] == ["r1:rewind"]
    assert log[-1].seq == ack.seq, "nothing came after the marker"
    assert [event.id for event in log][-2:] == ["m2:end", "r1:rewind"]
    with pytest.raises(InvocationRewound):
        await world.runner.ask(key, "hold", message_id="m2")
    world.gemini.clear()
    world.gemini.script(say("fresh"))
    assert (await world.runner.ask(key, "fresh start")).text == "fresh"
    prompt = world.gemini.model_calls()[-1]
    assert [content["parts"][0].get("text") for content in prompt.contents] == ["fresh start"]


async def test_a_wrong_rewind_leaves_the_running_turn_alone(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("tester")
    task = await held_turn(world, key, "m1")
    with pytest.raises(Exception, match="never-was"):
        await world.runner.rewind(key, "never-was")
    gate.open.set()
    assert getattr(await task, "text", None) == "went through"


async def test_s29_a_rewind_resent_during_a_later_turn_does_nothing(world: World) -> None:
    key = world.key("tester")
    world.gemini.script(say("one"))
    first = await world.runner.ask(key, "one")
    ack = await world.runner.rewind(key, first.invocation_id, request_id="r1")
    task = await held_turn(world, key, "m2")
    await world.handle(key).signal("rewind", {"before": first.invocation_id, "request_id": "r1"})
    again = await world.handle(key).execute_update(
        "rewind", {"before": first.invocation_id, "request_id": "r1"}, id="another-update"
    )
    assert again == {"request_id": "r1", "seq": ack.seq}
    gate.open.set()
    assert getattr(await task, "text", None) == "went through"


async def test_a_rewind_in_the_first_turn_of_all(world: World) -> None:
    key = world.key("tester")
    task = await held_turn(world, key, "m1")
    await world.runner.rewind(key, "m1")
    assert getattr(await task, "status", None) == "cancelled"
    session = await world.session(key)
    assert session.state == {}
    assert [event for event in session.events if event.content] == []


async def test_s63_a_message_resent_gets_the_first_reply(world: World) -> None:
    key = world.key("tester")
    world.gemini.script(call("add", name="n"), say("done"))
    first = await world.runner.ask(key, "go", message_id="m1")
    second = await world.runner.ask(key, "go", message_id="m1")
    assert second == first
    await world.handle(key).signal("message", {"text": "go", "message_id": "m1"})
    third = await world.handle(key).execute_update("ask", {"text": "go", "message_id": "m1"}, id="other")
    assert third == {"invocation_id": "m1", "status": "answered", "seq": first.seq}
    assert len(world.gemini.model_calls()) == 2
    assert (await world.session(key)).state == {"n": 1}


async def test_two_callers_of_one_message_get_one_turn(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("tester")
    world.gemini.script(say("once"))
    message = {"text": "go", "message_id": "m1", "inline": True}
    answers = await asyncio.gather(
        world.runner.ask(key, "go", message_id="m1"), world.runner.ask(key, "go", message_id="m1")
    )
    assert [answer.text for answer in answers] == ["once", "once"]
    inline = await world.handle(key).execute_update("ask", message, id="third")
    assert isinstance(inline, dict)
    assert inline["text"] == "once"


async def test_s17_no_update_is_lost_between_the_calls_of_one_step(world: World) -> None:
    key = world.key("tester")
    world.gemini.script([call("add", name="n"), call("add", name="n"), call("add", name="m")], say("done"))
    await world.runner.ask(key, "go")
    assert (await world.session(key)).state == {"n": 2, "m": 1}


async def test_s17_parallel_calls_that_collide_run_again(world: World) -> None:
    key = world.key("tester")
    world.gemini.script([call("add_parallel", name="n") for _ in range(4)], say("done"))
    await world.runner.ask(key, "go")
    session = await world.session(key)
    assert session.state == {"n": 4}
    deltas = [event.state_delta["n"] for event in session.events if event.state_delta]
    assert sorted(deltas) == [1, 2, 3, 4], "every delta is recorded"


async def test_messages_are_taken_in_order_of_arrival(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("tester")
    for n in range(12):
        await world.runner.message(key, f"number {n}", message_id=f"s{n}")

    async def all_done() -> bool:
        return (await world.runner.status(key)).turns == 12

    await until(all_done)
    texts = [event.text for event in (await world.session(key)).events if event.author == "user"]
    assert texts == [f"number {n}" for n in range(12)]


async def test_an_artifact_saved_from_outside_is_rewound_like_any_other(world: World) -> None:
    key = world.key("tester")
    world.gemini.script(say("hello"))
    await world.runner.ask(key, "hello")
    assert await world.runner.save_artifact(key, "notes/a b.txt", b"first", "text/plain") == 1
    world.gemini.script(say("again"))
    second = await world.runner.ask(key, "again")
    assert await world.runner.save_artifact(key, "notes/a b.txt", b"second", "text/plain") == 2
    assert (await world.store.load_artifact(key, "notes/a b.txt"))[1] == b"second"
    await world.runner.rewind(key, second.invocation_id)
    assert (await world.store.load_artifact(key, "notes/a b.txt"))[1] == b"first"


async def test_s60_temporal_lost_and_started_empty(world: World) -> None:
    """A terminated workflow stands for it: nothing of the run is left to the next one."""
    key = world.key("tester")
    world.gemini.script(call("add", name="n"), say("one"))
    await world.runner.ask(key, "one")
    epoch = (await world.session(key)).epoch
    await world.handle(key).terminate("lost")
    world.gemini.script(call("add", name="n"), say("two"))
    assert (await world.runner.ask(key, "two")).text == "two"
    session = await world.session(key)
    assert session.state == {"n": 2}
    assert session.epoch > epoch, "nothing left over from the old run can write"


async def test_the_workflow_cancelled_by_an_operator_leaves_cleanly(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("tester")
    task = await held_turn(world, key, "m1")
    await world.handle(key).cancel()
    assert getattr(await task, "status", None) == "cancelled"

    async def closed() -> bool:
        return (await world.handle(key).describe()).close_time is not None

    await until(closed)
    gate.open.set()
    assert (await world.log(key))[-1].id == "m1:end"
    world.gemini.clear()
    world.gemini.script(say("a new run"))
    assert (await world.runner.ask(key, "go on")).text == "a new run"


async def test_a_message_resent_after_the_end_gets_its_reply_and_opens_nothing(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("tester")
    world.gemini.script(say("hello"))
    first = await world.runner.ask(key, "hi", message_id="m1")
    await world.runner.end(key)
    assert await world.runner.ask(key, "hi", message_id="m1") == first

    async def closed() -> bool:
        return (await world.handle(key).describe()).close_time is not None

    await until(closed)
    with pytest.raises(SessionEnded):
        await world.runner.ask(key, "anything new", message_id="m2")
    await until(closed)


async def test_a_session_moved_behind_the_workflows_back_is_taken_over_again(world: World) -> None:
    """An operator may rewind in the database, with no Temporal at hand."""
    key = world.key("tester")
    world.gemini.script(say("one"), say("two"))
    await world.runner.ask(key, "one")
    await world.runner.ask(key, "two", message_id="m2")
    await world.store.rewind(key, before="m2", request_id="by-hand")
    world.gemini.script(say("three"))
    assert (await world.runner.ask(key, "three")).text == "three"
    texts = [event.text for event in (await world.session(key)).events if event.content]
    assert texts == ["one", "one", "three", "three"]


async def test_s23_a_session_deleted_during_a_turn(world: World) -> None:
    key = world.key("tester")
    task = await held_turn(world, key, "m1")
    await world.store.delete(key)
    gate.open.set()
    with pytest.raises(SessionNotFound):
        await task

    async def closed() -> bool:
        return (await world.handle(key).describe()).close_time is not None

    await until(closed)
    with pytest.raises(SessionNotFound):
        await world.store.get(key)


async def test_s21_one_session_id_under_two_users(world: World) -> None:
    one, two = world.key("tester"), world.key("tester")
    two = SessionKey(app="tester", user_id=two.user_id, session_id=one.session_id)
    world.gemini.script(say("for one"), say("for two"))
    await world.runner.ask(one, "I am one")
    await world.runner.ask(two, "I am two")
    assert [event.text for event in (await world.session(one)).events] == ["I am one", "for one"]
    assert [event.text for event in (await world.session(two)).events] == ["I am two", "for two"]


async def test_odd_names_make_a_workflow_id_that_can_be_read_back(sqlite_world: World) -> None:
    world = sqlite_world
    key = SessionKey(app="tester", user_id="a/b c@example.org", session_id="größe %2F/..")
    world.gemini.script(say("hello"))
    assert (await world.runner.ask(key, "hi")).text == "hello"
    assert SessionKey.parse(key.workflow_id) == key
    assert (await world.store.get(key)).key == key


async def test_a_client_with_nothing_but_temporal(sqlite_world: World) -> None:
    """No Runner, no pydantic: plain JSON, signal-with-start, the text inline."""
    world = sqlite_world
    key = world.key("tester")
    world.gemini.script(say("hello there"), say("and again"))
    await world.client.start_workflow(
        "AgentSession",
        id=key.workflow_id,
        task_queue=world.settings.task_queue,
        start_signal="message",
        start_signal_args=[{"text": "hi", "message_id": "m1"}],
    )
    reply = await world.handle(key).execute_update("ask", {"text": "more", "inline": True})
    assert isinstance(reply, dict)
    assert (reply["status"], reply["text"]) == ("answered", "and again")
    run = await world.handle(key).describe()
    found = {pair.key.name: pair.value for pair in run.typed_search_attributes}
    found.pop("BuildIds", None)  # the server's own
    assert found == {
        "PerdureApp": "tester",
        "PerdureUser": key.user_id,
        "PerdureStatus": "open",
    }


async def test_s13_a_zombie_that_commits_late_is_refused(world: World) -> None:
    """The turn was ended from elsewhere while its tool ran on."""
    key = world.key("tester")
    task = await held_turn(world, key, "m1")
    await world.store.interrupt(key, "m1", epoch=None, reason="by hand")
    gate.open.set()
    assert getattr(await task, "status", None) == "cancelled"
    session = await world.session(key)
    assert session.state == {}
    assert session.events[-1].id == "m1:end"
