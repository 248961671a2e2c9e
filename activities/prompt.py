"""The prompt of a model call, from the live part of the log.

Gemini answers 400 unless every function call is followed at once by exactly its
responses. The log cannot promise that: calls of one step answer in any order, and a
cancelled turn leaves calls without an answer for ever. So responses are gathered behind
their call here, in call order, and a missing one is made up and says so.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perdure.agent import Agent
from perdure.instructions import render
from perdure.types import Event, Json, JsonObject, text_of

__all__ = [
    "Prompt",
    "build_prompt",
    "calls_of",
    "contents_of",
    "is_user_message",
    "model_event_id",
    "response_event_id",
]

UNANSWERED = "This call was interrupted and has no result."
SUMMARY_HEADING = "Summary of the conversation so far:\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """What the model is sent."""

    system: str
    contents: Sequence[JsonObject]

    @property
    def chars(self) -> int:
        """Its size, in characters of JSON: what "the context got smaller" is measured by."""
        return len(self.system) + len(json.dumps(self.contents, ensure_ascii=False))


def build_prompt(
    agent: Agent, state: Mapping[str, Json], summary: Event | None, events: Iterable[Event]
) -> Prompt:
    """The prompt for the next step: instruction, the live summary, and the raw tail.

    Args:
        agent: whose instruction is rendered with ``state``.
        state: the session's state, all scopes.
        summary: the newest live compaction event.
        events: live events from the summary's tail on, in order, compactions left out.
    """
    return Prompt(system=render(agent.instruction, state), contents=contents_of(summary, events))


def contents_of(summary: Event | None, events: Iterable[Event]) -> list[JsonObject]:
    """The conversation as genai contents in wire form, calls and responses paired."""
    events = list(events)
    responses = {event.id: event for event in events if "call" in event.meta}
    contents: list[JsonObject] = []
    if summary is not None:
        contents.append({"role": "user", "parts": [{"text": SUMMARY_HEADING + text_of(summary.content)}]})
    for event in events:
        if not event.content or not event.content.get("parts") or event.id in responses:
            continue
        contents.append(event.content)
        calls = calls_of(event)
        if calls:
            parts = [
                part
                for index, call in enumerate(calls)
                for part in _response_parts(call, responses.get(_response_id(event, index)))
            ]
            contents.append({"role": "user", "parts": parts})
    return contents


def calls_of(event: Event) -> list[JsonObject]:
    """The function calls a model event asks for, in order, exactly as they came."""
    parts = (event.content or {}).get("parts") or ()
    return [part["functionCall"] for part in parts if part.get("functionCall")]


def is_user_message(event: Event) -> bool:
    """Whether the event is a message of the user's, which begins an invocation."""
    return event.author == "user" and event.content is not None


def model_event_id(invocation_id: str, step: int) -> str:
    """The id of the answer that a step's model call gives."""
    return f"{invocation_id}:m{step}"


def response_event_id(invocation_id: str, step: int, index: int) -> str:
    """The id of the response to call ``index`` (from 0) of a step."""
    return f"{invocation_id}:t{step}.{index}"


def _response_id(event: Event, index: int) -> str:
    return response_event_id(event.invocation_id, event.meta["step"], index)


def _response_parts(call: JsonObject, response: Event | None) -> list[Any]:
    if response is not None and response.content:
        return list(response.content["parts"])
    made_up = {"name": call.get("name"), "response": {"error": UNANSWERED}}
    return [{"functionResponse": {"id": call["id"], **made_up} if call.get("id") else made_up}]
