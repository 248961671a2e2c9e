"""A cancel that comes when the answer is in the log, and the workflow does not know of it yet."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from perdure.types import Event, SessionKey
from tests.integration.harness import PATIENCE, World, until


@pytest.mark.parametrize("last", ["m1", "m2", "end"])
async def test_s63_a_cancel_after_the_turn_had_its_end_is_told_what_the_log_says(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    world = sqlite_world
    key = world.key()
    append, committed, go_on = world.store.append, asyncio.Event(), asyncio.Event()

    async def held(key: SessionKey, event: Event, **options: Any) -> Event:
        stored = await append(key, event, **options)
        if event.id == f"m1:{last}":
            committed.set()
            await go_on.wait()
        return stored

    monkeypatch.setattr(world.store, "append", held)
    text = "Increment 'visits'" if last == "m2" else "hello"
    if last == "end":
        world.gemini.fail(400)
    asked = asyncio.create_task(world.runner.ask(key, text, message_id="m1"))
    await asyncio.wait_for(committed.wait(), PATIENCE)
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
    assert first.status == ("failed" if last == "end" else "answered")
    assert (first.status, first.text, first.failure) == (again.status, again.text, again.failure)
    answer = await world.runner.ask(key, "and now?", message_id="m2")
    assert answer.status == "answered"
    assert [event.id for event in await world.log(key)][-2:] == ["m2:user", "m2:m1"]


async def test_s63_a_step_that_is_tried_again_after_its_turn_had_its_end_tells_that(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker died when the end was in the log, and then came a cancel, which moves the epoch."""
    world, key = sqlite_world, sqlite_world.key()
    append, lost = world.store.append, asyncio.Event()

    async def dies(key: SessionKey, event: Event, **options: Any) -> Event:
        stored = await append(key, event, **options)
        if event.id == "m1:t1.0":
            world.gemini.fail(400)
        if event.id == "m1:end" and not lost.is_set():
            await world.store.interrupt(key, "m1", epoch=options["epoch"], reason="cancelled")
            lost.set()
            raise KeyError("the worker died just after the commit")
        return stored

    monkeypatch.setattr(world.store, "append", dies)
    answer = await world.runner.ask(key, "Increment 'visits'", message_id="m1")
    assert lost.is_set()
    assert answer.failure is not None
    assert answer.failure.type == "ModelRefused"
