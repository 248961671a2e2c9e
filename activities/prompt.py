"""The prompt of a model call, from the live part of the log.

Gemini answers 400 unless every function call is followed at once by exactly its
responses. The log cannot promise that: calls of one step answer in any order, a cancelled
turn leaves calls without an answer for ever, and what others put into the log, a user's
message or a session brought over from elsewhere, may hold anything. So responses are
gathered behind their call here, in call order; a missing one is made up and says so, and
one that answers nothing is left out.

An event always becomes the same contents, whatever comes after it but the answers to its
own calls. So from call to call a prompt only grows at its end, until a summary shortens it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from activities.protocol import call_id_of
from perdure.agent import Agent
from perdure.instructions import render
from perdure.types import Event, Json, JsonObject, text_of

__all__ = [
    "Piece",
    "Prompt",
    "build_prompt",
    "calls_of",
    "contents_of",
    "is_user_message",
    "model_event_id",
    "pieces_of",
    "response_event_id",
]

UNANSWERED = "This call was interrupted and has no result."
OPENING = "(The agent begins the conversation.)"
"""Gemini wants the user to begin; so where an agent did, this goes before it."""
MODEL = "model"
SUMMARY_HEADING = "Summary of the conversation so far:\n"

_Answer = tuple[Event, JsonObject]
"""A function response, and the event that it is in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """What the model is sent."""

    system: str
    contents: Sequence[JsonObject]

    @property
    def chars(self) -> int:
        """Its size, in characters of JSON: what "the context got smaller" is measured by."""
        return len(self.system) + len(json.dumps(self.contents, ensure_ascii=False))


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One content of a prompt."""

    content: JsonObject
    events: Sequence[Event]
    """What it is made of; the responses of a step's calls are one content."""


def build_prompt(
    agent: Agent,
    state: Mapping[str, Json],
    summary: Event | None,
    events: Iterable[Event],
    notes: Mapping[str, str] | None = None,
) -> Prompt:
    """The prompt for the next step: instruction, the live summary, and the raw tail.

    Args:
        agent: whose instruction is rendered with ``state``.
        state: the session's state, all scopes.
        summary: the newest live compaction event.
        events: live events from the summary's tail on, in order, compactions left out.
        notes: what goes before the words of messages, by their events' ids.
    """
    contents = [_noted(piece, notes or {}) for piece in pieces_of(summary, events)]
    return Prompt(system=render(agent.instruction, state), contents=contents)


def contents_of(summary: Event | None, events: Iterable[Event]) -> list[JsonObject]:
    """The conversation as genai contents in wire form, calls and responses paired."""
    return [piece.content for piece in pieces_of(summary, events)]


def _noted(piece: Piece, notes: Mapping[str, str]) -> JsonObject:
    note = notes.get(piece.events[0].id) if piece.events else None
    if note is None:
        return piece.content
    return {**piece.content, "parts": [{"text": note}, *piece.content["parts"]]}


def pieces_of(summary: Event | None, events: Iterable[Event]) -> Iterator[Piece]:
    """The contents of a prompt, each with the events that it is made of."""
    events = list(events)
    responses = {event.id: event for event in events if "call" in event.meta}
    begun = summary is not None
    if summary is not None:
        heading = {"role": "user", "parts": [{"text": SUMMARY_HEADING + text_of(summary.content)}]}
        yield Piece(content=heading, events=[summary])
    for place, event in enumerate(events):
        content = None if event.id in responses else _said(event)
        if content is None:
            continue
        if not begun and content.get("role") == MODEL:
            yield Piece(content={"role": "user", "parts": [{"text": OPENING}]}, events=[])
        begun = True
        yield Piece(content=content, events=[event])
        if repair := event.meta.get("repair"):
            yield Piece(content={"role": "user", "parts": [{"text": repair}]}, events=[event])
        if calls := calls_of(event):
            ours = [responses.get(_response_id(event, index)) for index in range(len(calls))]
            foreign = _foreign_responses(events, place) if "step" not in event.meta else []
            yield _answers(calls, ours, foreign)


def calls_of(event: Event) -> list[JsonObject]:
    """The function calls a model event asks for, in order, exactly as they came."""
    if (event.content or {}).get("role") != MODEL:
        return []
    return [part["functionCall"] for part in _parts(event) if part.get("functionCall")]


def is_user_message(event: Event) -> bool:
    """Whether the event is a message of the user's, which begins an invocation or has joined it."""
    return event.author == "user" and event.content is not None


def model_event_id(invocation_id: str, step: int) -> str:
    """The id of the answer that a step's model call gives."""
    return f"{invocation_id}:m{step}"


def response_event_id(invocation_id: str, step: int, index: int) -> str:
    """The id of the response to call ``index`` (from 0) of a step."""
    return call_id_of(invocation_id, step, index)


def _parts(event: Event) -> list[JsonObject]:
    parts = (event.content or {}).get("parts")
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _said(event: Event) -> JsonObject | None:
    """What an event says by itself, responses left out; exactly as it came, if that is all of it."""
    if not event.content:
        return None
    asking = event.content.get("role") == MODEL
    parts = [part for part in _parts(event) if _has_place(part, asking=asking)]
    if not parts:
        return None
    return event.content if parts == event.content["parts"] else {**event.content, "parts": parts}


def _has_place(part: JsonObject, *, asking: bool) -> bool:
    """Whether a part may stand where it is: it is not empty, answers nothing, and only a model calls."""
    if part in ({}, {"text": ""}) or _either(part, "functionResponse", "function_response"):
        return False
    return asking or not _either(part, "functionCall", "function_call")


def _response_id(event: Event, index: int) -> str:
    return response_event_id(event.invocation_id, event.meta.get("step", 0), index)


def _foreign_responses(events: Sequence[Event], place: int) -> list[_Answer]:
    """The responses behind calls that are not ours, up to the next calls; matched by id and name."""
    found: list[_Answer] = []
    for index in range(place + 1, len(events)):
        event = events[index]
        if calls_of(event):
            break
        said = (_either(part, "functionResponse", "function_response") for part in _parts(event))
        found += [(event, answer) for answer in said if isinstance(answer, dict)]
    return found


def _answers(calls: Sequence[JsonObject], ours: Sequence[Event | None], foreign: list[_Answer]) -> Piece:
    """The content behind calls: a response for each, in their order."""
    parts: list[Any] = []
    events: list[Event] = []
    for call, response in zip(calls, ours, strict=True):
        named = (call.get("id"), call.get("name"))
        at = next(
            (at for at, (_, said) in enumerate(foreign) if (said.get("id"), said.get("name")) == named), -1
        )
        if response is not None and response.content:
            parts += response.content["parts"]
            events.append(response)
        elif at >= 0:
            event, said = foreign.pop(at)
            parts.append({"functionResponse": said})
            events.append(event)
        else:
            made_up = {"name": call.get("name"), "response": {"error": UNANSWERED}}
            parts.append({"functionResponse": {"id": call["id"], **made_up} if call.get("id") else made_up})
    return Piece(content={"role": "user", "parts": parts}, events=events)


def _either(part: JsonObject, camel: str, snake: str) -> Any:
    return part.get(camel) or part.get(snake)
