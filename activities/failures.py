"""Perdure's errors on their way across Temporal, in both directions.

Temporal knows one exception, ``ApplicationError``, with a ``type`` string. Ours is the
class name, so both sides share :mod:`perdure.errors` and nothing else.
"""

from __future__ import annotations

from datetime import timedelta

from temporalio.exceptions import ActivityError, ApplicationError, ApplicationErrorCategory, FailureError

from perdure.errors import (
    McpUnavailable,
    ModelError,
    ModelUnavailable,
    PerdureError,
    StorageUnavailable,
    by_name,
)

__all__ = ["application_error", "perdure_error", "refusal"]


def application_error(error: PerdureError) -> ApplicationError:
    """The form in which an activity or handler raises ``error``.

    Only :class:`~perdure.errors.StorageUnavailable`, :class:`~perdure.errors.McpUnavailable` and
    :class:`~perdure.errors.ModelUnavailable` are worth another attempt, the last after ``retry_after``
    seconds where the model's server named them. The words of that server stay out: they may quote the
    conversation, and Temporal stores what is raised.
    """
    later = isinstance(error, ModelUnavailable | StorageUnavailable | McpUnavailable)
    wait = error.retry_after if isinstance(error, ModelUnavailable) else None
    return ApplicationError(
        error.brief if isinstance(error, ModelError) else str(error),
        type=type(error).__name__,
        non_retryable=not later,
        # A refusal is an answer, not an accident: no stack trace in the worker's log.
        category=ApplicationErrorCategory.BENIGN,
        next_retry_delay=None if wait is None else timedelta(seconds=wait),
    )


def perdure_error(error: BaseException | None) -> PerdureError | None:
    """The error of ours that lies at the bottom of a Temporal failure, or None."""
    while error is not None:
        if isinstance(error, ApplicationError) and (found := by_name(error.type)):
            return found(error.message)
        error = error.cause if isinstance(error, FailureError) else error.__cause__
    return None


def refusal(error: ActivityError) -> ApplicationError:
    """What a caller is told when an activity did not succeed."""
    ours = perdure_error(error)
    if ours is not None:
        return application_error(ours)
    cause = error.cause or error
    kind = getattr(cause, "type", None) or type(cause).__name__
    return ApplicationError(str(cause), type=str(kind), non_retryable=True)
