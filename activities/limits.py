"""How far a turn may go: its model calls, its tokens, and the time of its first step.

From the second step on the workflow keeps the time, with a timer that the first step's
outcome sets (``workflows/turn.py``): that also ends a turn which sits in a tool. Before, the
workflow knows no agent, so the first model call keeps it itself. Its clock starts when the
workflow asked for the call, whichever attempt this one is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

from temporalio import activity

from activities.protocol import ModelTask
from perdure.agent import Limits
from perdure.errors import LimitExceeded, ModelUnavailable
from perdure.types import Spent

__all__ = ["check_limits", "in_time"]

T = TypeVar("T")


def check_limits(limits: Limits, task: ModelTask, spent: Spent) -> None:
    """Whether the model may be asked for this step, after what the turn has spent.

    Raises:
        LimitExceeded: the turn has had its model calls, or its tokens.
    """
    if task.step > limits.steps:
        raise LimitExceeded(
            f"the turn {task.invocation_id} reached its limit of {limits.steps} model calls without an answer"
        )
    if limits.tokens is not None and spent.tokens >= limits.tokens:
        raise LimitExceeded(
            f"the turn {task.invocation_id} took {spent.tokens} tokens in {task.step - 1} model calls "
            f"without an answer; its limit is {limits.tokens}"
        )


async def in_time(limits: Limits, task: ModelTask, call: Callable[[], Awaitable[T]]) -> T:
    """Await a model call, that of a first step for as long as the turn may take.

    Raises:
        LimitExceeded: the time is up, or will be before the model can be asked again.
    """
    if task.step > 1 or limits.turn_timeout is None:
        return await call()
    too_long = LimitExceeded(
        f"the turn {task.invocation_id} took longer than its limit of {limits.turn_timeout:g} seconds"
    )
    left = limits.turn_timeout - (datetime.now(UTC) - activity.info().scheduled_time).total_seconds()
    if left <= 0:
        raise too_long
    scope = asyncio.timeout(left)
    try:
        async with scope:
            return await call()
    except TimeoutError:
        if not scope.expired():
            raise
        raise too_long from None
    except ModelUnavailable as error:
        if error.retry_after is None or error.retry_after < left:
            raise
        raise too_long from None
