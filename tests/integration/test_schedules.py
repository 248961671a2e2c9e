"""Messages that come by the clock. The clock is not waited for: a time is made up for, or triggered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from temporalio.client import Client, ScheduleBackfill, ScheduleHandle, ScheduleUpdate, ScheduleUpdateInput
from temporalio.service import RPCError, RPCStatusCode

from activities.schedule_tasks import Delivered, DeliverTask, name_of, parse_name
from embedded.temporal import TemporalServer
from gateway.schedules import Scheduled
from perdure.errors import Busy, InvalidContent, InvalidMessage, SessionEnded, SessionNotFound
from perdure.testing import call, say
from perdure.types import During, SessionKey
from storage.sessions import SessionStore
from tests.integration.agents import gate
from tests.integration.harness import World, open_world, until
from tests.integration.waiting_agents import WAITING_AGENTS
from workflows.schedule import ScheduledMessage

NINE = datetime(2026, 3, 2, 9, tzinfo=UTC)
DAILY = "0 9 * * *"


@pytest.fixture(autouse=True)
def _fresh_gate() -> None:
    gate.reset()


@pytest_asyncio.fixture
async def world(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    async with open_world(temporal.address, sqlite_store, WAITING_AGENTS) as opened:
        yield opened


def handle(world: World, key: SessionKey, schedule_id: str) -> ScheduleHandle:
    return world.client.get_schedule_handle(name_of(key, schedule_id))


async def comes(world: World, key: SessionKey, schedule_id: str, when: datetime = NINE) -> str:
    """The time comes; the id of its message."""
    span = ScheduleBackfill(start_at=when - timedelta(seconds=30), end_at=when + timedelta(seconds=30))
    await handle(world, key, schedule_id).backfill(span)
    return f"{schedule_id}@{when:%Y-%m-%dT%H:%M:%SZ}"


async def answered(world: World, key: SessionKey, message_id: str) -> None:
    async def ended() -> bool:
        return await world.store.event(key, f"{message_id}:m1") is not None

    await until(ended)


async def found(world: World, key: SessionKey, count: int) -> list[Scheduled]:
    async def look() -> list[Scheduled]:
        schedules = await world.runner.schedules(key)
        return schedules if len(schedules) == count else []

    return await until(look)


async def outcome(world: World, key: SessionKey, schedule_id: str, when: datetime = NINE) -> str:
    """What came of a delivery."""
    workflow_id = f"{name_of(key, schedule_id)}-{when:%Y-%m-%dT%H:%M:%SZ}"

    async def begun() -> bool:
        try:
            await world.client.get_workflow_handle(workflow_id).describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True

    await until(begun)
    done = world.client.get_workflow_handle(workflow_id, result_type=Delivered)
    delivered: Delivered = await done.result()
    return delivered.outcome


async def test_a_message_comes_when_its_time_does(world: World) -> None:
    key = world.key("clerk")
    world.gemini.script(say("good morning"))
    schedule_id = await world.runner.schedule(key, DAILY, "Report.", schedule_id="daily")
    message_id = await comes(world, key, schedule_id)
    await answered(world, key, message_id)
    events = (await world.session(key)).events
    assert [event.id for event in events] == ["daily@2026-03-02T09:00:00Z:user", f"{message_id}:m1"]
    assert events[0].text == "Report."
    answer = await world.runner.ask(key, "Report.", message_id=message_id)
    assert answer.text == "good morning"


async def test_a_time_that_comes_twice_is_one_message(world: World) -> None:
    key = world.key("clerk")
    await world.runner.schedule(key, DAILY, "Report.", schedule_id="daily")
    message_id = await comes(world, key, "daily")
    await answered(world, key, message_id)
    # The turn may be over before the one that has delivered its message is, whose id is free only then.
    assert await outcome(world, key, "daily") == "sent"
    task = DeliverTask(session=str(key), schedule_id="daily", text="Report.", cron=DAILY)
    again: Delivered = await world.client.execute_workflow(
        ScheduledMessage.run,
        task,
        id=f"{name_of(key, 'daily')}-{NINE:%Y-%m-%dT%H:%M:%SZ}",
        task_queue=world.settings.task_queue,
    )
    assert again.message_id == message_id
    await world.runner.ask(key, "and now?", message_id="m2")
    assert [event.id for event in (await world.session(key)).events if event.author == "user"] == [
        f"{message_id}:user",
        "m2:user",
    ]


async def test_a_message_that_comes_during_a_turn_is_queued_or_joins(world: World) -> None:
    key = world.key("clerk")
    ways: dict[str, During] = {"patient": "queue", "eager": "join"}
    for name, during in ways.items():
        await world.runner.schedule(key, DAILY, name, schedule_id=name, during=during)
    world.gemini.script(call("wait_at_gate", label="m1"), say("went through"), say("next"))
    await world.runner.message(key, "m1", message_id="m1")
    await gate.held()
    sent = [await comes(world, key, name) for name in ("patient", "eager")]

    async def queued() -> bool:
        return (await world.runner.status(key)).queued == 2

    await until(queued)
    gate.open.set()
    await answered(world, key, sent[0])
    turns = {event.id: event.invocation_id for event in (await world.session(key)).events}
    assert (turns[f"{sent[0]}:user"], turns[f"{sent[1]}:user"]) == (sent[0], "m1")


async def test_schedules_are_listed_changed_and_removed(world: World) -> None:
    key = world.key("clerk")
    other = SessionKey(app=key.app, user_id=key.user_id, session_id=f"{key.session_id}/2")
    await world.runner.schedule(other, DAILY, "Other.", schedule_id="daily")
    await world.runner.schedule(key, DAILY, "Report.", schedule_id="daily")
    named = await world.runner.schedule(key, "@every 30m", "Look.")
    await world.runner.schedule(key, "0 8 * * 1-5", "Report!", schedule_id="daily", timezone="Europe/Berlin")
    by_id = {each.schedule_id: each for each in await found(world, key, 2)}
    assert set(by_id) == {"daily", named}
    daily = by_id["daily"]
    assert (daily.cron, daily.timezone, daily.text) == ("0 8 * * 1-5", "Europe/Berlin", "Report!")
    assert daily.next_times[0].astimezone(UTC).hour in (6, 7), "by the clock of Berlin"
    assert (daily.paused, daily.sent, daily.during) == (False, 0, "queue")
    await handle(world, key, "daily").pause()
    await world.runner.schedule(key, DAILY, "Report.", schedule_id="daily")
    description = await handle(world, key, "daily").describe()
    assert description.schedule.state.paused, "what somebody paused stays paused"
    assert await world.runner.unschedule(key, "daily")
    assert not await world.runner.unschedule(key, "daily")
    assert [each.schedule_id for each in await found(world, key, 1)] == [named]


@pytest.mark.parametrize("when", ["before it is read", "before it is written"])
async def test_one_that_is_removed_while_it_is_changed_is_made_anew(
    world: World, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    key = world.key("clerk")
    await world.runner.schedule(key, DAILY, "Report.", schedule_id="daily")
    await handle(world, key, "daily").pause()
    update = ScheduleHandle.update

    async def late(schedule: ScheduleHandle, updater: Any) -> None:
        async def removed(found: ScheduleUpdateInput) -> ScheduleUpdate:
            await schedule.delete()
            changed: ScheduleUpdate = updater(found)
            return changed

        if when == "before it is read":
            await schedule.delete()
        await update(schedule, updater if when == "before it is read" else removed)

    monkeypatch.setattr(ScheduleHandle, "update", late)
    await world.runner.schedule(key, DAILY, "Report!", schedule_id="daily")
    description = await handle(world, key, "daily").describe()
    assert not description.schedule.state.paused, "it was another one that somebody had paused"
    await answered(world, key, await comes(world, key, "daily"))
    assert (await world.session(key)).events[0].text == "Report!"


async def test_one_that_is_removed_each_time_is_a_typed_error(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = world.key("clerk")
    await world.runner.schedule(key, DAILY, "Report.", schedule_id="daily")
    update, create = ScheduleHandle.update, Client.create_schedule
    made: list[ScheduleHandle] = []

    async def taken(client: Client, *args: Any, **kwargs: Any) -> ScheduleHandle:
        """Somebody else makes it just before, too."""
        if made:
            await create(client, *args, **kwargs)
        made.append(await create(client, *args, **kwargs))
        return made[-1]

    async def late(schedule: ScheduleHandle, updater: Any) -> None:
        made.append(schedule)
        await schedule.delete()
        await update(schedule, updater)

    monkeypatch.setattr(Client, "create_schedule", taken)
    monkeypatch.setattr(ScheduleHandle, "update", late)
    with pytest.raises(Busy, match=r"schedule 'daily' of session .* was removed"):
        await world.runner.schedule(key, DAILY, "Report!", schedule_id="daily")
    assert len(made) == 3
    assert not await world.runner.unschedule(key, "daily")


async def test_with_a_session_its_schedules_go(world: World) -> None:
    key = world.key("clerk")
    await world.runner.schedule(key, DAILY, "Report.", schedule_id="daily")
    await found(world, key, 1)
    assert await world.runner.delete(key)
    assert not await world.runner.unschedule(key, "daily"), "it was there to be found"


async def test_a_schedule_whose_session_is_gone_removes_itself_and_makes_none(world: World) -> None:
    key = world.key("clerk")
    await world.runner.schedule(key, DAILY, "Report.", schedule_id="daily")
    await world.store.delete(key)
    await comes(world, key, "daily")
    assert await outcome(world, key, "daily") == "deleted"
    assert not await world.runner.unschedule(key, "daily")
    with pytest.raises(SessionNotFound):
        await world.session(key)
    with pytest.raises(SessionNotFound):
        await world.runner.status(key)


async def test_a_schedule_of_a_session_that_was_deleted_sends_nothing_to_one_of_the_same_name(
    world: World,
) -> None:
    """It could not be found when that was deleted."""
    key = world.key("clerk")
    await world.runner.schedule(key, DAILY, "Report.", schedule_id="daily")
    await world.store.delete(key)
    await world.store.create(key)
    await comes(world, key, "daily")
    assert await outcome(world, key, "daily") == "deleted"
    assert not await world.runner.unschedule(key, "daily")
    assert (await world.session(key)).events == []
    await world.runner.schedule(key, DAILY, "Report.", schedule_id="daily")
    await answered(world, key, await comes(world, key, "daily"))


async def test_a_late_delivery_leaves_the_schedule_of_a_session_made_anew(world: World) -> None:
    """It was due when no worker was there, who has it now that all of that is made anew."""
    key = world.key("clerk")
    old = await world.store.create(key)
    await world.store.delete(key)
    await world.runner.schedule(key, DAILY, "Report.", schedule_id="daily")
    task = DeliverTask(
        session=key.workflow_id, schedule_id="daily", text="Report.", cron=DAILY, made=old.created_at
    )
    delivered = await world.client.execute_workflow(
        ScheduledMessage.run,
        task,
        id=f"{name_of(key, 'daily')}-2026-03-02T09:00:00Z",
        task_queue=world.settings.task_queue,
    )
    assert delivered.outcome == "deleted"
    assert await world.runner.unschedule(key, "daily"), "it is there"


async def test_a_session_that_is_ended_gets_none_until_it_is_opened_again(world: World) -> None:
    key = world.key("clerk")
    await world.runner.schedule(key, DAILY, "Report.", schedule_id="daily")
    await world.runner.end(key)
    await comes(world, key, "daily")
    assert await outcome(world, key, "daily") == "ended"
    assert (await world.session(key)).events == []
    with pytest.raises(SessionEnded):
        await world.runner.schedule(key, DAILY, "Report.")
    await world.runner.ask(key, "back again", message_id="m1", reopen=True)
    await answered(world, key, await comes(world, key, "daily", NINE + timedelta(days=1)))


async def test_a_rewind_and_a_cancel_leave_schedules_alone(world: World) -> None:
    key = world.key("clerk")
    await world.runner.ask(key, "hello", message_id="m1")
    await world.runner.schedule(key, DAILY, "Report.", schedule_id="daily")
    first = await comes(world, key, "daily")
    await answered(world, key, first)
    await world.runner.rewind(key, "m1")
    await world.runner.cancel(key)
    second = await comes(world, key, "daily", NINE + timedelta(days=1))
    await answered(world, key, second)
    users = [event.id for event in (await world.session(key)).events if event.author == "user"]
    assert users == [f"{second}:user"]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"cron": "every morning"}, InvalidMessage),
        ({"timezone": "Europe/Atlantis"}, InvalidMessage),
        ({"text": " "}, InvalidMessage),
        ({"text": "x" * 40_000}, InvalidMessage),
        ({"text": "a\x00b"}, InvalidContent),
        ({"schedule_id": "x" * 65}, InvalidMessage),
        ({"schedule_id": "a\nb"}, InvalidMessage),
        ({"schedule_id": "a/b"}, InvalidMessage),
        ({"during": "shout"}, InvalidMessage),
    ],
)
async def test_what_makes_no_sense_is_refused(world: World, wrong: dict[str, str], error: type) -> None:
    key = world.key("clerk")
    given = {"cron": DAILY, "text": "Report.", **wrong}
    with pytest.raises(error):
        await world.runner.schedule(key, **given)  # type: ignore[arg-type]  # is what is refused


@pytest.mark.parametrize("schedule_id", ["daily", "a/b", "ä ö", "-", "@"])
def test_a_schedules_name_says_whose_it_is(schedule_id: str) -> None:
    key = SessionKey(app="clerk", user_id="ada/b", session_id="x y")
    assert parse_name(name_of(key, schedule_id)) == (key, schedule_id)
