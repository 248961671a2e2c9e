"""The count of tries that rides in an activity's heartbeat."""

from __future__ import annotations

from dataclasses import replace

from temporalio.testing import ActivityEnvironment

from activities.runtime import beating


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
