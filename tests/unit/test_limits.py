"""A turn's limits, as the activity that asks the model keeps them."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.testing import ActivityEnvironment

from activities.limits import check_limits, in_time
from activities.protocol import ModelTask
from perdure.agent import Limits
from perdure.errors import LimitExceeded, ModelUnavailable
from perdure.types import Spent


def test_the_steps_and_the_tokens_of_the_turn_are_bounded() -> None:
    third, spent = ModelTask(invocation_id="m2", step=3, epoch=1), Spent(tokens=100, model_calls=2)
    check_limits(Limits(), third, spent)
    check_limits(Limits(steps=3, tokens=101), third, spent)
    with pytest.raises(LimitExceeded, match="limit of 2 model calls"):
        check_limits(Limits(steps=2), third, spent)
    with pytest.raises(LimitExceeded, match="took 100 tokens in 2 model calls"):
        check_limits(Limits(tokens=100), third, spent)


def begun(seconds_ago: float) -> ActivityEnvironment:
    environment = ActivityEnvironment()
    then = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    environment.info = dataclasses.replace(environment.info, scheduled_time=then)
    return environment


FIRST = ModelTask(invocation_id="m1")
LIMITS = Limits(turn_timeout=60)


async def answer() -> str:
    return "answered"


async def never() -> str:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets it")


async def test_a_first_step_has_the_time_of_the_turn() -> None:
    assert await begun(1).run(in_time, LIMITS, FIRST, answer) == "answered"
    assert await begun(-5).run(in_time, LIMITS, FIRST, answer) == "answered", "clocks differ"
    with pytest.raises(LimitExceeded, match="limit of 60 seconds"):
        await begun(59.95).run(in_time, LIMITS, FIRST, never)


async def test_nothing_is_asked_when_the_time_is_up_before() -> None:
    asked: list[str] = []

    async def ask() -> str:
        asked.append("once")
        return "answered"

    with pytest.raises(LimitExceeded):
        await begun(61).run(in_time, LIMITS, FIRST, ask)
    assert asked == []


async def test_later_steps_are_the_workflows_to_time() -> None:
    second = ModelTask(invocation_id="m1", step=2, epoch=1)
    assert await begun(61).run(in_time, LIMITS, second, answer) == "answered"
    assert await begun(61).run(in_time, Limits(), FIRST, answer) == "answered"


@pytest.mark.parametrize(
    ("wait", "error"), [(None, ModelUnavailable), (5.0, ModelUnavailable), (90.0, LimitExceeded)]
)
async def test_a_wait_that_is_longer_than_the_turn_may_take_ends_it(
    wait: float | None, error: type[Exception]
) -> None:
    async def unavailable() -> str:
        raise ModelUnavailable("429", retry_after=wait)

    with pytest.raises(error):
        await begun(1).run(in_time, LIMITS, FIRST, unavailable)


async def test_a_time_out_of_something_else_stays_what_it_is() -> None:
    async def other() -> str:
        raise TimeoutError("a socket's")

    with pytest.raises(TimeoutError, match="a socket's"):
        await begun(1).run(in_time, LIMITS, FIRST, other)
