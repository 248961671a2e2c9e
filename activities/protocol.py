"""What passes between the session workflow and its activities: ids, names and counts.

Nothing here may grow with the conversation. A transcript, a tool's arguments or result,
state and artifacts stay in the database; the workflow learns only that they are there.
Fields left at their default are not sent (see :mod:`activities.conversion`), and every record
may gain fields but never lose or rename one: histories written today are replayed by the
workflow of next year.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = [
    "CALL_MODEL",
    "COMPACT",
    "END",
    "INTERRUPT",
    "LONGEST",
    "NOTE_PROGRESS",
    "REMEMBER",
    "REWIND",
    "RUN_TOOL",
    "SAVE_ARTIFACT",
    "TOOL_SECONDS",
    "Answer",
    "ArtifactTask",
    "Asked",
    "CallRef",
    "Child",
    "CompactTask",
    "EndTask",
    "Failure",
    "InterruptTask",
    "Interrupted",
    "Joining",
    "ModelOutcome",
    "ModelTask",
    "Moved",
    "ProgressTask",
    "RememberTask",
    "Remembered",
    "RemoteCall",
    "Resolution",
    "RewindTask",
    "ToolOutcome",
    "ToolTask",
    "Wait",
    "call_id_of",
]

CALL_MODEL = "call_model"
RUN_TOOL = "run_tool"
COMPACT = "compact"
REWIND = "rewind"
INTERRUPT = "interrupt"
END = "end_session"
SAVE_ARTIFACT = "save_artifact"
NOTE_PROGRESS = "note_progress"
REMEMBER = "remember"

TOOL_SECONDS = 600.0
"""How long a tool may run for which nothing longer is said. The tool's own, shorter limit is the
activity's to keep; this is the workflow's, for when the worker cannot."""

LONGEST = 10 * 366 * 86_400
"""Seconds that a call waits at most where it has a deadline: the calendar has an end."""


class Record(BaseModel):
    """A message between services: unknown fields are ignored, so that old can talk to new."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Failure(Record):
    """What went wrong in a turn that the session survived."""

    type: str
    message: str


class CallRef(Record):
    """One call the model asked for: enough to schedule it, nothing of its arguments."""

    name: str
    serial: bool = False
    """It may touch state, so it waits for the calls before it."""
    timeout: float | None = None
    """Seconds it may run, where that is more than :data:`TOOL_SECONDS`."""
    queue: str | None = None
    """The task queue that runs it, where it is not the session's own."""
    start_timeout: float | None = None
    """Seconds until a worker of that queue begins it."""


class Joining(Record):
    """A message that joins a turn which is under way."""

    message_id: str
    text: str | None = None
    content: dict[str, Any] | None = None
    blob: str | None = None
    """Where the store has the content, instead of the content."""


class ModelTask(Record):
    """Ask the model for the next step of a turn.

    The first step carries the user's message and appends it; ``epoch`` is None only for
    the first turn of a workflow, which takes the session over from whatever ran before.
    """

    invocation_id: str
    step: int = 1
    epoch: int | None = None
    text: str | None = None
    content: dict[str, Any] | None = None
    blob: str | None = None
    """Where the store has the content, instead of the content."""
    reopen: bool = False
    inline: bool = False
    joining: Sequence[Joining] = ()
    """What the user has said meanwhile: appended before the model is asked."""


class ModelOutcome(Record):
    """What the model wants done next. No calls means that the turn is over."""

    epoch: int
    seq: int
    calls: Sequence[CallRef] = ()
    failure: Failure | None = None
    repeated: bool = False
    """The invocation had ended before: this is a message sent again, and nothing was done now."""
    cancelled: bool = False
    """It had ended in a cancel."""
    compact: bool = False
    """Enough has gathered to be worth a summary."""
    tokens: int = 0
    """What this step took, prompt and answer together."""
    nano_usd: int = 0
    """The same in money, in billionths of a US dollar, where the price is known."""
    warning: str | None = None
    """What is nearly spent of the agent's budget."""
    budget: dict[str, float] | None = None
    """What that allows, with the first step of a turn: what people see beside what is spent."""
    mend: bool = False
    """The answer is none, and the model is to mend it: the turn goes on with the next step."""
    turn_timeout: float | None = None
    """Seconds the turn may take in all, with a first step that asks for calls."""
    model: str | None = None
    """The model's name, with the first step of a turn: what the UI calls the next ones."""
    text: str | None = None
    joined: str | None = None
    """The message had joined this turn, and it is that which has ended."""
    taken: Sequence[str] = ()
    """The ids of the messages that have joined. A worker of an earlier release takes none; each of the
    others is for a turn of its own, to be answered or to be told why."""


class Resolution(Record):
    """What came of a wait: what a person decided, what the world sent, or that the time is up.

    What was sent with it is here as it is where it is small, and else left in the store.
    """

    decision: str
    """``yes``, ``no`` or ``changed`` of a person; ``result`` or ``failed``; ``event``; ``expired``."""
    value: Any = None
    """The other arguments, the result, or the payload of the event."""
    blob: str | None = None
    """Where the store has the value, instead of the value."""
    left_as: str | None = None
    """The id under which it was left there."""
    by: str | None = None
    reason: str | None = None


class Answer(Record):
    """What came of a call that no worker of the session's queue ran: a result or an error.

    Unlike all else here it holds what a tool said: whoever ran it had no other way to hand it over.
    """

    value: Any = None
    error: str | None = None


class Asked(Record):
    """The agent that a call has asked is done; its answer, if there is one, is in its session's log."""

    failure: Failure | None = None


class ToolTask(Record):
    """Run call ``index`` of the answer that step ``step`` gave."""

    invocation_id: str
    step: int
    index: int
    epoch: int
    may_wait: bool = False
    """The workflow knows what to do with a call that waits. One from before that does not."""
    resolution: Resolution | None = None
    """The call has waited, and this is what came of it."""
    answer: Answer | None = None
    """It has run elsewhere, and this is what came of that."""
    asked: Asked | None = None
    """It is of an agent, which has been asked."""


class Wait(Record):
    """What a call waits for."""

    kind: str
    """``approval``, ``result``, ``event`` or ``timer``."""
    event: str | None = None
    """The name of the notification that answers it."""
    seconds: float | None = None
    """Until the time is up, from now on; None: it waits for ever."""
    then: str | None = None
    """What becomes of an approval when it is: ``approve`` or ``fail``; else it is refused."""


class RemoteCall(Record):
    """An activity that a worker of another queue, in whatever language, is to run for a call.

    It holds the call's arguments: that worker cannot read them in the log.
    """

    activity: str
    queue: str
    arguments: dict[str, Any]
    timeout: float
    """Seconds one run of it may take."""
    attempts: int = 1
    """How often it is run at most, when the activity itself fails."""
    lives: int = 1
    """How often, when it is its worker that dies."""
    start_timeout: float | None = None
    """Seconds until a worker begins it."""
    heartbeat_timeout: float | None = None


class Child(Record):
    """The session in which an agent is to be asked for a call."""

    session: str
    """Its id; the app and the user are those of the session that asks."""
    blob: str
    """Where the store has what it is asked."""
    tells: bool = False
    """Its workflow is to tell the one that asks when its turn begins or ceases to wait."""


class ToolOutcome(Record):
    """The call has not been answered: it needs a person or the world, or it is to run elsewhere."""

    waiting: Wait | None = None
    remote: RemoteCall | None = None
    child: Child | None = None


def call_id_of(invocation_id: str, step: int, index: int) -> str:
    """The id of call ``index`` (from 0) of a step, and of the event that answers it."""
    return f"{invocation_id}:t{step}.{index}"


class ProgressTask(Record):
    """Note how far a long-running tool has come."""

    request_id: str
    invocation_id: str
    call_id: str
    epoch: int
    text: str | None = None
    percent: float | None = None


class CompactTask(Record):
    """Sum up what is live up to the end of this invocation, if that is still due."""

    invocation_id: str
    asked: bool = False
    """A caller asked for it, and the id is that of the request: all that has ended is summed up."""


class RewindTask(Record):
    """Rewind to just before an invocation, fencing off the turn that is running, if one is."""

    before: str
    request_id: str
    running: str | None = None


class InterruptTask(Record):
    """Mark a running turn as over and fence off whatever it still writes."""

    invocation_id: str
    epoch: int | None = None
    reason: str
    failure: Failure | None = None
    message_id: str | None = None
    """The message that the turn is to end for. Where the log has it, it was sent before: nothing is done."""


class Interrupted(Record):
    """What came of interrupting a turn that was left alone: it ends by itself."""

    epoch: int


class EndTask(Record):
    """Close the session."""

    request_id: str


class RememberTask(Record):
    """Put what is live into the user's memory."""

    request_id: str
    only_vectors: bool = False
    """It is there, and what lacks is that it is found by its meaning."""


class Remembered(Record):
    """What the user's memory has of the session now."""

    upto: int
    """The seq up to which all that is live is in it."""
    passages: int


class ArtifactTask(Record):
    """Record an artifact whose bytes and version are already in the store."""

    request_id: str
    name: str
    version: int


class Moved(Record):
    """The session's epoch after something moved it, and the seq of the event that records it."""

    epoch: int
    seq: int
    repeated: bool = False
    """The same request had been carried out before, and nothing moved now."""
    lacks_vectors: bool = False
    """What an end has put into the user's memory is still to be found by its meaning."""
    stopped: bool = False
    """With that, and the turn that was to be stopped is over: an attempt of this that died did it."""
