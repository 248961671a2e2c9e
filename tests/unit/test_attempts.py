"""The count of tries that rides in an activity's heartbeat."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from temporalio.activity import ActivityCancellationDetails
from temporalio.testing import ActivityEnvironment

from activities.runtime import beating
from perdure.types import Spent


def environment(*details: object) -> tuple[ActivityEnvironment, list[object]]:
    """An activity whose last attempt left these details, and what this one tells."""
    told: list[object] = []
    found = ActivityEnvironment()
    found.info = replace(found.info, heartbeat_details=details)
    found.on_heartbeat = lambda *told_now: told.extend(told_now)
    return found, told


async def one_try() -> int:
    async with beating() as attempts:
        return attempts.start_another()


async def test_the_first_heartbeat_counts_the_try_that_may_kill_the_worker() -> None:
    # A later one would be held back for a second, and die with the worker.
    activity, told = environment()
    assert await activity.run(one_try) == 1
    assert told == [1]


async def test_the_count_goes_on_where_the_last_attempt_left_it() -> None:
    activity, told = environment(4)
    assert await activity.run(one_try) == 5
    assert told == [5]


@pytest.mark.parametrize(
    ("why", "counted"),
    [
        (ActivityCancellationDetails(cancel_requested=True), Spent(tokens=12, nano_usd=120)),
        (ActivityCancellationDetails(not_found=True), Spent(tokens=5, nano_usd=50)),
        (ActivityCancellationDetails(worker_shutdown=True), Spent()),
        (ActivityCancellationDetails(timed_out=True), Spent(tokens=5, nano_usd=50)),
    ],
    ids=["cancelled", "taken over", "the worker stops", "timed out"],
)
async def test_what_is_lost_is_counted_by_this_attempt_where_none_after_it_does(
    why: ActivityCancellationDetails, counted: Spent
) -> None:
    activity, told = environment(1, 0, 0, 7, 70)
    begun, found = asyncio.Event(), list[Spent]()

    async def cancelled() -> None:
        async with beating() as attempts:
            attempts.lost += Spent(tokens=5, nano_usd=50)
            try:
                begun.set()
                await asyncio.Event().wait()
            finally:
                found.append(attempts.lost_for_good)

    running = asyncio.create_task(activity.run(cancelled))
    await begun.wait()
    activity.cancel(why)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert found == [counted]
    stops = [1, 0, 0, 12, 120] if why.worker_shutdown else []
    assert told == stops, "where the worker stops the next attempt is told of it"
