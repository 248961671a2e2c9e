"""What a tool returns that wants its call to wait: for a time, or for something to happen."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.checks import check_seconds
from perdure.errors import InvalidAgent, InvalidArguments
from perdure.types import JsonObject

__all__ = ["EVENT_LENGTH", "Pause", "Sleep", "WaitForEvent"]

EVENT_LENGTH = 128
"""Characters of an event's name."""


@dataclass(frozen=True, slots=True)
class Pause:
    """The base of what a tool can return to wait."""

    def described(self) -> JsonObject:
        """What it waits for, for a test of the tool."""
        return {"waits": repr(self)}


@dataclass(frozen=True, slots=True)
class Sleep(Pause):
    """Wait for some time; the model is then told what time it is.

    Args:
        seconds: how long; 0 or less is no time.

    Raises:
        InvalidArguments: it is no number of seconds that ends.
    """

    seconds: float

    def __post_init__(self) -> None:
        if not self.seconds <= 0:
            _check_seconds("Sleep.seconds", self.seconds)


@dataclass(frozen=True, slots=True)
class WaitForEvent(Pause):
    """Wait for a notification, whose payload the model then gets.

    Args:
        name: of the event, 1 to 128 printable characters.
        timeout: seconds; the agent's ``limits.waiting_timeout`` where None.

    Raises:
        InvalidArguments: a name that nobody could notify by, or no number of seconds.
    """

    name: str
    timeout: float | None = None

    def __post_init__(self) -> None:
        if not (0 < len(self.name) <= EVENT_LENGTH and self.name.isprintable()):
            raise InvalidArguments(
                f"the name of an event has 1 to {EVENT_LENGTH} printable characters; "
                f"{self.name[:80]!r} does not"
            )
        if self.timeout is not None:
            _check_seconds("WaitForEvent.timeout", self.timeout)


def _check_seconds(what: str, seconds: object) -> None:
    try:
        check_seconds(what, seconds)
    except InvalidAgent as error:  # they may be what a model has asked for, which is then told
        raise InvalidArguments(str(error)) from None
