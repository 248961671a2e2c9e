"""How a turn ended, as those hear who have asked: from Temporal that it did, from the database how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from activities.protocol import Failure
from perdure.structured import json_of
from perdure.types import Event, Json, Spent
from workflows.messages import Reply
from workflows.wait_messages import Waiting

__all__ = ["Answer", "answer_of"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """How a turn ended, with the answer's text as the database has it."""

    invocation_id: str
    status: str
    """``answered``, ``failed`` or ``cancelled``; or ``waiting``, and the turn goes on later."""
    seq: int
    text: str
    failure: Failure | None = None
    waiting: Sequence[Waiting] = ()
    """The calls that it waits for."""
    output: Json = None
    """What the text is as JSON, where the agent has an ``output_schema``."""
    spent: Spent | None = None
    """What the turn's model calls took; None where it waits, or was cancelled."""


def answer_of(reply: Reply, ended: Event | None) -> Answer:
    """The answer behind a reply.

    Args:
        reply: what the workflow said.
        ended: the event that ended the turn, where there is one.
    """
    said = ended if ended is not None and reply.status == "answered" else None
    # Temporal has the reason without the words of the model's server; the log has it in full.
    error = ended.error if ended is not None else None
    turn = ended.meta.get("turn") if ended is not None else None
    return Answer(
        invocation_id=reply.invocation_id,
        status=reply.status,
        seq=reply.seq,
        text=said.text if said is not None else "",
        failure=Failure.model_validate(error) if error else reply.failure,
        waiting=reply.waiting,
        output=json_of(said.text) if said is not None and said.meta.get("structured") else None,
        spent=Spent(**turn) if turn else None,
    )
