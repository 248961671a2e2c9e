"""What every activity needs: which session it serves, its heartbeat, its errors."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import ParamSpec, TypeVar

from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.failures import application_error
from perdure.crashpoints import reach
from perdure.errors import InternalError, PerdureError
from perdure.logs import words_of
from perdure.types import SessionKey, Spent

__all__ = [
    "HEARTBEAT_EVERY",
    "HEARTBEAT_HELD",
    "KEEPS_TRYING_TO_WRITE",
    "WORKER_STOPS",
    "Attempts",
    "beating",
    "log",
    "session_key",
    "typed_errors",
]

HEARTBEAT_EVERY = 1.0
"""Seconds between heartbeats. An activity hears of its cancellation with the next one, and that is to be
within two seconds; the workflow gives it up after 10 without any (``workflows/calls.py``)."""

HEARTBEAT_HELD = 0.8
"""Seconds for which the SDK holds back a heartbeat behind another: less than lie between two of ours."""

UNFORESEEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What code raises that met something it was not written for: a row that cannot be read, or a bug."""

UNFORESEEN_TRIES = 8
"""How often such an error is tried again, over about a minute, before it ends the turn. An outage is no such
error and is waited for; a row that cannot be read stays as it is, and its session must not wait for ever."""

WORKER_STOPS = "WorkerStops"
"""The type of the failure by which an activity is handed back."""

KEEPS_TRYING_TO_WRITE = 1
"""The third detail of a heartbeat: the work is done, and its commit waits for the storage."""

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

    Anything else is an outage and is retried by Temporal; but see :data:`UNFORESEEN`. An
    activity that is cancelled because its worker stops is handed back, to start again elsewhere at
    once: what the SDK reports by itself would wait as the retry policy says, up to half a minute.
    """

    @functools.wraps(function)
    async def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            done = await function(*args, **kwargs)
            reach("activity.before_completion")
            return done
        except PerdureError as error:
            raise application_error(error) from None
        except asyncio.CancelledError:
            if not _worker_stops():
                raise
            info = activity.info()
            _log.info("handed back %s of %s: the worker stops", info.activity_type, info.workflow_id)
            raise ApplicationError(
                "the worker was asked to stop; this starts again on another",
                type=WORKER_STOPS,
                category=ApplicationErrorCategory.BENIGN,
                next_retry_delay=timedelta(milliseconds=1),
            ) from None

    return wrapped


def _worker_stops() -> bool:
    """Whether the running activity was cancelled because its worker stops."""
    details = activity.cancellation_details() if activity.in_activity() else None
    return details is not None and details.worker_shutdown


class Attempts:
    """How often this activity has really tried, across attempts, workers and restarts.

    Temporal's own attempt number also counts attempts that never got as far as the model
    or the tool, because the database was away, say. This count rides in the heartbeat, and
    beside it that of the unforeseen errors, and what was spent for nothing.
    """

    def __init__(self) -> None:
        info = activity.info()
        details = [int(detail) for detail in info.heartbeat_details]
        lost = [*details[3:5], 0, 0]
        self.lost = Spent(tokens=lost[0], nano_usd=lost[1])
        """What tries without an answer have taken all the same."""
        self._lost_before = self.lost
        self.unkept = Spent()
        """What an answer took that is not in the log yet. No heartbeat tells of it: by then it may be."""
        self.count = self._before = details[0] if details else 0
        self._untold = 0 if details else info.attempt - 1
        self.unforeseen = details[1] if len(details) > 1 else 0
        self.waits_to_write = False

    def beat(self) -> None:
        """Tell Temporal that the activity is alive, and the counts with it."""
        waits = KEEPS_TRYING_TO_WRITE if self.waits_to_write else 0
        details = [self.count, self.unforeseen, waits, self.lost.tokens, self.lost.nano_usd]
        while len(details) > 1 and not details[-1]:
            del details[-1]
        activity.heartbeat(*details)

    def start_another(self) -> int:
        """Count one more try, before it begins: one that kills the worker counts too."""
        self.count += 1
        self.beat()
        return self.count

    def count_untold(self) -> None:
        """Count the attempts before this one if they told nothing, not even that they failed.

        Their worker died before a heartbeat was out: perhaps of the tool, at once.
        """
        self.count += self._untold
        self._untold = 0

    def take_back(self) -> None:
        """Count no try of this attempt: it was not the model or the tool that ended it."""
        self.count = self._before
        self.beat()

    @property
    def lost_in_all(self) -> Spent:
        """What came to nothing if the answer, too, is not kept."""
        return self.lost + self.unkept

    @property
    def lost_for_good(self) -> Spent:
        """What of it no attempt after this one counts, now that this one is cancelled.

        That is all where the call was cancelled. Where this attempt is not waited for any more, since its
        workflow is closed or another has taken over, it is what this one has taken.
        """
        details = activity.cancellation_details()
        if details is None or not (details.cancel_requested or details.not_found or details.timed_out):
            return Spent()
        lost, before = self.lost_in_all, Spent() if details.cancel_requested else self._lost_before
        return Spent(tokens=lost.tokens - before.tokens, nano_usd=lost.nano_usd - before.nano_usd)

    def fail(self, error: Exception) -> None:
        """The attempt ends in an error.

        Raises:
            InternalError: nobody foresaw it, and it was the last that is tried again.
        """
        if isinstance(error, UNFORESEEN):
            self._fail_unforeseen(error)
        self.beat()

    def _fail_unforeseen(self, error: Exception) -> None:
        self.unforeseen += 1
        if self.unforeseen >= UNFORESEEN_TRIES:
            info = activity.info()
            what = f"{info.activity_type} of {info.workflow_id} failed {self.unforeseen} times"
            _log.error("%s: %s", what, words_of(error), exc_info=error)
            raise InternalError(
                f"{what} by a {type(error).__name__}: something in the session cannot be read, or there is a "
                "bug; the worker's log says where. Rewind to before it, or mend it and send a new message"
            ) from error


@asynccontextmanager
async def beating() -> AsyncIterator[Attempts]:
    """Heartbeat for as long as the block runs, so that a dead worker is noticed in seconds."""
    # No beat yet: the SDK would hold the next one back, and that is the one that counts the try.
    attempts = Attempts()

    async def beat() -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_EVERY)
            attempts.beat()

    task = asyncio.create_task(beat())
    try:
        yield attempts
    except asyncio.CancelledError:
        if _worker_stops():
            attempts.take_back()
        raise
    except Exception as error:
        attempts.fail(error)
        raise
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
    # Ids may have a percent sign in them, and are no part of the format.
    _log.log(level, f"%s %s %s: {message}", action, key, invocation_id, *args, extra=context)
