"""Bad input is answered, not suffered: each case leaves the session usable."""

from __future__ import annotations

import asyncio
import logging
import uuid
from functools import partial

import pytest
from temporalio.client import WorkflowFailureError, WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from activities.tool_artifacts import CallArtifacts
from examples import counter
from perdure import Agent, Limits
from perdure.errors import (
    Busy,
    InvalidContent,
    InvalidMessage,
    InvocationNotFound,
    InvocationRewound,
    SessionEnded,
    SessionNotFound,
    UnknownAgent,
)
from perdure.testing import call, say
from perdure.types import SessionKey
from storage.artifacts import DELETED
from storage.sessions import SessionStore
from tests.integration.agents import AGENTS, gate
from tests.integration.harness import World, until

IMPATIENT = Agent(name="impatient", instruction="Listen.", limits=Limits(model_timeout=1, model_attempts=3))


@pytest.fixture
def agents() -> list[Agent]:
    return [counter.agent, *AGENTS, IMPATIENT]


async def usable(world: World, key: SessionKey) -> None:
    """The session answers the next message."""
    world.gemini.clear()
    # An impatient agent asks again where this process has stood still for a second.
    world.gemini.script(*[say("still here")] * 3)
    answer = await world.runner.ask(key, "are you there?")
    assert (answer.status, answer.text) == ("answered", "still here")
    world.gemini.clear()


def responses(world: World) -> list[object]:
    """What the model was told of its calls, in the order of the calls."""
    return [
        part["functionResponse"]["response"]
        for content in world.gemini.model_calls()[-1].contents
        for part in content["parts"]
        if "functionResponse" in part
    ]


async def test_an_unknown_agent(world: World) -> None:
    key = world.key("nobody")
    with pytest.raises(UnknownAgent, match="nobody"):
        await world.runner.ask(key, "hello")
    with pytest.raises(SessionNotFound):
        await world.store.get(key)

    async def closed() -> bool:
        return (await world.handle(key).describe()).close_time is not None

    await until(closed)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", InvalidMessage),
        (" \n", InvalidMessage),
        ("x" * 21_000_000, InvalidMessage),
        ("nul \x00", InvalidContent),
        ("half \ud800", InvalidContent),
    ],
    ids=["empty", "blank", "21 MB", "NUL", "surrogate"],
)
async def test_a_message_that_cannot_be_taken(sqlite_world: World, text: str, error: type[Exception]) -> None:
    world = sqlite_world
    key = world.key("tester")
    with pytest.raises(error):
        await world.runner.ask(key, text)
    await usable(world, key)


async def test_names_that_temporal_does_not_take(sqlite_world: World) -> None:
    key = SessionKey(app="tester", user_id="ü" * 120, session_id="ü" * 120)
    with pytest.raises(InvalidMessage, match="percent-encoded"):
        await sqlite_world.runner.ask(key, "hello")
    with pytest.raises(InvalidMessage, match="percent-encoded"):
        await sqlite_world.runner.message(key, "hello")


async def test_the_validator_refuses_the_same_from_a_bare_temporal_client(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("tester")
    await usable(world, key)

    async def refused(payload: object) -> None:
        with pytest.raises(Exception, match="update"):
            await world.handle(key).execute_update("ask", payload)

    for payload in ({"text": ""}, {"text": "y" * 300_000}, {"text": "a", "content": {"parts": [{}]}}):
        assert await world.costs_nothing(key, partial(refused, payload)), "a refusal costs nothing"
    await usable(world, key)


async def test_a_signal_that_cannot_be_taken_is_noted_and_nothing_else(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("tester")
    await usable(world, key)
    await world.handle(key).signal("message", {"text": ""})
    await world.handle(key).signal("message", "not an object at all")
    await world.handle(key).signal("rewind", {"before": "no-such-invocation"})

    async def noted() -> bool:
        error = (await world.runner.status(key)).last_error
        return error is not None and error.type == "InvocationNotFound"

    await until(noted)
    await usable(world, key)


async def test_s27_an_unknown_or_rewound_invocation(world: World) -> None:
    key = world.key("tester")
    await usable(world, key)
    answer = await world.runner.ask(key, "hello")
    with pytest.raises(InvocationNotFound):
        await world.runner.rewind(key, "never-was")
    await world.runner.rewind(key, answer.invocation_id)
    head = (await world.session(key)).head
    with pytest.raises(InvocationRewound):
        await world.runner.rewind(key, answer.invocation_id)
    assert (await world.session(key)).head == head, "nothing was written"
    with pytest.raises(SessionNotFound):
        await world.runner.rewind(world.key("tester"), "x")
    await usable(world, key)


async def test_s18_a_tool_that_raises_keeps_its_siblings(world: World) -> None:
    key = world.key("tester")
    world.gemini.script([call("add", name="n"), call("explode", reason="boom")], say("sorry"))
    answer = await world.runner.ask(key, "go")
    assert answer.text == "sorry"
    assert responses(world) == [{"result": 1}, {"error": "RuntimeError: boom"}]
    assert (await world.session(key)).state == {"n": 1}, "its sibling's state is kept"
    await usable(world, key)


async def test_calls_that_make_no_sense(world: World) -> None:
    key = world.key("tester")
    world.gemini.script(
        [
            call("no_such_tool"),
            call("add"),
            call("add", name=["a", "list"]),
            call("big", size=10, colour="red"),
            call("not_json"),
            call("slow"),
        ],
        say("sorry"),
    )
    assert (await world.runner.ask(key, "go")).text == "sorry"
    told = [str(response) for response in responses(world)]
    assert "no tool named 'no_such_tool'" in told[0]
    assert "name" in told[1]
    assert "name" in told[2]
    assert "colour" in told[3]
    assert "JSON" in told[4]
    assert "0.3 seconds" in told[5]
    assert (await world.session(key)).state == {}
    await usable(world, key)


async def test_an_artifact_name_that_leaves_its_folder(world: World) -> None:
    key = world.key("tester")
    names = ["../up.txt", "/etc/passwd", "a/../../b", ""]
    world.gemini.script([call("save", name=name, text="x") for name in names], say("sorry"))
    assert (await world.runner.ask(key, "go")).text == "sorry"
    assert len(responses(world)) == 4
    assert all("error" in dict(response) for response in responses(world))  # type: ignore[call-overload]  # JSON
    assert await world.store.list_artifacts(key) == []
    await usable(world, key)


async def test_a_tool_cannot_delete_a_file_by_a_type(sqlite_store: SessionStore) -> None:
    key = SessionKey(app="counter", user_id="ada", session_id=uuid.uuid4().hex)
    files = CallArtifacts(sqlite_store, key, "m1", "m1:t1.0")
    with pytest.raises(InvalidContent, match="reserved"):
        await files.save("notes.txt", b"", DELETED)


async def test_a_tool_that_is_retried(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("tester")
    world.gemini.script(call("flaky", label=key.session_id), say("done"))
    await world.runner.ask(key, "go")
    assert responses(world) == [{"result": "worked"}]


async def test_a_model_that_never_answers(sqlite_world: World, caplog: pytest.LogCaptureFixture) -> None:
    world = sqlite_world
    key = world.key("impatient")
    world.gemini.hang(times=3)
    with caplog.at_level(logging.WARNING, "perdure.activities"):
        answer = await world.runner.ask(key, "hello?")
    assert answer.status == "failed"
    assert answer.failure is not None
    assert answer.failure.type == "ModelUnavailable"
    told = [getattr(record, "action", "") for record in caplog.records]
    tries = [action for action in told if action in ("model.retry", "model.failed")]
    assert tries == ["model.retry", "model.retry", "model.failed"], "as often as the agent's limit says"
    assert len(world.gemini.model_calls()) <= 3, "a try whose second is over may not have got there"
    assert await world.kinds(key) == ["user", "end"]
    assert (await world.runner.status(key)).status == "error"
    await usable(world, key)
    assert (await world.runner.status(key)).status == "open"


@pytest.mark.parametrize("fault", ["block", "malformed_call", "fail400"])
async def test_an_answer_that_no_retry_would_mend(world: World, fault: str) -> None:
    key = world.key("tester")
    if fault == "fail400":
        world.gemini.fail(400, "bad request")
    else:
        getattr(world.gemini, fault)()
    answer = await world.runner.ask(key, "hello?")
    assert answer.status == "failed"
    assert answer.failure is not None
    assert answer.failure.type == "ModelRefused"
    assert len(world.gemini.model_calls()) == 1, "it is not paid twice"
    await usable(world, key)


async def test_what_a_retry_mends(world: World) -> None:
    key = world.key("tester")
    world.gemini.fail(429, retry_after=0.2)
    world.gemini.cut()
    world.gemini.script(say("here you are, in pieces"), say("here you are, in pieces"))
    answer = await world.runner.ask(key, "hello?")
    assert answer.text == "here you are, in pieces"
    assert await world.kinds(key) == ["user", "model"]


async def test_a_turn_that_never_ends_meets_its_limit(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("tester")
    world.gemini.script(*[call("add", name="n") for _ in range(6)])
    answer = await world.runner.ask(key, "loop")
    assert answer.status == "failed"
    assert answer.failure is not None
    assert "limit of 6" in answer.failure.message
    await usable(world, key)


async def test_an_instruction_that_names_a_missing_key(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("needy")
    answer = await world.runner.ask(key, "hello")
    assert answer.status == "failed"
    assert answer.failure is not None
    assert "name" in answer.failure.message
    await world.store.update(key, state={"name": "Ada"}, request_id="mend")
    await usable(world, key)


async def test_a_full_inbox_refuses_and_loses_nothing(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("tester")
    gate.reset()
    world.gemini.script(call("wait_at_gate", label="held"), say("first"))
    held = asyncio.create_task(world.runner.ask(key, "hold"))
    await gate.held()
    queued = [asyncio.create_task(world.runner.ask(key, f"queued {n}")) for n in range(8)]

    async def full() -> bool:
        return (await world.runner.status(key)).queued == 8

    await until(full)
    with pytest.raises(Busy):
        await world.runner.ask(key, "one too many")
    gate.open.set()
    answers = await asyncio.gather(held, *queued)
    assert [answer.status for answer in answers] == ["answered"] * 9
    texts = [event.text for event in (await world.session(key)).events if event.author == "user"]
    assert sorted(texts) == ["hold", *[f"queued {n}" for n in range(8)]]


async def test_s51_an_ended_session(world: World) -> None:
    key = world.key("tester")
    await usable(world, key)
    final = await world.runner.end(key)
    assert final.ended_at is not None
    assert (await world.runner.end(key)).ended_at == final.ended_at
    with pytest.raises(SessionEnded):
        await world.runner.ask(key, "anyone?")
    world.gemini.script(say("back again"))
    answer = await world.runner.ask(key, "wake up", reopen=True)
    assert answer.text == "back again"
    await usable(world, key)
    with pytest.raises(SessionNotFound):
        await world.runner.end(world.key("tester"))


@pytest.mark.parametrize("name", ["message", "rewind", "cancel", "end"])
async def test_a_signal_without_a_payload_or_of_the_wrong_shape(sqlite_world: World, name: str) -> None:
    world = sqlite_world
    key = world.key("tester")
    await usable(world, key)
    handle = world.handle(key)
    if name in ("message", "rewind"):
        await handle.signal(name)
        await handle.signal(name, args=[None])
    await handle.signal(name, args=["not an object"])
    await handle.signal(name, args=[{"text": 7, "before": 7, "invocation_id": 7, "request_id": 7}])

    async def noted() -> bool:
        error = (await world.runner.status(key)).last_error
        return error is not None and error.type == "InvalidMessage"

    await until(noted)
    await usable(world, key)


@pytest.mark.parametrize("name", ["ask", "rewind", "end", "save_artifact"])
async def test_an_update_without_a_payload_or_of_the_wrong_shape(sqlite_world: World, name: str) -> None:
    world = sqlite_world
    key = world.key("tester")
    await usable(world, key)
    payloads: list[list[object]] = [["not an object"], [{"text": 7, "before": 7, "request_id": 7}]]
    if name != "end":
        payloads += [[], [None], [{}]]
    for payload in payloads:
        with pytest.raises(WorkflowUpdateFailedError) as caught:
            await world.handle(key).execute_update(name, args=payload)
        assert isinstance(caught.value.cause, ApplicationError)
        assert caught.value.cause.type == "InvalidMessage", payload
    await usable(world, key)


async def test_a_workflow_id_that_names_no_session(sqlite_world: World) -> None:
    world = sqlite_world
    handle = await world.client.start_workflow(
        "AgentSession",
        id=f"misnamed-{world.key().session_id}",
        task_queue=world.settings.task_queue,
        start_signal="message",
        start_signal_args=[{"text": "hello"}],
    )
    with pytest.raises(WorkflowFailureError) as caught:
        await handle.result()
    assert isinstance(caught.value.cause, ApplicationError)
    assert caught.value.cause.type == "InvalidMessage"
    assert "app/user/session" in caught.value.cause.message


async def test_the_status_of_a_session_that_no_agent_serves(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("nobody")
    with pytest.raises(UnknownAgent):
        await world.runner.ask(key, "hello")

    async def status() -> object:
        found = {
            pair.key.name: pair.value for pair in (await world.handle(key).describe()).typed_search_attributes
        }
        return found.get("PerdureStatus") == "error"

    await until(status)


async def test_s15_temp_keys_are_seen_by_the_later_calls_of_the_turn_and_never_stored(world: World) -> None:
    key = world.key("tester")
    world.gemini.script(
        [call("add", name="temp:n"), call("add", name="temp_n")],
        call("add", name="temp:n"),
        say("done"),
        call("add", name="temp:n"),
        say("done"),
    )
    await world.runner.ask(key, "go")
    assert responses(world) == [{"result": 1}, {"result": 1}, {"result": 2}]
    await world.runner.ask(key, "again")
    assert responses(world)[-1] == {"result": 1}, "another turn, another temp"
    assert (await world.session(key)).state == {}
    assert all(not event.state_delta for event in await world.log(key))


async def test_a_message_under_the_id_of_an_end_that_is_queued(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("tester")
    gate.reset()
    world.gemini.script(call("wait_at_gate", label="held"), say("first"))
    held = asyncio.create_task(world.runner.ask(key, "hold"))
    await gate.held()
    await world.handle(key).signal("end", {"request_id": "x"})
    same = asyncio.create_task(world.runner.ask(key, "hello", message_id="x"))

    async def both_taken() -> bool:
        events = (await world.handle(key).fetch_history()).events
        taken = [e for e in events if e.HasField("workflow_execution_update_accepted_event_attributes")]
        return len(taken) >= 2

    await until(both_taken)
    gate.open.set()
    with pytest.raises(InvalidMessage, match="x is the id of an end"):
        await same
    assert (await held).text == "first"
