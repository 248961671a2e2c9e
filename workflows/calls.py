"""How a session's workflow calls its activities: the timeouts, the retries, the words in the UI.

An activity is retried for as long as the session lives: a database or a model that is
away for an hour must not cost a session its turn. What cannot succeed says so itself, as
a typed error that is not retried, and how often a model or a tool is really tried is
counted by the activity (``activities/runtime.py``), not here.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.workflow import ActivityCancellationType

from activities.protocol import (
    CALL_MODEL,
    COMPACT,
    INTERRUPT,
    LONGEST,
    REMEMBER,
    RUN_TOOL,
    TOOL_SECONDS,
    CallRef,
    CompactTask,
    Interrupted,
    InterruptTask,
    ModelOutcome,
    ModelTask,
    Remembered,
    RememberTask,
    ToolOutcome,
    ToolTask,
)

__all__ = ["call_model", "compact", "interrupt", "remember", "run_tool", "seconds_of", "steer", "step_title"]

T = TypeVar("T")

HEARTBEAT = timedelta(seconds=10)
"""A worker that has not been heard of for this long is dead, and its activity starts again elsewhere."""

PATIENT = RetryPolicy(
    initial_interval=timedelta(milliseconds=500),
    backoff_coefficient=2,
    maximum_interval=timedelta(seconds=30),
)
OPTIONAL = RetryPolicy(
    initial_interval=timedelta(seconds=1),
    backoff_coefficient=2,
    maximum_interval=timedelta(seconds=30),
    maximum_attempts=5,
)


def step_title(model: str | None, step: int) -> str:
    """What people read of a model call, in the history and in the details."""
    return f"model {model} · step {step}" if model else f"model · step {step}"


async def call_model(task: ModelTask, model: str | None) -> ModelOutcome:
    """One step of a turn. ``model`` is the model's name, where it is known; see :func:`step_title`."""
    outcome: ModelOutcome = await workflow.execute_activity(
        CALL_MODEL,
        task,
        result_type=ModelOutcome,
        start_to_close_timeout=timedelta(hours=1),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=PATIENT,
        cancellation_type=ActivityCancellationType.TRY_CANCEL,
        summary=step_title(model, task.step) + _joining(task),
    )
    return outcome


def _joining(task: ModelTask) -> str:
    count = len(task.joining)
    return "" if not count else f" · {count} message{'s' if count > 1 else ''} joining"


async def run_tool(task: ToolTask, call: CallRef) -> ToolOutcome:
    """One call of a tool. Its result is in the log; here it is only known to be there.

    Returns:
        What has to come first, if it does not have a result yet.
    """
    seconds = max(call.timeout or 0, TOOL_SECONDS) + 60
    either: Any = int | ToolOutcome  # a union is no type, but a type hint
    done: int | ToolOutcome = await workflow.execute_activity(
        RUN_TOOL,
        task,
        task_queue=call.queue,
        result_type=either,
        schedule_to_start_timeout=seconds_of(call.start_timeout),
        start_to_close_timeout=timedelta(seconds=seconds),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=PATIENT,
        cancellation_type=ActivityCancellationType.TRY_CANCEL,
        summary=f"tool {call.name}{_again(task)}",
    )
    return done if isinstance(done, ToolOutcome) else ToolOutcome()


def seconds_of(given: float | None) -> timedelta | None:
    """A time of a record, as Temporal takes it."""
    return None if given is None else timedelta(seconds=min(given, LONGEST))


async def compact(task: CompactTask) -> int | None:
    """Sum up what is old. Given up after a few attempts: the session works without, and it is due again."""
    title = "sum up, as asked for by" if task.asked else "sum up to the end of"
    seq: int | None = await workflow.execute_activity(
        COMPACT,
        task,
        result_type=int | None,  # type: ignore[arg-type]  # a union is no type, but a type hint
        start_to_close_timeout=timedelta(minutes=15),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=OPTIONAL,
        summary=f"{title} {task.invocation_id}",
    )
    return seq


async def remember(task: RememberTask) -> Remembered | None:
    """Put what is live into the user's memory. Given up after a few attempts: who asked can ask again, and
    what has no vector by then is found by its words."""
    title = "vectors for the memory" if task.only_vectors else "remember"
    either: Any = Remembered | None  # a union is no type, but a type hint
    done: Remembered | None = await workflow.execute_activity(
        REMEMBER,
        task,
        result_type=either,
        start_to_close_timeout=timedelta(minutes=15),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=OPTIONAL,
        summary=title,
    )
    return done


async def interrupt(task: InterruptTask, reason: str) -> int | Interrupted:
    """End a running turn in the log; the epoch from here on, and whether it had its end before."""
    either: Any = int | Interrupted  # a union is no type, but a type hint
    moved: int | Interrupted = await steer(INTERRUPT, task, either, reason)
    return moved


def _again(task: ToolTask) -> str:
    """What has come of a call that is taken up again, after it has waited or has run elsewhere."""
    if task.resolution is not None:
        return f" · {task.resolution.decision}"
    return "" if task.answer is None and task.asked is None else " · answered"


async def steer(name: str, task: Any, result: type[T], summary: str) -> T:
    """A short activity that ends in one transaction: rewind, interrupt, end, save an artifact."""
    done: T = await workflow.execute_activity(
        name,
        task,
        result_type=result,
        start_to_close_timeout=timedelta(minutes=10),
        heartbeat_timeout=HEARTBEAT,
        retry_policy=PATIENT,
        summary=summary,
    )
    return done
