"""A cancel that comes when the answer is in the log, and the workflow does not know of it yet."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure.types import Event, SessionKey
from tests.integration.harness import World, until


@pytest.mark.parametrize("step", [1, 2])
async def test_s63_a_cancel_after_the_answer_was_committed_is_told_what_the_log_says(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    world = sqlite_world
    key = world.key()
    append, committed, go_on = world.store.append, asyncio.Event(), asyncio.Event()

    async def held(key: SessionKey, event: Event, **options: Any) -> Event:
        stored = await append(key, event, **options)
        if event.id == f"m1:m{step}":
            committed.set()
            await go_on.wait()
        return stored

    monkeypatch.setattr(world.store, "append", held)
    text = "hello" if step == 1 else "Increment 'visits'"
    asked = asyncio.create_task(world.runner.ask(key, text, message_id="m1"))
    await asyncio.wait_for(committed.wait(), 30)
    await world.runner.cancel(key, "m1")

    async def cancelled() -> bool:
        history = await world.handle(key).fetch_history()
        return any(
            event.activity_task_completed_event_attributes.scheduled_event_id
            and history.events[
                event.activity_task_completed_event_attributes.scheduled_event_id - 1
            ].activity_task_scheduled_event_attributes.activity_type.name
            == "interrupt"
            for event in history.events
        )

    await until(cancelled)
    go_on.set()
    first = await asked
    again = await world.runner.ask(key, text, message_id="m1")
    assert (first.status, first.text) == (again.status, again.text) == ("answered", again.text)
    answer = await world.runner.ask(key, "and now?", message_id="m2")
    assert answer.status == "answered"
    assert [event.id for event in await world.log(key)][-2:] == ["m2:user", "m2:m1"]
