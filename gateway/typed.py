"""What Temporal raises, in Perdure's own terms."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from temporalio.client import WorkflowQueryFailedError, WorkflowUpdateFailedError
from temporalio.service import RPCError, RPCStatusCode

from activities.failures import perdure_error
from perdure.errors import SessionNotFound
from perdure.types import SessionKey

__all__ = ["done", "found", "typed"]

T = TypeVar("T")


async def typed(call: Awaitable[T], key: SessionKey) -> T:
    """Await a call to Temporal; raise Perdure's own error where there is one behind a failure.

    Raises:
        SessionNotFound: no workflow of that session is open.
    """
    try:
        return await call
    except (WorkflowUpdateFailedError, WorkflowQueryFailedError) as error:
        ours = perdure_error(error.__cause__)
        if ours is None:
            raise
        raise ours from error
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        raise SessionNotFound(f"no workflow of session {key} is open") from error


async def found(call: Awaitable[T]) -> T | None:
    """Await a call to Temporal; None where it has nothing of that name."""
    try:
        return await call
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return None


async def done(call: Awaitable[None]) -> bool:
    """Await a call to Temporal; False where it has nothing of that name to do it to."""

    async def told() -> bool:
        await call
        return True

    return await found(told()) or False
