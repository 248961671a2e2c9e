"""What every activity needs: which session it serves, its heartbeat, its errors."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

from temporalio import activity

from activities.failures import application_error
from perdure.errors import PerdureError
from perdure.types import SessionKey

__all__ = ["HEARTBEAT_EVERY", "Attempts", "beating", "log", "session_key", "typed_errors"]

HEARTBEAT_EVERY = 1.5
"""Seconds between heartbeats. An activity hears of its cancellation with the next one; the workflow
gives it up after 10 seconds without any (``workflows/calls.py``)."""

_log = logging.getLogger("perdure.activities")

P = ParamSpec("P")
R = TypeVar("R")


def session_key() -> SessionKey:
    """The session whose workflow called this activity. Its id says it, so no input repeats it."""
    workflow_id = activity.info().workflow_id
    assert workflow_id is not None, "Perdure's activities are only called by a session's workflow"
    return SessionKey.parse(workflow_id)


def typed_errors(function: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Let an activity raise :class:`PerdureError`; Temporal gets the ``ApplicationError`` for it.

    Anything else is an outage (a database that is away, a bug) and is retried by Temporal.
    """

    @functools.wraps(function)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await function(*args, **kwargs)
        except PerdureError as error:
            raise application_error(error) from None

    return wrapped


class Attempts:
    """How often this activity has really tried, across attempts, workers and restarts.

    Temporal's own attempt number also counts attempts that never got as far as the model
    or the tool, because the database was away, say. This count rides in the heartbeat.
    """

    def __init__(self) -> None:
        details = activity.info().heartbeat_details
        self.count = int(details[0]) if details else 0

    def beat(self) -> None:
        """Tell Temporal that the activity is alive, and the count with it."""
        activity.heartbeat(self.count)

    def start_another(self) -> int:
        """Count one more try, before it begins: one that kills the worker counts too."""
        self.count += 1
        self.beat()
        return self.count


@asynccontextmanager
async def beating() -> AsyncIterator[Attempts]:
    """Heartbeat for as long as the block runs, so that a dead worker is noticed in seconds."""
    # No beat yet: the SDK holds the next one back for a second, and that is the one that counts the try.
    attempts = Attempts()

    async def beat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_EVERY)
            attempts.beat()

    task = asyncio.create_task(beat())
    try:
        yield attempts
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def log(level: int, action: str, key: SessionKey, invocation_id: str, message: str, *args: object) -> None:
    """One log line, with what a log search needs: app, user, session, invocation and action."""
    context = {
        "app": key.app,
        "user": key.user_id,
        "session": key.session_id,
        "invocation": invocation_id,
        "action": action,
    }
    _log.log(level, f"{action} {key} {invocation_id}: {message}", *args, extra=context)
