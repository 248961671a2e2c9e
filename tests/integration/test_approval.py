"""A call that a person must approve of: the turn waits for days and holds nothing."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest
from temporalio.client import WorkflowUpdateFailedError

from activities.failures import perdure_error
from perdure import Agent
from perdure.errors import AlreadySettled, CallNotFound, InvalidMessage, SessionNotFound
from perdure.testing import call, say
from perdure.types import SessionKey
from tests.integration.agents import gate
from tests.integration.harness import World, until
from tests.integration.waiting_agents import WAITING_AGENTS
from tests.integration.waiting_turns import TRANSFER, made, parked, response, response_event


@pytest.fixture
def agents() -> list[Agent]:
    return WAITING_AGENTS


async def test_a_yes_runs_the_call_once(world: World) -> None:
    key = await parked(world, TRANSFER)
    assert made(key) == [], "nothing runs before a person has said yes"
    assert len(world.gemini.model_calls()) == 1
    [waits] = await world.runner.waiting(key)
    assert (waits.call_id, waits.tool, waits.kind) == ("m1:t1.0", "transfer", "approval")
    assert waits.arguments == {"to": "ann", "amount": 5}
    settled = await world.runner.approve(key, waits.call_id, by="boss")
    assert settled.decision == "yes"
    answer = await world.runner.ask(key, "go", message_id="m1")
    assert (answer.status, answer.text) == ("answered", "done")
    assert made(key) == [("ann", 5)]
    assert (await world.session(key)).state == {"paid": 5}
    event = await response_event(world, key, "m1:t1.0")
    assert event.meta["settled"] == {"decision": "yes", "by": "boss"}
    assert [e.id for e in (await world.session(key)).events] == [
        "m1:user",
        "m1:m1",
        "m1:a1.0",
        "m1:t1.0",
        "m1:m2",
    ]


async def test_a_no_tells_the_model_why(world: World) -> None:
    key = await parked(world, TRANSFER)
    await world.runner.decline(key, "m1:t1.0", reason="too much", by="boss")
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    assert made(key) == []
    assert await response(world, key) == {"error": "A person refused this call: too much"}
    prompt = world.gemini.model_calls()[-1]
    assert "too much" in str(prompt.contents[-1])


async def test_a_yes_with_other_arguments(world: World) -> None:
    key = await parked(world, TRANSFER)
    await world.runner.approve(key, "m1:t1.0", arguments={"to": "bob", "amount": 2})
    await world.runner.ask(key, "go", message_id="m1")
    assert made(key) == [("bob", 2)]
    assert await response(world, key) == {
        "called_with": {"to": "bob", "amount": 2},
        "result": "paid 2 to bob",
    }


async def test_other_arguments_that_are_large_stay_out_of_temporal(sqlite_world: World) -> None:
    world = sqlite_world
    key = await parked(world, TRANSFER)
    name = "SECRET" + "x" * 40_000
    await world.runner.approve(key, "m1:t1.0", arguments={"to": name, "amount": 2})
    await world.runner.ask(key, "go", message_id="m1")
    assert made(key) == [(name, 2)]
    history = (await world.handle(key).fetch_history()).to_json()
    assert "SECRET" not in history
    assert len(history) < 100_000


async def test_other_arguments_that_do_not_fit_are_the_models_to_see(sqlite_world: World) -> None:
    world = sqlite_world
    key = await parked(world, TRANSFER)
    await world.runner.approve(key, "m1:t1.0", arguments={"nonsense": 1})
    assert (await world.runner.ask(key, "go", message_id="m1")).status == "answered"
    assert made(key) == []
    told = await response(world, key)
    assert told["called_with"] == {"nonsense": 1}, "the model's own would have fitted"
    assert "nonsense" in told["error"]


async def test_a_predicate_asks_for_large_amounts_only(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("clerk")
    world.gemini.script(call("pay", to="ann", amount=100), say("paid"))
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "paid"
    world.gemini.script(call("pay", to="bob"), say("paid"))
    assert (await world.runner.ask(key, "go", message_id="m2")).status == "waiting", "the default is large"
    await world.runner.approve(key, "m2:t1.0")
    await world.runner.ask(key, "go", message_id="m2")
    assert made(key) == [("ann", 100), ("bob", 1_000)]
    world.gemini.script(call("guarded", note="x"), call("guarded", nonsense=1), say("done"))
    assert (await world.runner.ask(key, "go", message_id="m3")).status == "waiting", "one that raises asks"
    await world.runner.approve(key, "m3:t1.0")
    answer = await world.runner.ask(key, "go", message_id="m3")
    assert answer.status == "answered", "what cannot run is no person's to decide"


async def test_two_approvals_of_one_step_in_either_order(world: World) -> None:
    for order in ((0, 1), (1, 0)):
        key = await parked(world, TRANSFER, call("transfer", to="bob", amount=7))
        await world.runner.approve(key, f"m1:t1.{order[0]}")

        async def one_left(key: SessionKey = key) -> bool:
            status = await world.runner.status(key)
            return len(status.waiting) == 1 and status.status == "waiting"

        await until(one_left)
        again = await world.runner.ask(key, "go", message_id="m1")
        assert (again.status, len(again.waiting)) == ("waiting", 1)
        await world.runner.decline(key, f"m1:t1.{order[1]}")
        assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
        assert made(key) == [("ann", 5) if order[0] == 0 else ("bob", 7)]
        prompt = world.gemini.model_calls()[-1]
        parts = prompt.contents[-1]["parts"]
        assert ["error" in part["functionResponse"]["response"] for part in parts] == [
            order[0] != 0,
            order[0] == 0,
        ]
        world.gemini.clear()


async def test_the_other_calls_of_the_step_run_meanwhile(sqlite_world: World) -> None:
    world = sqlite_world
    gate.reset()
    key = world.key("clerk")
    world.gemini.script(
        [TRANSFER, call("wait_at_gate", label="beside"), call("pay", to="eve", amount=1)], say("done")
    )
    asked = asyncio.create_task(world.runner.ask(key, "go", message_id="m1"))
    await gate.held()
    status = await world.runner.status(key)
    assert (status.status, len(status.waiting)) == ("open", 1), "a turn with a tool that runs is not parked"
    assert not asked.done()
    gate.open.set()
    assert (await asked).status == "waiting"
    assert made(key) == [("eve", 1)], "it does not wait for those before it that wait"


@pytest.mark.parametrize(
    ("tool", "status", "told"),
    [
        ("refused_in_time", "answered", "Nobody approved of this call within 0.3 seconds; it was not run."),
        ("approved_in_time", "answered", None),
        ("failed_in_time", "failed", None),
    ],
)
async def test_what_becomes_of_a_call_nobody_decides_about(
    sqlite_world: World, tool: str, status: str, told: str | None
) -> None:
    world = sqlite_world
    key = await parked(world, call(tool, note="x"))

    async def over() -> bool:
        return not (await world.runner.status(key)).waiting

    await until(over)
    answer = await world.runner.ask(key, "go", message_id="m1")
    assert answer.status == status
    if status == "failed":
        assert answer.failure is not None
        assert answer.failure.type == "LimitExceeded"
        assert "m1:t1.0" in answer.failure.message
        assert await world.store.event(key, "m1:t1.0") is None
    else:
        assert await response(world, key) == ({"error": told} if told else {"result": "x"})
    with pytest.raises(AlreadySettled):
        await world.runner.approve(key, "m1:t1.0")


async def test_the_agents_limit_counts_where_the_tool_sets_none(sqlite_world: World) -> None:
    world = sqlite_world
    key = await parked(world, TRANSFER, app="strict")

    async def answered() -> bool:
        return (await world.kinds(key))[-2:] == ["tool", "model"]

    await until(answered)
    assert made(key) == []


async def test_a_late_or_wrong_decision_is_refused_by_type(world: World) -> None:
    key = await parked(world, TRANSFER)
    with pytest.raises(CallNotFound, match=r"m1:t9\.0"):
        await world.runner.approve(key, "m1:t9.0")
    with pytest.raises(CallNotFound, match="approval of transfer"):
        await world.runner.tool_result(key, "m1:t1.0", {"paid": True})
    with pytest.raises(WorkflowUpdateFailedError) as failed:
        await world.handle(key).execute_update("approve", {"call_id": "m1:t1.0"}, id="u1")
    assert isinstance(perdure_error(failed.value.__cause__), InvalidMessage)
    await world.runner.approve(key, "m1:t1.0")
    with pytest.raises(AlreadySettled, match="'yes'"):
        await world.runner.decline(key, "m1:t1.0")
    await world.runner.ask(key, "go", message_id="m1")
    with pytest.raises(AlreadySettled):
        await world.runner.approve(key, "m1:t1.0")
    with pytest.raises(SessionNotFound):
        await world.runner.approve(world.key("clerk"), "m1:t1.0")
    assert made(key) == [("ann", 5)]


async def test_signals_of_any_service_decide(sqlite_world: World) -> None:
    world = sqlite_world
    key = await parked(world, TRANSFER)
    await world.handle(key).signal("approve", "not an object")
    await world.handle(key).signal("approve", {"call_id": "m1:t1.0", "decision": "maybe"})
    await world.handle(key).signal("approve", {"call_id": "m1:t1.1", "decision": "yes"})
    status = await world.runner.status(key)
    assert status.last_error is not None
    assert status.last_error.type == "CallNotFound"
    await world.handle(key).signal("approve", {"call_id": "m1:t1.0", "decision": "yes", "by": "service"})
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    assert made(key) == [("ann", 5)]


async def test_a_decision_that_comes_before_the_call_is_known_to_wait_counts(sqlite_world: World) -> None:
    world = sqlite_world
    gate.reset()
    key = world.key("clerk")
    world.gemini.script(call("submit", scene="sea"), say("done"))
    asked = asyncio.create_task(world.runner.ask(key, "go", message_id="m1"))
    await gate.held()
    handle = world.handle(key)
    await handle.signal("tool_progress", {"call_id": "m1:t1.0", "percent": 1})
    await handle.signal("tool_result", {"call_id": "m1:t1.0", "result": "fast"})
    late = asyncio.create_task(world.runner.tool_result(key, "m1:t1.0", "later"))
    wrong = asyncio.create_task(world.runner.approve(key, "m1:t1.0"))
    await until(partial(_were_accepted, world, key, 2))
    gate.open.set()
    with pytest.raises(AlreadySettled):
        await late
    with pytest.raises((CallNotFound, AlreadySettled)):
        await wrong
    assert (await asked).status in ("waiting", "answered")
    assert (await world.runner.ask(key, "go", message_id="m1")).text == "done"
    assert await response(world, key) == {"result": "fast"}
    assert (await world.runner.status(key)).last_error is None


async def test_a_decision_for_a_call_that_does_not_come_to_wait_is_refused(sqlite_world: World) -> None:
    world = sqlite_world
    gate.reset()
    key = world.key("clerk")
    world.gemini.script(call("wait_at_gate", label="x"), say("done"))
    asked = asyncio.create_task(world.runner.ask(key, "go", message_id="m1"))
    await gate.held()
    early = asyncio.create_task(world.runner.tool_result(key, "m1:t1.0", "early"))
    await until(partial(_were_accepted, world, key, 1))
    gate.open.set()
    with pytest.raises(CallNotFound):
        await early
    assert (await asked).text == "done"


async def _were_accepted(world: World, key: SessionKey, least: int) -> bool:
    """Whether, besides the message, so many updates were accepted."""
    events = (await world.handle(key).fetch_history()).events
    accepted = [e for e in events if e.HasField("workflow_execution_update_accepted_event_attributes")]
    return len(accepted) > least


async def test_of_two_persons_who_decide_at_once_one_is_heard(world: World) -> None:
    for _ in range(3):
        key = await parked(world, TRANSFER)
        first, second = await asyncio.gather(
            world.runner.approve(key, "m1:t1.0", by="ann"),
            world.runner.decline(key, "m1:t1.0", by="bob"),
            return_exceptions=True,
        )
        assert isinstance(first, AlreadySettled) != isinstance(second, AlreadySettled)
        assert (await world.runner.ask(key, "go", message_id="m1")).status == "answered"
        decided = (await response_event(world, key, "m1:t1.0")).meta["settled"]
        yes = not isinstance(first, AlreadySettled)
        assert decided == ({"decision": "yes", "by": "ann"} if yes else {"decision": "no", "by": "bob"})
        assert made(key) == ([("ann", 5)] if yes else [])


async def test_what_is_too_long_is_refused_and_decides_nothing(sqlite_world: World) -> None:
    world = sqlite_world
    key = await parked(world, TRANSFER)
    with pytest.raises(InvalidMessage, match="4000 characters"):
        await world.runner.decline(key, "m1:t1.0", reason="x" * 100_000)
    with pytest.raises(InvalidMessage, match="4000 characters"):
        await world.runner.approve(key, "m1:t1.0", by="x" * 100_000)
    no = {"call_id": "m1:t1.0", "decision": "no", "reason": "x" * 100_000}
    await world.handle(key).signal("approve", no)

    async def noted() -> bool:
        return (await world.runner.status(key)).last_error is not None

    assert await until(noted)
    error = (await world.runner.status(key)).last_error
    assert error is not None
    assert (error.type, len(error.message) < 500) == ("InvalidMessage", True)
    assert [each.call_id for each in await world.runner.waiting(key)] == ["m1:t1.0"]


async def test_one_request_id_for_two_calls_decides_about_both(sqlite_world: World) -> None:
    world = sqlite_world
    key = await parked(world, TRANSFER, call("transfer", to="bob", amount=1))
    for _ in range(2):
        for call_id in ("m1:t1.0", "m1:t1.1"):
            assert (await world.runner.approve(key, call_id, request_id="r1")).call_id == call_id
    assert (await world.runner.ask(key, "go", message_id="m1")).status == "answered"
    assert sorted(made(key)) == [("ann", 5), ("bob", 1)]
