"""Calls that wait, as google-adk's clients know them: what asks a person, and what somebody has answered.

google-adk asks a person by a call of its own, ``adk_request_confirmation``, which holds the call in
question; its clients answer that, or a long-running call, by a ``functionResponse`` of the user's, and take
a call that has none for one that waits. Perdure's log has records instead. Here they become such events.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from activities.prompt import calls_of, model_event_id
from activities.protocol import call_id_of
from activities.waits import approval_id_of
from gateway.adk_events import ASKS, OURS, call_id
from perdure.types import Event, Json, JsonObject

__all__ = ["CONFIRMATION", "Waits", "confirmation_id"]

CONFIRMATION = "adk_request_confirmation"
DECIDED = ("yes", "no", "changed")
SENT = ("result", "failed")


def confirmation_id(approval_id: str) -> str:
    """The id of the call that asks a person.

    Args:
        approval_id: of the event that says so in the log.
    """
    return OURS + approval_id


class Waits:
    """Turns events, one after the other, into those that google-adk's clients expect.

    Args:
        before: events of models that went before: the calls in question may be in them.
    """

    def __init__(self, before: Iterable[Event] = ()) -> None:
        self._asked: dict[str, Event] = {}
        self._open: set[str] = set()
        """The calls a person was asked about, and that were not decided."""
        for event in before:
            self._asked[event.id] = event

    def shown(self, event: Event) -> list[Event]:
        """What stands for an event: most stand for themselves, some for nothing."""
        if "step" in event.meta and not event.partial:
            self._asked[event.id] = event
        if wait := event.meta.get("wait"):
            return [*self._decision(event, wait), *self._begun(event, wait)]
        if "progress" in event.meta:
            return []
        if place := event.meta.get("call"):
            return [*self._decision(event, place), self._answered(event)]
        return [event]

    def _begun(self, event: Event, wait: JsonObject) -> list[Event]:
        step, index = wait["step"], wait["index"]
        found = self._call(event, step, index)
        if found is not None and event.id == approval_id_of(event.invocation_id, step, index):
            self._open.add(call_id_of(event.invocation_id, step, index))
            return [_asking(event, *found)]
        if found is not None and "ticket" in event.meta:
            asked, call = found
            response = {"id": call["id"], "name": call.get("name"), "response": event.meta["ticket"]}
            content = {"role": "user", "parts": [{"functionResponse": response}]}
            return [replace(event, author=asked.author, content=content)]
        return [event] if event.state_delta or event.artifact_delta else []

    def _decision(self, event: Event, place: JsonObject) -> list[Event]:
        """What a person has decided, before what came of it."""
        settled = (event.meta.get("settled") or {}).get("decision")
        step, index = place["step"], place["index"]
        call = call_id_of(event.invocation_id, step, index)
        if settled not in DECIDED and not (settled == "expired" and call in self._open):
            return []
        self._open.discard(call)
        response = {
            "id": confirmation_id(approval_id_of(event.invocation_id, step, index)),
            "name": CONFIRMATION,
            "response": {"confirmed": settled in ("yes", "changed")},
        }
        return [
            Event(
                id=f"{event.id}:decided",
                invocation_id=event.invocation_id,
                author="user",
                content={"role": "user", "parts": [{"functionResponse": response}]},
                created_at=event.created_at,
                seq=event.seq,
            )
        ]

    def _answered(self, event: Event) -> Event:
        """What was sent for a long-running call is the user's, there."""
        sent = (event.meta.get("settled") or {}).get("decision") in SENT
        return replace(event, author="user") if sent else event

    def _call(self, event: Event, step: int, index: int) -> tuple[Event, JsonObject] | None:
        """The model's event and its call, with its id for those clients."""
        asked = self._asked.get(model_event_id(event.invocation_id, step))
        calls = calls_of(asked) if asked is not None else []
        if asked is None or index >= len(calls):
            return None
        return asked, {**calls[index], "id": call_id(asked, index, calls[index])}


def _asking(event: Event, asked: Event, call: JsonObject) -> Event:
    hint = f"Approve of this call of {call.get('name')}, or refuse it."
    arguments: Json = {
        "originalFunctionCall": call,
        "toolConfirmation": {"hint": hint, "confirmed": False},
    }
    asks = {"id": confirmation_id(event.id), "name": CONFIRMATION, "args": arguments}
    content = {"role": "model", "parts": [{"functionCall": asks}]}
    return replace(event, author=asked.author, content=content, meta={**event.meta, ASKS: True})
