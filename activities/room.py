"""How many calls of models and of tools a worker takes in, so that something is left for all else.

Temporal hands an activity to any worker with a slot free, whatever the activity is, and one
that waits for its turn with the model holds a slot like one that talks to it. Let calls have
all slots, and a model that hangs takes the steps of a cancel, a rewind or another session's
tool hostage. So a worker has more slots than calls can fill: what comes on top goes back to
Temporal at once, which offers it again, here or to another worker, after half a second, then
one, two, up to 30. No history event, and no try of the model or the tool.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from perdure.errors import Busy

__all__ = ["Room"]


class Room:
    """Counts the activities of one kind that are in the worker, at work or waiting.

    Args:
        kind: what they are, for the error.
        most: how many may be.
    """

    def __init__(self, kind: str, most: int) -> None:
        self._kind = kind
        self.most = most
        self._taken = 0

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Be one of them.

        Raises:
            ApplicationError: of type ``Busy``, for Temporal to offer the activity again later.
        """
        if self._taken >= self.most:
            raise ApplicationError(
                f"the worker has {self._taken} {self._kind} under way or waiting, as many as it takes; "
                "this one waits for room, here or on another worker",
                type=Busy.__name__,
                category=ApplicationErrorCategory.BENIGN,
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1
