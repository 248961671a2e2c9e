"""What becomes of a stream, message by message, and where it goes on when it breaks.

Nothing in here reads a connection: a reader says what to ask for, is told what came, and says
what to give on. Events are given once, whatever the connection does: the log's seqs tell.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal, Protocol, TypeVar

from perdure.client import calls, results
from perdure.client.call import Call
from perdure.client.drafts import Drafts
from perdure.client.failures import Again
from perdure.client.results import Answer, Partial, Rewound
from perdure.context import Artifact
from perdure.errors import (
    GatewayUnavailable,
    InvalidOption,
    PerdureError,
    SessionNotFound,
    StorageUnavailable,
    TemporalUnavailable,
)
from perdure.types import Event, JsonObject, SessionKey

__all__ = ["DownloadReader", "Reader", "SessionReader", "TurnReader", "cut", "taken"]

Reason = Literal["ended", "deleted"]
Item_co = TypeVar("Item_co", covariant=True)


class Reader(Protocol[Item_co]):
    """Reads one thing, over as many connections as it takes."""

    over: bool
    """There is nothing more."""

    @property
    def call(self) -> Call[None]:
        """What to ask for now."""
        ...

    def opened(self, status: int) -> None:
        """The stream begins, with this status."""
        ...

    def refused(self, error: PerdureError) -> None:
        """It does not begin. Raises what that means, or returns where it is the end."""
        ...

    def take(self, event: str, data: str) -> tuple[Item_co | None, bool]:
        """A message came: what it is to whoever reads, and whether it brought the reader on."""
        ...


class _LogReader:
    """What both readers of a log make of its events and of the pieces between them.

    Args:
        seen: the seq behind which it begins.
    """

    def __init__(self, seen: int) -> None:
        self.over = False
        self.seen = seen
        """The last seq that came."""
        self._drafts = Drafts()

    def _read(self, event: str, said: JsonObject) -> tuple[Event | Partial | None, bool]:
        if event != "message":
            return None, False
        if said.get("partial"):
            return self._drafts.add(said), False
        if said["seq"] <= self.seen:
            return None, False
        self.seen = said["seq"]
        return results.event_of(said), True


class TurnReader(_LogReader):
    """One turn: the message is sent again, under its id, where the connection breaks.

    Args:
        call: the message.
    """

    def __init__(self, call: Call[None]) -> None:
        super().__init__(0)
        self.answer: Answer | None = None
        self._call = call

    @property
    def call(self) -> Call[None]:
        """The message."""
        return self._call

    def opened(self, status: int) -> None:
        """Whatever it says, it is the turn."""

    def refused(self, error: PerdureError) -> None:
        """It is refused, also when it is sent again: after a rewind, say."""
        raise error

    def take(self, event: str, data: str) -> tuple[Event | Partial | None, bool]:
        """An event or a piece of one; or the answer, which is the last."""
        said = json.loads(data)
        if event == "answer":
            self.answer, self.over = results.answer_of(said), True
            return None, True
        _check_end(event, said, self._call)
        return self._read(event, said)


class SessionReader(_LogReader):
    """A session's log from a seq on, for as long as it grows.

    Args:
        key: the session.
        after: the seq behind which it begins.
        live: leave out what was rewound when it was read.
    """

    def __init__(self, key: SessionKey, *, after: int, live: bool) -> None:
        super().__init__(after)
        self.reason: Reason | None = None
        self._key, self._after, self._live = key, after, live
        self._came = False

    @property
    def call(self) -> Call[None]:
        """The stream, behind what was seen."""
        return calls.follow(self._key, self._after, self._live, self.seen if self._came else None)

    def opened(self, status: int) -> None:
        """204 says that nothing is left to come."""
        self._came = True
        if status == 204:
            self.reason, self.over = "ended", True

    def refused(self, error: PerdureError) -> None:
        """A session that is not there any more was deleted meanwhile."""
        if not (self._came and isinstance(error, SessionNotFound)):
            raise error
        self.reason, self.over = "deleted", True

    def take(self, event: str, data: str) -> tuple[Event | Partial | Rewound | None, bool]:
        """An event, a piece of one, or what is live after a rewind."""
        said = json.loads(data)
        if event == "end" and said["reason"] != "stopping":
            self.reason, self.over = said["reason"], True
            return None, True
        _check_end(event, said, self.call)
        if event == "rewound":
            return results.rewound_of(said), False
        return self._read(event, said)


class DownloadReader:
    """The bytes of one version of an artifact; where the connection breaks, the rest of them.

    Args:
        key: the session.
        name: the artifact.
        version: None is the newest.
        start: the first byte.
        length: how many at most; None is up to the end.

    Raises:
        InvalidOption: a range below nothing.
    """

    def __init__(
        self, key: SessionKey, name: str, version: int | None, *, start: int, length: int | None
    ) -> None:
        if start < 0 or (length is not None and length < 0):
            raise InvalidOption(f"the range of {length} bytes from {start} is none; give 0 or more")
        self.version = version
        self.size: int | None = None
        """Of all of it; None before it was opened, and where the range holds nothing of it."""
        self.mime_type = ""
        self._key, self._name = key, name
        self._next = start
        self._stop = None if length is None else start + length

    @property
    def call(self) -> Call[None]:
        """The rest of it."""
        last = None if self._stop is None else self._stop - 1
        return calls.load(self._key, self._name, self.version, self._next, last)

    def opened(self, headers: Mapping[str, str]) -> None:
        """The headers of the answer say which version it is, and how much of it comes."""
        self.version = int(headers["x-artifact-version"])
        self.mime_type = headers["content-type"]
        span, _, size = headers.get("content-range", "").rpartition("/")
        self.size = int(size) if span else int(headers["content-length"])
        self._stop = min(self.size, self.size if self._stop is None else self._stop)

    def refused(self, error: PerdureError) -> None:
        """It is refused; or there are no bytes from there on, which is the end of them."""
        if not (self._next and isinstance(error, InvalidOption)):
            raise error
        self._stop = self._next

    def artifact(self, data: bytes) -> Artifact:
        """What came, with what is known of it."""
        assert self.version is not None, "it was opened"
        return Artifact(
            name=self._name, version=self.version, mime_type=self.mime_type, data=data, size=self.size
        )

    def got(self, count: int) -> None:
        """So many more bytes came."""
        self._next += count

    @property
    def over(self) -> bool:
        """Whether all of it came."""
        return self._stop is not None and self._next >= self._stop


def taken(reader: Reader[Item_co], event: str, data: str) -> tuple[Item_co | None, bool]:
    """What a message is to a reader, as :meth:`Reader.take` says it.

    Raises:
        PerdureError, Again: what ended the stream.
        GatewayUnavailable: no gateway sends such a message.
    """
    try:
        return reader.take(event, data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        call = reader.call
        raise GatewayUnavailable(
            f"what streams at {call.what} is no gateway, or one of another release; check the URL",
            request_id=call.id,
        ) from error


def cut(call: Call[None]) -> Again:
    """A stream that ended without its last word."""
    under = f", under the id {call.id}: then it happens once" if call.id else ""
    told = f"the stream of {call.what} broke off; do the same again{under}"
    return Again(GatewayUnavailable(told, request_id=call.id))


def _check_end(event: str, said: JsonObject, call: Call[None]) -> None:
    """Raise what ended a stream before its time.

    Raises:
        PerdureError: a problem.
        Again: a server that stops, or a problem that may pass.
    """
    if event == "problem":
        error = results.problem_of(said)
        raise Again(error) if isinstance(error, TemporalUnavailable | StorageUnavailable) else error
    if event == "end":
        raise cut(call)  # the gateway stops, and another goes on
