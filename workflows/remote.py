"""Calls that run on another task queue than the session's: by a worker of ours, or as an activity of any.

An activity of another worker knows nothing of sessions. It is handed plain JSON, and what it answers with,
its failure included, is handed to ``run_tool`` on the session's own queue, which writes the response.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta

from temporalio import workflow
from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue, RetryPolicy
from temporalio.exceptions import (
    ActivityError,
    ApplicationError,
    TimeoutError,  # noqa: A004 - Temporal's
    TimeoutType,
    is_cancelled_exception,
)
from temporalio.workflow import ActivityCancellationType

from activities.protocol import Answer, CallRef, Child, RemoteCall, ToolTask, Wait, call_id_of
from perdure.errors import InvalidContent
from perdure.jsonvalues import json_copy
from perdure.types import JsonObject, SessionKey
from workflows import calls
from workflows.patches import HANDED_BACK
from workflows.request import LEVELS_ABOVE, MESSAGE_BYTES

__all__ = ["RESULT_BYTES", "run_call"]

RESULT_BYTES = MESSAGE_BYTES
"""How much of a result an activity may answer with: it is in the history twice."""

LONGEST_ERROR = 10_000
"""Characters of an activity's error that are kept: they are in the history twice."""

_DIED = "TemporalTimeout:Heartbeat"
_TOOK_LONG = "TemporalTimeout:StartToClose"
"""How a retry policy names the time-outs that it does not retry."""

_WORKER_STOPS = "WorkerShutdown"
"""The type of the error by which Temporal's SDKs hand back what a worker that stops has not done."""


async def run_call(task: ToolTask, call: CallRef, ask: Callable[[Child], Awaitable[None]]) -> Wait | None:
    """One call of a tool, wherever it runs; ``ask`` has an agent answer it.

    Returns:
        What it waits for, if it does not have a result yet.
    """
    try:
        outcome = await calls.run_tool(task, call)
    except ActivityError as error:
        if not _is(error, TimeoutType.SCHEDULE_TO_START):
            raise
        answer = _not_begun(error, call.queue, call.start_timeout)
    else:
        if outcome.child is not None:
            await ask(outcome.child)
            return None
        if outcome.remote is None:
            return outcome.waiting
        answer = await _answer(outcome.remote, task, call)
    here = CallRef(name=call.name)
    return (await calls.run_tool(task.model_copy(update={"answer": answer}), here)).waiting


async def _answer(remote: RemoteCall, task: ToolTask, call: CallRef) -> Answer:
    """What the activity says; it is run again where its worker dies, or stops."""
    given = _input(remote, task, call)
    for life in range(remote.lives):
        try:
            return _result(await _run(remote, given, call))
        except ActivityError as error:
            if is_cancelled_exception(error):
                raise
            if not _is_over(error):
                return _failure(error, remote, again=life > 0)
    return Answer(error=f"The worker died in each of {remote.lives} tries of this call.")


def _is_over(error: ActivityError) -> bool:
    """Whether that try ended with its worker, and not by what the activity did."""
    if _is(error, TimeoutType.HEARTBEAT):
        return True
    stopped = isinstance(error.cause, ApplicationError) and error.cause.type == _WORKER_STOPS
    return stopped and workflow.patched(HANDED_BACK)


def _input(remote: RemoteCall, task: ToolTask, call: CallRef) -> JsonObject:
    """What the activity is handed; docs/tools.md says what each field is."""
    workflow_id = workflow.info().workflow_id
    call_id = call_id_of(task.invocation_id, task.step, task.index)
    return {
        "session": workflow_id,
        "invocation_id": task.invocation_id,
        "call_id": call_id,
        "idempotency_key": f"{SessionKey.parse(workflow_id)}:{call_id}",
        "name": call.name,
        "arguments": remote.arguments,
    }


async def _run(remote: RemoteCall, given: JsonObject, call: CallRef) -> Payload:
    # Raw: what cannot be read is an error of that tool, and must not stop the workflow.
    raw: RawValue = await workflow.execute_activity(
        remote.activity,
        given,
        task_queue=remote.queue,
        result_type=RawValue,
        start_to_close_timeout=calls.seconds_of(remote.timeout),
        schedule_to_start_timeout=calls.seconds_of(remote.start_timeout),
        heartbeat_timeout=calls.seconds_of(remote.heartbeat_timeout),
        retry_policy=RetryPolicy(
            maximum_attempts=remote.attempts,
            maximum_interval=timedelta(seconds=30),
            non_retryable_error_types=[_DIED, _TOOK_LONG, _WORKER_STOPS],
        ),
        cancellation_type=ActivityCancellationType.TRY_CANCEL,
        summary=f"tool {call.name}",
    )
    return raw.payload


def _result(payload: Payload) -> Answer:
    encoding = payload.metadata.get("encoding", b"").decode("ascii", "replace")
    if encoding == "binary/null":
        return Answer(value=None)
    if encoding != "json/plain":
        return Answer(
            error=f"Its result is no JSON but {encoding or 'of no encoding'}; the tool must be mended."
        )
    if len(payload.data) > RESULT_BYTES:
        return Answer(
            error=f"Its result has {len(payload.data)} bytes; an activity hands over {RESULT_BYTES} at most."
        )
    try:
        return Answer(value=json_copy(json.loads(payload.data), "its result", under=LEVELS_ABOVE))
    except ValueError:
        return Answer(error="Its result is marked as JSON and cannot be read; the tool must be mended.")
    except RecursionError:
        return Answer(error="Its result is nested too deep to be read; the tool must be mended.")
    except InvalidContent as error:
        return Answer(error=f"{error}.")


def _failure(error: ActivityError, remote: RemoteCall, *, again: bool) -> Answer:
    if _is(error, TimeoutType.SCHEDULE_TO_START):
        return _not_begun(error, remote.queue, remote.start_timeout, again=again)
    if _is(error, TimeoutType.START_TO_CLOSE):
        died = "" if remote.heartbeat_timeout else ", or its worker died"
        return Answer(error=f"It took longer than {remote.timeout:g} seconds{died}.")
    cause = error.cause or error
    kind = (isinstance(cause, ApplicationError) and cause.type) or type(cause).__name__
    words = cause.message if isinstance(cause, ApplicationError) else str(cause)
    told = f"{kind}: {words}"
    if len(told) > LONGEST_ERROR:
        told = f"{told[:LONGEST_ERROR]}… ({len(told)} characters in all)"
    return Answer(error=told)


def _not_begun(
    error: ActivityError, queue: str | None, seconds: float | None, *, again: bool = False
) -> Answer:
    within = f"of the task queue {queue} began it within {seconds or 0:g} seconds"
    tried = error.cause is not None and error.cause.__cause__ is not None  # how the try before it failed
    if again or tried:
        return Answer(error=f"Its worker was lost, and no other {within}; what it did is not known.")
    return Answer(error=f"No worker {within}.")


def _is(error: ActivityError, kind: TimeoutType) -> bool:
    return isinstance(error.cause, TimeoutError) and error.cause.type is kind
