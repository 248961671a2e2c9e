"""The edge of a handler, where Perdure's errors become the ``ApplicationError`` that Temporal carries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from temporalio import workflow

from activities.failures import application_error
from perdure.errors import Busy, PerdureError

__all__ = ["LONGEST_HISTORY", "check_length", "typed", "update_id"]

LONGEST_HISTORY = 20_000
"""Events of a run from which on none asks it anything; Temporal ends one that has 51,200."""


@contextmanager
def typed() -> Iterator[None]:
    """Let code raise Perdure's errors: a validator's caller gets them typed, a workflow fails by them."""
    try:
        yield
    except PerdureError as error:
        raise application_error(error) from None


def check_length(session_id: str) -> None:
    """Refuse an update where the history has become long, and the run cannot end.

    Raises:
        Busy: the turn has run, or the agents that it asked have waited, while too much was asked.
    """
    if workflow.info().get_current_history_length() > LONGEST_HISTORY:
        raise Busy(
            f"session {session_id}: too much was asked of it while its turn, or agents that it has asked, "
            "could not be left for a new run; its status says what it is at, send this when that is over"
        )


def update_id() -> str:
    """The id of the update that the running handler serves: what names a request that has no id."""
    info = workflow.current_update_info()
    assert info is not None, "an update handler always runs in an update"
    return info.id
