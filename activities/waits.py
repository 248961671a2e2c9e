"""Calls that wait for a person or the world: what the log says of them, and what becomes of them.

That a call waits is an event of the log, so whoever follows the session sees it, and a call
that was begun is not begun again: ``{invocation}:a{step}.{index}`` where a person must approve of it,
``{invocation}:k{step}.{index}`` where its tool has run and left a ticket or asked for a pause. Neither
is a response, and no prompt shows them. The time is counted from that event, whichever worker,
or workflow, waits for it then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from activities.protocol import LONGEST, Resolution, ToolOutcome, ToolTask, Wait, call_id_of
from perdure.agent import Limits
from perdure.errors import CallNotFound
from perdure.pause import Pause, Sleep, WaitForEvent
from perdure.tool import Tool
from perdure.types import Event, Json, JsonObject, given

__all__ = [
    "OLD_WORKFLOW",
    "AnswerTo",
    "answer_to",
    "approval_event_id",
    "approval_id_of",
    "approval_of",
    "approved",
    "begun_event_id",
    "begun_id_of",
    "begun_of",
    "in_short",
    "outcome_of",
    "parts_of_call_id",
    "settled_meta",
    "ticket_of",
    "too_long",
    "wait_ids",
    "waits_of",
]

PLACE_LENGTH = 20
"""Characters of a step and an index in the id of a call."""
OLD_WORKFLOW = "This call must wait, and the worker of this session is of a release that cannot wait yet."
"""What the model is told where a session's workflow runs code from before there were waits."""


LONGEST_KEPT = 1_000
"""Characters that a ticket's meta keeps of the arguments that a person has given."""


def approval_id_of(invocation_id: str, step: int, index: int) -> str:
    """The id of the event that asks a person."""
    return f"{invocation_id}:a{step}.{index}"


def approval_event_id(task: ToolTask) -> str:
    """The same, of a task."""
    return approval_id_of(task.invocation_id, task.step, task.index)


def begun_id_of(invocation_id: str, step: int, index: int) -> str:
    """The id of the event that holds the ticket of a tool that has run."""
    return f"{invocation_id}:k{step}.{index}"


def begun_event_id(task: ToolTask) -> str:
    """The same, of a task."""
    return begun_id_of(task.invocation_id, task.step, task.index)


def parts_of_call_id(call_id: str) -> tuple[str, int, int]:
    """The invocation, the step and the index that a call's id is made of.

    Raises:
        CallNotFound: it is no call's.
    """
    invocation_id, _, place = call_id.rpartition(":t")
    step, _, index = place.partition(".")
    if not (invocation_id and step.isdecimal() and index.isdecimal() and len(place) <= PLACE_LENGTH):
        raise CallNotFound(f"{call_id[:200]!r} is the id of no call")
    return invocation_id, int(step), int(index)


def wait_ids(task: ToolTask) -> list[str]:
    """Both."""
    return [approval_event_id(task), begun_event_id(task)]


def approved(resolution: Resolution | None) -> bool:
    """Whether a person said yes, to these arguments or to others."""
    return resolution is not None and resolution.decision in ("yes", "changed")


def approval_of(tool: Tool, limits: Limits) -> Wait:
    """What a call waits for that a person must approve of."""
    seconds = tool.confirm_timeout if tool.confirm_timeout is not None else limits.waiting_timeout
    then = tool.on_timeout if tool.on_timeout != "refuse" else None
    return _wait(kind="approval", seconds=seconds, then=then)


def begun_of(tool: Tool, limits: Limits, result: JsonObject | Pause) -> Wait | None:
    """What a call waits for whose tool has run; None if that was its result."""
    if isinstance(result, Sleep):
        return _wait(kind="timer", seconds=max(result.seconds, 0.0))
    if isinstance(result, WaitForEvent):
        seconds = result.timeout if result.timeout is not None else limits.waiting_timeout
        return _wait(kind="event", event=result.name, seconds=seconds)
    if not tool.long_running:
        return None
    seconds = tool.result_timeout if tool.result_timeout is not None else limits.waiting_timeout
    return _wait(kind="result", seconds=seconds)


def ticket_of(task: ToolTask, tool: str, wait: Wait, ticket: Json = None) -> JsonObject:
    """The meta of the event that says that a call waits."""
    said = {"step": task.step, "index": task.index, "tool": tool, **wait.model_dump(exclude_unset=True)}
    return {"wait": said, **({} if ticket is None else {"ticket": ticket})}


def outcome_of(event: Event) -> ToolOutcome:
    """What is left of the wait that an event of the log began."""
    wait = Wait.model_validate(event.meta["wait"])
    if wait.seconds is not None:
        begun = event.created_at or datetime.now(UTC)
        passed = (datetime.now(UTC) - begun).total_seconds()
        left = wait.seconds - max(passed, 0.0)
        wait = wait.model_copy(update={"seconds": max(round(left, 3), 0.0)})
    return ToolOutcome(waiting=wait)


def waits_of(events: Sequence[Event]) -> list[JsonObject]:
    """The calls that wait, as far as live events tell, in order: the fields of a ``Waiting`` of each."""
    waits: dict[str, JsonObject] = {}
    for event in events:
        if said := event.meta.get("wait"):
            call_id = call_id_of(event.invocation_id, said["step"], said["index"])
            waits[call_id] = _fields(call_id, event, said)
        elif told := event.meta.get("progress"):
            waits.get(told["call_id"], {}).update(text=told.get("text"), percent=told.get("percent"))
        elif event.meta.get("interrupted"):
            waits = {
                each: of for each, of in waits.items() if not each.startswith(f"{event.invocation_id}:t")
            }
        else:
            waits.pop(event.id, None)
    return list(waits.values())


def _fields(call_id: str, event: Event, said: JsonObject) -> JsonObject:
    since, seconds = event.created_at, said.get("seconds")
    until = since + timedelta(seconds=min(seconds, LONGEST)) if since and seconds is not None else None
    more: JsonObject = {name: said[name] for name in ("event", "then") if name in said}
    return {
        "call_id": call_id,
        "tool": said["tool"],
        "kind": said["kind"],
        "since": since,
        "until": until,
        **more,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class AnswerTo:
    """The response to a call that has waited."""

    response: JsonObject
    error: str | None = None
    """It failed by this, instead."""


def answer_to(resolution: Resolution, begun: Event | None, asked: Event | None, value: Json) -> AnswerTo:
    """The response to a call whose wait is over, and whose tool is not to run now.

    Args:
        resolution: what came of it.
        begun: the event with its ticket, if it has one.
        asked: the event that asked a person, if one did.
        value: what was sent with the resolution.
    """
    wait = _begun_wait(begun or asked)
    if resolution.decision == "expired":
        return _expired(wait)
    if resolution.decision == "no":
        why = f": {resolution.reason}" if resolution.reason else "."
        return AnswerTo(response={"error": f"A person refused this call{why}"})
    if resolution.decision == "failed":
        return AnswerTo(response={}, error=resolution.reason or "It failed.")
    if resolution.decision == "event":
        payload = {} if value is None else {"payload": value}
        return AnswerTo(response={"event": wait.event, **payload})
    return AnswerTo(response=value if isinstance(value, dict) else {"result": value})


def settled_meta(resolution: Resolution) -> JsonObject:
    """What the log keeps of who settled a call, and how."""
    return given(decision=resolution.decision, by=resolution.by, reason=resolution.reason)


def in_short(arguments: JsonObject) -> Json:
    """The arguments as a ticket's meta keeps them: of much only the beginning, as text."""
    said = json.dumps(arguments, ensure_ascii=False)
    return arguments if len(said) <= LONGEST_KEPT else f"{said[:LONGEST_KEPT]}…"


def too_long(ticket: Json, limits: Limits) -> bool:
    """Whether a ticket is more than a ticket."""
    return len(json.dumps(ticket, ensure_ascii=False)) > limits.result_chars


def _expired(wait: Wait) -> AnswerTo:
    waited = f" within {wait.seconds:g} seconds" if wait.seconds is not None else " in time"
    if wait.kind == "timer":
        return AnswerTo(response={"time": datetime.now(UTC).isoformat(timespec="seconds")})
    if wait.kind == "event":
        return AnswerTo(response={"event": wait.event, "error": f"It did not happen{waited}."})
    if wait.kind == "result":
        return AnswerTo(response={}, error=f"No result came{waited}.")
    return AnswerTo(response={"error": f"Nobody approved of this call{waited}; it was not run."})


def _begun_wait(event: Event | None) -> Wait:
    return Wait.model_validate(event.meta["wait"]) if event is not None else Wait(kind="approval")


def _wait(**fields: Json) -> Wait:
    return Wait(**given(**fields))
