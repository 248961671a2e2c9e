"""The model says 429 or 500, hangs, is cut off, talks nonsense: turns go on after it, many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest_asyncio

from embedded.temporal import TemporalServer
from perdure.testing import StandIn, call
from storage.sessions import SessionStore
from tests.integration.harness import World, open_world, until
from tests.integration.outages import AGENTS, APP, HASTY, PATIENCE, Talk

HTML = "<html><body><h1>502 Bad Gateway</h1></body></html>"

FAULTS: dict[str, Callable[[StandIn, str], None]] = {
    "429": lambda gemini, mark: gemini.fail(429, retry_after=0.1, contains=mark),
    "429 with a RetryInfo": lambda gemini, mark: gemini.fail(429, retry_delay=0.1, contains=mark),
    "500": lambda gemini, mark: gemini.fail(500, contains=mark),
    "503": lambda gemini, mark: gemini.fail(503, contains=mark),
    "hang": lambda gemini, mark: gemini.hang(contains=mark),
    "hang after the headers": lambda gemini, mark: gemini.hang(0, contains=mark),
    "cut": lambda gemini, mark: gemini.cut(contains=mark),
    "cut at once": lambda gemini, mark: gemini.cut(0, contains=mark),
    "half a JSON": lambda gemini, mark: gemini.garble(contains=mark),
    "HTML": lambda gemini, mark: gemini.garble(HTML, contains=mark),
    "nothing at all": lambda gemini, mark: gemini.garble("", contains=mark),
    "an empty answer": lambda gemini, mark: gemini.empty(contains=mark),
}

SPENT = ("hang after the headers", "cut", "cut at once")
"""Faults that use up the answer that was scripted."""


@pytest_asyncio.fixture
async def world(temporal: TemporalServer, store: SessionStore) -> AsyncIterator[World]:
    async with open_world(temporal.address, store, AGENTS) as world:
        yield world


async def test_each_fault_once_in_a_session_of_its_own(world: World) -> None:
    """All at once, and beside them sessions that meet none."""
    talks = {name: Talk(world, app=HASTY if "hang" in name else APP) for name in FAULTS}
    calm = [Talk(world) for _ in range(3)]
    for name, talk in talks.items():
        FAULTS[name](world.gemini, talk.mark)
        if name in SPENT and talk.key.app == APP:
            world.gemini.script(call("work", mark=talk.mark), contains=talk.mark)
    answers = await asyncio.gather(
        *(
            talk.work("m1") if talk.key.app == HASTY else talk.ask("m1", "work")
            for talk in (*talks.values(), *calm)
        )
    )
    assert {answer.status for answer in answers} == {"answered"}
    for name, talk in talks.items():
        asked = len(talk.asked())
        assert asked == 3 or (asked > 3 and talk.key.app == HASTY), name
        await talk.exact("m1:1", models=asked, tries=1, n=1)
    for talk in calm:
        await talk.exact("m1:1", models=2, tries=1, n=1)


async def test_a_fault_that_stays_ends_the_turn_and_not_the_session(world: World) -> None:
    """After ``limits.model_attempts`` tries, three here; what had been committed stays."""
    talks = {name: Talk(world) for name in ("500", "cut", "HTML", "an empty answer")}
    turns = []
    for name, talk in talks.items():
        turns.append(talk.ask("m1", "hold"))
        await talk.held()
        for _ in range(3):
            FAULTS[name](world.gemini, talk.mark)
        talk.let_go()
    for talk, answer in zip(talks.values(), await asyncio.gather(*turns), strict=True):
        assert answer.status == "failed"
        assert answer.failure is not None
        assert answer.failure.type == "ModelUnavailable"
        error = (await world.runner.status(talk.key)).last_error
        assert error is not None
        assert error.type == "ModelUnavailable"
        assert await talk.ids() == ["m1:user", "m1:m1", "m1:t1.0", "m1:end"]
        assert len(talk.asked()) == 4
        world.gemini.clear()
        await talk.goes_on("m2")


async def test_the_wait_that_a_429_asks_for_is_kept_by_temporal(world: World) -> None:
    """It stands in the schedule, whatever the worker does meanwhile; and a cancel need not wait for it."""
    talk, calm = Talk(world), Talk(world)
    world.gemini.fail(429, retry_after=3600, contains=talk.mark)
    turn = talk.ask("m1")

    async def interval() -> int | None:
        described = await world.handle(talk.key).describe()
        for pending in described.raw_description.pending_activities:
            if pending.attempt == 2:
                return round(pending.current_retry_interval.ToTimedelta().total_seconds())
        return None

    await world.gemini.wait(lambda: len(talk.asked()) == 1, "the model to be asked", PATIENCE)
    assert await until(interval, within=PATIENCE) == 3600
    await calm.goes_on("m1")
    await world.runner.cancel(talk.key)
    assert (await turn).status == "cancelled"
    world.gemini.clear()
    await talk.goes_on("m2")
    assert len(talk.asked()) == 2
