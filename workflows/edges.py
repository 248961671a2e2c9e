"""The edge of a handler, where Perdure's errors become the ``ApplicationError`` that Temporal carries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from temporalio import workflow

from activities.failures import application_error
from perdure.errors import PerdureError

__all__ = ["typed", "update_id"]


@contextmanager
def typed() -> Iterator[None]:
    """Let code raise Perdure's errors: a validator's caller gets them typed, a workflow fails by them."""
    try:
        yield
    except PerdureError as error:
        raise application_error(error) from None


def update_id() -> str:
    """The id of the update that the running handler serves: what names a request that has no id."""
    info = workflow.current_update_info()
    assert info is not None, "an update handler always runs in an update"
    return info.id
