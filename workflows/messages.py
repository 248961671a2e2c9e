"""The messages a session takes and the answers it gives: plain JSON, documented in docs/signals.md.

Any service in any language can send them with nothing but a Temporal client. A field
left out has the default written here; a field not known is ignored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from activities.protocol import Failure, Record
from perdure.errors import InvalidMessage
from perdure.jsonvalues import json_copy
from workflows.request import BLOB_LENGTH, LEVELS_ABOVE, MESSAGE_BYTES, Request
from workflows.wait_messages import AskedAgent, Notification, Parked, Waiting, Was

__all__ = [
    "LARGEST_MESSAGE",
    "MESSAGE_BYTES",
    "Ack",
    "ArtifactRequest",
    "CancelRequest",
    "Carry",
    "CompactRequest",
    "Compacted",
    "EndRequest",
    "InMemory",
    "Item",
    "Message",
    "RememberRequest",
    "Reply",
    "Request",
    "RewindRequest",
    "Status",
]

LARGEST_MESSAGE = 20_000_000
"""The largest message of all; Gemini takes requests of 20 MB. Larger things are artifacts."""

REFUSED_IDS = 20
"""Of how many messages that were refused the ids are kept."""

DURING = ("queue", "join", "interrupt")
"""What a message can do where a turn runs: wait for its end, join its next step, or end it."""


class Message(Request):
    """What the user says: ``text``, or ``content`` (a genai ``Content``) for more than text."""

    text: str | None = None
    content: dict[str, Any] | None = None
    blob: str | None = None
    """Where the store has the content, instead of the content: ``Runner`` sends large ones so."""
    message_id: str | None = None
    """Names the invocation. Send a message again under its id and it runs once."""
    reopen: bool = False
    """Open the session again if it was ended."""
    inline: bool = False
    """Put the answer's text into the reply, for callers that cannot read the database."""
    during: str = "queue"
    """What becomes of it where a turn runs: ``queue``, ``join`` or ``interrupt``."""

    def check(self) -> None:
        """Refuse what no turn could do anything with.

        Raises:
            InvalidMessage: empty, too large, both or neither of text and content, a bad id.
            InvalidContent: U+0000, a lone surrogate, NaN or infinity in it.
        """
        self.check_said()
        if self.size > MESSAGE_BYTES:
            raise InvalidMessage(
                f"the message has {self.size} bytes and the limit is {MESSAGE_BYTES}; send it with "
                f"Perdure's Runner, which takes {LARGEST_MESSAGE}, or save what is large as an artifact"
            )
        super().check()

    def check_said(self) -> None:
        """The same, whatever the size and the id.

        Raises:
            InvalidMessage, InvalidContent: as in :meth:`check`.
        """
        if sum(said is not None for said in (self.text, self.content, self.blob)) != 1:
            raise InvalidMessage("a message has either text or content; this one has both or neither")
        if self.blob is not None and not 0 < len(self.blob) <= BLOB_LENGTH:
            raise InvalidMessage("the message's blob is not the key of one")
        if self.during not in DURING:
            raise InvalidMessage(f"during is one of {', '.join(DURING)}, and not {self.during[:80]!r}")
        if self.text is not None and not self.text.strip():
            raise InvalidMessage("the message is empty")
        if self.content is not None:
            parts = self.content.get("parts")
            if not parts:
                raise InvalidMessage("the message's content has no parts")
            if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
                raise InvalidMessage("the parts of the message's content are no list of objects")
        json_copy(self.text if self.content is None else self.content, "the message", under=LEVELS_ABOVE)

    @property
    def size(self) -> int:
        """Bytes of what the user said."""
        said = self.text if self.content is None else json.dumps(self.content, ensure_ascii=False)
        return len((said or "").encode("utf-8", "surrogatepass"))


class RewindRequest(Request):
    """Rewind to just before an invocation; before a rewind's own id, that is redo."""

    before: str
    request_id: str | None = None
    """Names the rewind, and its marker's invocation. Sent twice under one id, it happens once."""


class CancelRequest(Request):
    """End the running turn; with an id, that turn only, or keep the message of that id from being run."""

    invocation_id: str | None = None


class EndRequest(Request):
    """Close the session, once the messages before this one are done with."""

    request_id: str | None = None


class CompactRequest(Request):
    """Sum up what has ended so far, without waiting for it to be due."""

    request_id: str | None = None
    """Names the summary. Sent twice under one id, it is written once."""


class RememberRequest(Request):
    """Put what is live into the user's memory."""

    request_id: str | None = None
    """Names the request. However often it is sent, what is live is there once."""


class ArtifactRequest(Request):
    """List an artifact version whose bytes are in the store already."""

    request_id: str
    name: str
    version: int


class Reply(Record):
    """How a turn ended. The answer itself is in the database, at ``seq``."""

    invocation_id: str
    status: str
    """``answered``, ``failed`` or ``cancelled``; or ``waiting``: it goes on later."""
    seq: int = 0
    text: str | None = None
    failure: Failure | None = None
    waiting: Sequence[Waiting] = ()


class Ack(Record):
    """A steering request is done: its id, and the seq of the event that records it."""

    request_id: str
    seq: int


class Compacted(Record):
    """What came of a request to sum up."""

    request_id: str
    seq: int | None = None
    """Of the summary; none where there was nothing to sum up."""


class InMemory(Record):
    """What the user's memory has of the session now."""

    request_id: str
    upto: int
    """The seq up to which all that is live is in it."""
    passages: int
    """The pieces of text it is in."""


class Item(Record):
    """One entry of the inbox, as it is carried into the next run."""

    kind: str
    """``turn`` or ``end``."""
    id: str
    message: Message | None = None
    cancelled: bool = False
    """It was cancelled before its turn: that is not to run."""

    @property
    def joins(self) -> bool:
        """Whether it is to join the turn that runs."""
        return self.message is not None and self.message.during == "join" and not self.cancelled

    @property
    def interrupts(self) -> bool:
        """Whether the turn that runs is to end for it."""
        return self.message is not None and self.message.during == "interrupt"

    @property
    def alone(self) -> Item:
        """The same as a turn of its own, where it was to join another."""
        if self.message is None or not self.joins:
            return self
        return self.model_copy(update={"message": self.message.model_copy(update={"during": "queue"})})

    @property
    def size(self) -> int:
        """Bytes of it in what is carried."""
        return len(self.model_dump_json(exclude_unset=True).encode("utf-8", "surrogatepass"))


class Carry(Record):
    """What a run hands to the next on continue-as-new: a few hundred bytes and the inbox."""

    epoch: int | None = None
    inbox: Sequence[Item] = ()
    turns: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    tokens: int = 0
    nano_usd: int = 0
    warning: str | None = None
    budget: dict[str, float] | None = None
    rewinds: int = 0
    status: str = "open"
    model: str | None = None
    last_error: Failure | None = None
    refused: int = 0
    refused_ids: Sequence[str] = ()
    parked: Parked | None = None
    """The turn that waits for a person or the world."""
    joined: Sequence[str] = ()
    """The ids of the last messages that have joined it."""
    mail: Sequence[Notification] = ()
    """Notifications that came before anybody waited for them."""
    heard: Sequence[str] = ()
    """The ids of the last notifications."""
    dropped: int = 0
    was: Sequence[Was] = ()
    """The last calls that do not wait any more."""
    once: bool = False
    """It is the session of an agent that another has asked: it ends when it has answered."""
    tells: bool = False
    """The workflow that asked is to be told when its turn begins or ceases to wait."""

    def plus(self, **counts: int) -> Carry:
        """With these counted in."""
        return self.model_copy(update={name: getattr(self, name) + count for name, count in counts.items()})

    def without(self, refused_id: str) -> Carry:
        """With one more that was refused."""
        ids = [*self.refused_ids, refused_id][-REFUSED_IDS:]
        return self.plus(refused=1).model_copy(update={"refused_ids": ids})


class Status(Record):
    """What a session is doing now, the answer of the ``status`` query."""

    status: str
    doing: str | None = None
    invocation_id: str | None = None
    queued: int = 0
    epoch: int | None = None
    turns: int = 0
    model_calls: int = 0
    tool_calls: int = 0
    tokens: int = 0
    """Of the turns that are over, as far as the workflow knows; the session's row counts all there is."""
    usd: float = 0.0
    """The same in US dollars, where prices are known."""
    turn_tokens: int = 0
    """Of the turn that runs, so far."""
    turn_usd: float = 0.0
    warning: str | None = None
    """What was nearly spent of the agent's budget when the model answered last."""
    budget: dict[str, float] | None = None
    """What that allows: ``tokens``, ``money`` and ``steps`` of the session, ``turn_money``."""
    rewinds: int = 0
    compacting: bool = False
    last_error: Failure | None = None
    refused: int = 0
    """Signals that found the inbox full, and were not taken."""
    refused_ids: Sequence[str] = ()
    """The message ids of the last of them."""
    waiting: Sequence[Waiting] = ()
    """The calls that wait for a person or the world."""
    mail: int = 0
    """Notifications that came before anybody waited for them, and are kept."""
    dropped: int = 0
    """Those that were not: too many were kept."""
    joined: Sequence[str] = ()
    """The ids of the messages that have joined the running turn."""
    agents: Sequence[AskedAgent] = ()
    """The agents that it has asked, and that are not over: each is a session of its own."""
