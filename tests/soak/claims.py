"""One session's log against its ledger: what was acknowledged is there once, what was not at most once."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from activities.prompt import calls_of, model_event_id, response_event_id
from perdure.types import Event, JsonObject
from storage.turns import is_final
from tests.soak.agents import deeds_of
from tests.soak.ledger import Ledger, Sent, Steered

__all__ = ["Deed", "claims", "deeds"]

_STEP = re.compile(r":(user|end|m\d+|t\d+\.\d+)$")
_BILL = re.compile(r":[^:]+:spent\d+$")
"""How the event ends that counts a model call which came to nothing; before it stands whose that was."""


@dataclass(frozen=True, kw_only=True)
class Deed:
    """A call of a tool whose response is in the log."""

    event: Event
    tool: str
    order: str

    @property
    def done(self) -> Sequence[str]:
        """What it changed."""
        return () if self.tool == "ponder" else deeds_of(self.order)


def deeds(log: Sequence[Event]) -> Iterator[Deed]:
    """Every call that has a response without an error, in the order of the log."""
    asked = {event.id: event for event in log if calls_of(event)}
    for event in log:
        if place := event.meta.get("call"):
            call = calls_of(asked[model_event_id(event.invocation_id, place["step"])])[place["index"]]
            if event.error is None and "error" not in _response(event)["response"]:
                yield Deed(event=event, tool=call["name"], order=call["args"]["order"])


def claims(ledger: Ledger, log: Sequence[Event]) -> Iterator[str]:
    """What is wrong, in words."""
    if [event.seq for event in log] != list(range(1, len(log) + 1)):
        yield f"the log is not dense: {[event.seq for event in log]}"
        return
    ids = [event.id for event in log]
    yield from (f"event {name} is there {ids.count(name)} times" for name in set(ids) if ids.count(name) > 1)
    turns: dict[str, list[Event]] = defaultdict(list)
    for event in log:
        if event.compaction is None:
            turns[event.invocation_id].append(event)
    yield from _strangers(ledger, log)
    for sent in ledger.sent.values():
        yield from (f"{sent.id}: {what}" for what in _turn(sent, turns[sent.id]))
    for steered in ledger.steered.values():
        yield from (f"{steered.kind} {steered.id}: {what}" for what in _steered(steered, log))
    yield from _order(ledger)


def _strangers(ledger: Ledger, log: Sequence[Event]) -> Iterator[str]:
    """Nothing is in the log that nobody asked for."""
    own = False
    for event in log:
        asked = _asked_for(event)
        if ledger.owns(asked):
            own = True
            if asked not in ledger.sent and asked not in ledger.steered:
                yield f"event {event.id} at {event.seq} is of an invocation that nobody asked for"
        elif own or ledger.source is None:
            yield f"event {event.id} at {event.seq} belongs to another session"


def _asked_for(event: Event) -> str:
    """The invocation that an event is of, or for whose model call it is a bill."""
    is_bill = event.meta.keys() == {"spent"} and event.content is None and not event.state_delta
    return _BILL.sub("", event.invocation_id) if is_bill else event.invocation_id


def _turn(sent: Sent, events: Sequence[Event]) -> Iterator[str]:
    yield from (f"event {event.id} is of no turn" for event in events if not _STEP.search(event.id))
    if "SessionEnded" in sent.refusals and events:
        yield f"it was refused, and is in the log: {[event.id for event in events]}"
    finals = [event for event in events if is_final(event)]
    if len(finals) > 1:
        yield f"it ended {len(finals)} times: {[event.id for event in finals]}"
    failed = [event for event in events if event.error]
    yield from (f"{event.id} failed: {event.error}" for event in failed)
    yield from _told(sent, events)
    if not events:
        return
    interrupted = bool(finals and finals[0].meta.get("interrupted"))
    if sent.alone and (not finals or interrupted):
        yield f"it has no answer, and nobody disturbed it: {[event.id for event in events]}"
    users = [event for event in events if event.id == f"{sent.id}:user"]
    if (users and users[0].text != sent.text) or (not users and not interrupted):
        yield f"the user's event is not what was sent: {[event.text for event in users]}"
    if finals and not interrupted:
        yield from _whole(sent, events, finals[0])
    else:
        yield from _part(events)


def _whole(sent: Sent, events: Sequence[Event], final: Event) -> Iterator[str]:
    """A turn that was answered has each of its events, in order."""
    expected = [f"{sent.id}:user", model_event_id(sent.id, 1)]
    if sent.orders:
        responses = {response_event_id(sent.id, 1, index) for index in range(len(sent.orders))}
        found = [event.id for event in events[2:-1]]
        if set(found) != responses or len(found) != len(responses):
            yield f"{len(sent.orders)} calls have the responses {found}"
        expected.append(model_event_id(sent.id, 2))
    ends = [event.id for event in (events if not sent.orders else [*events[:2], *events[-1:]])]
    if ends != expected:
        yield f"its events are {[event.id for event in events]}"
    asked = [(call["name"], call["args"].get("order")) for call in calls_of(events[1])] if events[1:] else []
    if asked != [(sent.tool, order) for order in sent.orders]:
        yield f"the calls are {asked}"
    for event in events:
        if "call" in event.meta:
            order = sent.orders[event.meta["call"]["index"]]
            if _response(event)["response"] != {"result": f"did {order}"}:
                yield f"{event.id} says {_response(event)}"
    if sent.id not in final.text:
        yield f"the answer is {final.text!r}"


def _part(events: Sequence[Event]) -> Iterator[str]:
    """A turn that was stopped: no response without its call."""
    asked = {event.id: len(calls_of(event)) for event in events}
    for event in events:
        place = event.meta.get("call")
        if place and place["index"] >= asked.get(model_event_id(event.invocation_id, place["step"]), 0):
            yield f"{event.id} answers no call"


def _told(sent: Sent, events: Sequence[Event]) -> Iterator[str]:
    """What askers were told is what the log has, each time."""
    final = next((event for event in events if is_final(event)), None)
    for answer in sent.answers:
        if answer.invocation_id != sent.id:
            yield f"the answer is that of {answer.invocation_id}"
        elif answer.status == "answered":
            if final is None or (final.seq, final.text) != (answer.seq, answer.text):
                yield f"the answer {answer.text!r} at {answer.seq} is not in the log, which has {final}"
        elif answer.status == "failed":
            yield f"it failed: {answer.failure}"
        elif answer.status == "cancelled" and answer.seq == 0 and not events:
            continue  # it still waited for its turn
        elif not sent.rewound and (final is None or not final.meta.get("interrupted")):
            yield f"an asker was told {answer.status}, and the log has {final and final.id}"
    if len({answer.status for answer in sent.answers}) > 1 and not sent.rewound:
        yield f"askers were told {[answer.status for answer in sent.answers]}"


def _steered(steered: Steered, log: Sequence[Event]) -> Iterator[str]:
    event_id = f"{steered.id}:{'rewind' if steered.kind == 'rewind' else 'compact'}"
    found = [event for event in log if event.id == event_id]
    if steered.kind == "rewind" and steered.refused and found:
        yield f"it was refused ({steered.refused}), and happened at {found[0].seq}"
    places = [event.seq for event in found]
    if steered.acknowledged and steered.seq is not None and places != [steered.seq]:
        yield f"acknowledged at {steered.seq}, and is at {places}"
    if any(event.rewind and event.rewind["before"] != steered.before for event in found):
        yield f"it rewound to before {[event.rewind and event.rewind['before'] for event in found]}"


def _order(ledger: Ledger) -> Iterator[str]:
    """What was asked after something had been acknowledged comes after it."""
    known = [
        (sent.group, answer.seq, sent.id)
        for sent in ledger.sent.values()
        for answer in sent.answers[:1]
        if answer.status == "answered"
    ]
    known += [(each.group, each.seq, each.id) for each in ledger.steered.values() if each.seq is not None]
    highest, last, before, floor, below = 0, "", 0, 0, ""
    for group, seq, name in sorted(known):
        if group != before:
            before, floor, below = group, highest, last
        if seq <= floor:
            yield f"{name}, at {seq}, was asked for after {below}, at {floor}, had been acknowledged"
        if seq > highest:
            highest, last = seq, name


def _response(event: Event) -> JsonObject:
    [part] = (event.content or {})["parts"]
    found: JsonObject = part["functionResponse"]
    return found
