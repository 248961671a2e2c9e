"""Retention from outside: the Temporal Schedule that runs it, and a run at once."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)

from activities.retention_tasks import Retained, RetentionTask
from gateway.typed import done, found
from perdure.errors import InvalidOption
from workflows.retention import Retention

__all__ = ["MAX_DAYS", "Plan", "plan", "run_now", "schedule", "schedule_id", "unschedule"]

MAX_DAYS = 36_500
"""A hundred years. Before the calendar begins there is no cutoff, and a run would never get past it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What the schedule says."""

    days: float
    every: timedelta
    paused: bool
    next_runs: Sequence[datetime]
    """The next few times."""
    runs: int
    """How often it has run."""


def schedule_id(task_queue: str) -> str:
    """The schedule of the workers on this queue; its runs' ids begin with it."""
    return f"perdure-retention-{task_queue}"


async def schedule(client: Client, task_queue: str, *, days: float, every: timedelta) -> None:
    """Have retention run on a schedule, from now on or otherwise than until now.

    Args:
        client: from :func:`gateway.runner.connect`.
        task_queue: the queue that the workers poll.
        days: a session expires so long after its last change.
        every: the time between two runs; one that still runs is not joined by another.

    Raises:
        InvalidOption: days that are below nothing, or more than a hundred years.
    """
    _check_days(days)
    wanted = Schedule(
        action=ScheduleActionStartWorkflow(
            Retention.run, RetentionTask(days=days), id=schedule_id(task_queue), task_queue=task_queue
        ),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=every)]),
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP),
    )
    try:
        await client.create_schedule(schedule_id(task_queue), wanted)
    except ScheduleAlreadyRunningError:
        await _handle(client, task_queue).update(lambda there: _changed(there, wanted))


async def plan(client: Client, task_queue: str) -> Plan | None:
    """What the schedule says; None if there is none."""
    described = await found(_handle(client, task_queue).describe())
    if described is None:
        return None
    action = described.schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow), "our schedule starts a workflow"
    [task] = await client.data_converter.decode(action.args, [RetentionTask])
    return Plan(
        days=task.days,
        every=described.schedule.spec.intervals[0].every,
        paused=described.schedule.state.paused,
        next_runs=described.info.next_action_times,
        runs=described.info.num_actions,
    )


async def unschedule(client: Client, task_queue: str) -> bool:
    """Remove the schedule.

    Returns:
        Whether there was one.
    """
    return await done(_handle(client, task_queue).delete())


async def run_now(client: Client, task_queue: str, *, days: float) -> Retained:
    """Run retention once, now, and wait for it.

    Raises:
        InvalidOption: as for :func:`schedule`.
    """
    _check_days(days)
    return await client.execute_workflow(
        Retention.run,
        RetentionTask(days=days),
        id=f"{schedule_id(task_queue)}-{uuid.uuid4().hex}",
        task_queue=task_queue,
    )


def _check_days(days: float) -> None:
    if not 0 <= days <= MAX_DAYS:
        raise InvalidOption(f"sessions cannot go after {days} days; give a number from 0 to {MAX_DAYS}")


def _handle(client: Client, task_queue: str) -> ScheduleHandle:
    return client.get_schedule_handle(schedule_id(task_queue))


def _changed(there: ScheduleUpdateInput, wanted: Schedule) -> ScheduleUpdate:
    """As wanted; what somebody paused stays paused."""
    wanted.state = there.description.schedule.state
    return ScheduleUpdate(schedule=wanted)
