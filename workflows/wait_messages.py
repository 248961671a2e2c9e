"""What a session takes and tells of calls that wait: decisions, results, notifications."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from activities.protocol import CallRef, Record, Resolution
from perdure.errors import InvalidMessage
from perdure.jsonvalues import json_copy
from perdure.types import given
from workflows.request import BLOB_LENGTH, LEVELS_ABOVE, MESSAGE_BYTES, Request

__all__ = [
    "AGENT_WAITS",
    "AgentWaits",
    "AskedAgent",
    "Decision",
    "Notification",
    "Parked",
    "ParkedCall",
    "Progress",
    "Result",
    "Settled",
    "Waiting",
    "Was",
]

AGENT_WAITS = "agent_waits"
"""The signal by which an agent that was asked tells of its waits."""
REASON_LENGTH = 4_000
SHOWN_LENGTH = 200
"""Of a progress that the status shows and a run carries into the next one; many calls may wait at once."""
NAME_LENGTH = 128


class _Sent(Request):
    """What brings a value of somebody's: as it is, or left in the store under ``left_as``."""

    blob: str | None = None
    left_as: str | None = None

    def _check_value(self, value: object, *words: str | None) -> None:
        """Refuse what no log could hold, or Temporal had better not.

        Raises:
            InvalidMessage: too large, or both a value and a blob.
            InvalidContent: U+0000, a lone surrogate, NaN or infinity in it.
        """
        kind = type(self).__name__.lower()
        if self.blob is not None and value is not None:
            raise InvalidMessage(f"the {kind} has a value and a blob; it is one or the other")
        if self.blob is not None and not 0 < len(self.blob) <= BLOB_LENGTH:
            raise InvalidMessage(f"the blob of the {kind} is not the key of one")
        json_copy([value, *words], f"the {kind}", under=LEVELS_ABOVE)
        size = len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        if size > MESSAGE_BYTES:
            raise InvalidMessage(
                f"what the {kind} brings has {size} bytes and the limit is {MESSAGE_BYTES}; send it with "
                "Perdure's Runner, or save what is large as an artifact"
            )
        if any(word is not None and len(word) > REASON_LENGTH for word in words):
            raise InvalidMessage(f"the words of a {kind} have at most {REASON_LENGTH} characters")

    def _with_value(self, value: Any, fields: dict[str, Any]) -> Resolution:
        return Resolution(**fields, **given(value=value, blob=self.blob, left_as=self.left_as))


class Decision(_Sent):
    """A person's yes or no to a call."""

    call_id: str
    decision: Literal["yes", "no"]
    arguments: dict[str, Any] | None = None
    """With yes: call it with these instead."""
    by: str | None = None
    """Who decided; the log keeps it."""
    reason: str | None = None
    """With no: what the model is told."""
    request_id: str | None = None
    """Sent again under it, it gets the same answer, also in a later run."""

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            InvalidMessage, InvalidContent: as in ``_check_value``; or other arguments with a no.
        """
        super().check()
        self._check_value(self.arguments, self.by, self.reason)
        if self.decision == "no" and (self.arguments is not None or self.blob is not None):
            raise InvalidMessage("a no comes without arguments")

    @property
    def resolution(self) -> Resolution:
        """What it makes of the call."""
        changed = self.arguments is not None or self.blob is not None
        decision = "changed" if changed else self.decision
        return self._with_value(self.arguments, given(decision=decision, by=self.by, reason=self.reason))


class Result(_Sent):
    """The outcome of a long-running tool: a result or an error."""

    call_id: str
    result: Any = None
    error: str | None = None
    by: str | None = None
    request_id: str | None = None
    """Sent again under it, it gets the same answer, also in a later run."""

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            InvalidMessage, InvalidContent: as in ``_check_value``; or both a result and an error.
        """
        super().check()
        self._check_value(self.result, self.by, self.error)
        if self.error is not None and (self.result is not None or self.blob is not None):
            raise InvalidMessage("the outcome of a tool is a result or an error, and not both")

    @property
    def resolution(self) -> Resolution:
        """What it makes of the call."""
        decision = "result" if self.error is None else "failed"
        return self._with_value(self.result, given(decision=decision, by=self.by, reason=self.error))


class Notification(_Sent):
    """Something has happened that a call waits for, or will wait for."""

    name: str
    payload: Any = None
    notification_id: str | None = None
    """Sent twice under one id, it happened once."""

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            InvalidMessage, InvalidContent: as in ``_check_value``; or a name that nothing can wait for.
        """
        super().check()
        self._check_value(self.payload)
        if not (0 < len(self.name) <= NAME_LENGTH and self.name.isprintable()):
            raise InvalidMessage(f"the name of an event has 1 to {NAME_LENGTH} printable characters")

    @property
    def resolution(self) -> Resolution:
        """What it makes of the call that waits for it."""
        return self._with_value(self.payload, {"decision": "event"})

    @property
    def size(self) -> int:
        """Bytes of it in what is carried."""
        return len(self.model_dump_json(exclude_unset=True).encode("utf-8", "surrogatepass"))


class Progress(Request):
    """How far a long-running tool has come."""

    call_id: str
    text: str | None = None
    percent: float | None = None

    def check(self) -> None:
        """Refuse what makes no sense.

        Raises:
            InvalidMessage: a text that is too long, a percentage that is none.
            InvalidContent: U+0000 or a lone surrogate in the text.
        """
        super().check()
        json_copy(self.text, "the progress")
        if self.text is not None and len(self.text) > REASON_LENGTH:
            raise InvalidMessage(f"the text of a progress has at most {REASON_LENGTH} characters")
        if self.percent is not None and not 0 <= self.percent <= 100:
            raise InvalidMessage(f"a percentage is 0 to 100, and not {self.percent}")

    @property
    def shown(self) -> dict[str, Any]:
        """What a call that waits shows of it."""
        long = self.text is not None and len(self.text) > SHOWN_LENGTH
        text = f"{self.text[:SHOWN_LENGTH]}…" if self.text is not None and long else self.text
        return {"text": text, "percent": self.percent}


class Settled(Record):
    """A decision or a result was taken."""

    call_id: str
    decision: str


class Waiting(Record):
    """A call that waits for a person or the world."""

    call_id: str
    tool: str
    kind: str
    """``approval``, ``result``, ``event`` or ``timer``; or ``agent``: what it has asked waits."""
    since: datetime
    until: datetime | None = None
    event: str | None = None
    agent_session: str | None = None
    """The id of the agent's session, where the kind is ``agent``: what it waits for is decided there."""
    then: str | None = None
    text: str | None = None
    """The last progress that was reported, or its beginning: the log has it whole."""
    percent: float | None = None

    @property
    def title(self) -> str:
        """What people read of it."""
        what = {
            "approval": f"approval of {self.tool}",
            "result": f"the result of {self.tool}",
            "event": f"the event {self.event}",
            "agent": f"the agent {self.tool}, whose session {self.agent_session} waits",
        }.get(self.kind, "its time")
        return f"{what} since {_moment(self.since)}" + (
            f", until {_moment(self.until)}" if self.until else ""
        )


class AgentWaits(Request):
    """An agent that was asked says what its turn waits for now: nothing, where it goes on."""

    session: str
    run_id: str
    """The first run of its workflow."""
    waiting: Sequence[Waiting] = ()


class AskedAgent(Record):
    """An agent that a call has asked, in a session of its own."""

    session: str
    call_id: str
    tool: str
    since: datetime
    waiting: Sequence[Waiting] = ()
    """What it waits for, where its turn is parked."""
    ending: bool = False
    """Its call was cancelled, and it is being seen to its end."""


class ParkedCall(Record):
    """A call that waits, as it is carried into the next run."""

    index: int
    call: CallRef
    waiting: Waiting


class Was(Record):
    """A call that does not wait any more, as it is carried into the next run."""

    call_id: str
    kind: str
    how: str
    request_id: str | None = None
    """Of what settled it."""


class Parked(Record):
    """A turn all whose open calls wait, as it is carried into the next run."""

    invocation_id: str
    step: int
    epoch: int
    calls: Sequence[ParkedCall]
    inline: bool = False
    model_calls: int = 0
    tool_calls: int = 0
    tokens: int = 0
    nano_usd: int = 0
    turn_timeout: float | None = None
    seconds_left: float | None = None
    """Of the time that it may take; waiting does not count."""


def _moment(when: datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")
