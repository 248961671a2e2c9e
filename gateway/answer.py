"""How a turn ended, as those hear who have asked: from Temporal that it did, from the database how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from activities.oversize import says_the_same
from activities.protocol import Failure
from perdure.structured import json_of
from perdure.types import Event, Json, JsonObject, SessionKey, Spent
from storage.sessions import SessionStore
from workflows.messages import Reply
from workflows.wait_messages import Waiting

__all__ = ["Answer", "answer_of", "first_answer"]


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


async def first_answer(
    store: SessionStore, key: SessionKey, message_id: str, content: JsonObject
) -> Answer | None:
    """The answer of a message that was sent before, if the log has it.

    Behind a turn that waits the workflow cannot tell whether a message is new, and says that it waits.

    Args:
        store: where the session lives.
        key: the session.
        message_id: the message's.
        content: what it says. With other words it is another message, and refused when its turn comes.
    """
    found = await store.ending(key, message_id)
    if found is None:
        return None
    first, ended = found
    if not says_the_same(first, replace(first, content={**content, "role": "user"})):
        return None
    status = "failed" if ended.error else "cancelled" if ended.meta.get("interrupted") else "answered"
    return answer_of(Reply(invocation_id=ended.invocation_id, status=status, seq=ended.seq), ended)


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
