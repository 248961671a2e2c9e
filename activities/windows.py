"""Which events a compaction sums up, and when one is due. Pure functions over live events.

A window is a stretch of the log. All of it goes into the summary; from ``tail`` on it also
stays in the prompt. What must stay raw bounds it, and the log alone says what that is:

- a turn that has not ended, unless a later one has begun after its last event: turns of a
  session run one after the other, so that one was lost and will not go on;
- a call that waits for a person or the world, with the whole invocation that it is in: one
  that the model's event lists in ``meta["long_running"]`` (numbers of calls, from 0) or, from
  google-adk, in ``longRunningToolIds``, and that has no response yet; and one whose newest
  response says ``meta["waiting"]``. It waits until it is answered, or until its invocation is
  marked as ended (cancelled, failed);
- a call never loses its response across an edge of a window.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from activities.prompt import calls_of, is_user_message
from activities.transcript import parts_of
from perdure.agent import Agent
from perdure.types import Event, Json, JsonObject
from storage.turns import is_final

__all__ = ["Window", "compaction_due", "find_window", "prompt_tokens"]

LEAST_GAIN = 4
"""A summary for the sake of tokens must take at least this part, a quarter, of the threshold out of the
prompt. Else an instruction that is longer than the threshold would be summed up for in every turn."""

BYTES_PER_TOKEN = 4
MEDIA_TOKENS = 260
"""What Gemini counts for an image; sound and film cost more, but say so in the usage of the next answer."""

_Key = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """A stretch of the log to sum up."""

    events: Sequence[Event]
    """What goes into the summary beside the one before: the overlap of last time, and what is new."""
    start: int
    """The first seq summed up, by the summary before where there is one."""
    end: int
    """The last seq summed up."""
    tail: int
    """The seq from which the prompt goes on raw; at most ``end + 1``."""
    invocations: int
    """How many have begun in it that no summary covers yet."""
    freed: int
    """About how many tokens of events leave the prompt."""


def find_window(
    summary: Event | None, events: Sequence[Event], *, overlap: int = 0, upto: str | None = None
) -> Window | None:
    """The events to sum up now; None if nothing is new, or nothing would leave the prompt.

    Args:
        summary: the newest live summary.
        events: the live events of the prompt, from the summary's tail on, without summaries.
        overlap: how many of the last invocations in the window stay in the prompt.
        upto: the invocation that the window ends with; None for as far as it can go.
    """
    before = summary.compaction if summary is not None and summary.compaction is not None else None
    pairs = list(_pairs(events))
    cut = _whole(events, pairs, min(_stop(events, upto), _first_that_must_stay(events)))
    kept = _whole(events, pairs, _overlap(events[:cut], overlap))
    covered = before["end"] if before is not None else 0
    new = [event for event in events[:cut] if event.seq > covered]
    if not (any(event.content for event in new) and any(event.content for event in events[:kept])):
        return None
    end = events[cut - 1].seq
    return Window(
        events=events[:cut],
        start=before["start"] if before is not None else events[0].seq,
        end=end,
        tail=events[kept].seq if kept < cut else end + 1,
        invocations=len({event.invocation_id for event in new if is_user_message(event)}),
        freed=sum(_tokens(event) for event in events[:kept]),
    )


def compaction_due(agent: Agent, summary: Event | None, events: Sequence[Event], invocation_id: str) -> bool:
    """Whether the agent's policy wants a summary, now that an invocation has ended.

    Args:
        agent: whose policy it is.
        summary: the newest live summary.
        events: the live events from its tail on, in order, summaries left out.
        invocation_id: what the window would end with.
    """
    policy = agent.compaction
    if policy is None:
        return False
    window = find_window(summary, events, overlap=policy.overlap, upto=invocation_id)
    if window is None:
        return False
    if policy.interval is not None and window.invocations >= policy.interval:
        return True
    return (
        policy.tokens is not None
        and window.freed * LEAST_GAIN >= policy.tokens
        and prompt_tokens(agent, summary, events) >= policy.tokens
    )


def prompt_tokens(agent: Agent, summary: Event | None, events: Sequence[Event]) -> int:
    """About how many tokens the next prompt begins with.

    It is what the model itself counted for its last answer, if that was given with this
    summary, and an estimate for what came after; an estimate of all of it where there is no count.
    """
    since = summary.seq if summary is not None else 0
    for index in range(len(events) - 1, -1, -1):
        if events[index].seq > since and (counted := _counted(events[index].usage)):
            return counted + sum(_tokens(event) for event in events[index + 1 :])
    declared = [tool.declaration for tool in agent.tools]
    fixed = _size(agent.instruction) + (_size(declared) if declared else 0)
    return fixed + (_tokens(summary) if summary is not None else 0) + sum(map(_tokens, events))


def _counted(usage: JsonObject | None) -> int:
    """Prompt and answer of one call. Thoughts were paid for, but are no part of the next prompt."""
    usage = usage or {}
    total = usage.get("totalTokenCount")
    return total - (usage.get("thoughtsTokenCount") or 0) if isinstance(total, int) else 0


def _stop(events: Sequence[Event], upto: str | None) -> int:
    """How many events there are up to the last one of an invocation."""
    if upto is None:
        return len(events)
    return max((index + 1 for index, event in enumerate(events) if event.invocation_id == upto), default=0)


def _first_that_must_stay(events: Sequence[Event]) -> int:
    """Where the first invocation begins that still goes on, or waits."""
    firsts = _firsts(events)
    open_ones = {*_unfinished(events), *_waiting(events)}
    return min((firsts[invocation] for invocation in open_ones), default=len(events))


def _unfinished(events: Sequence[Event]) -> Iterator[str]:
    """The invocations without an end, unless another one has begun since they last did anything."""
    turns = [event for event in events if event.content is not None or "final" in event.meta]
    last = {event.invocation_id: event for event in turns}
    # What is first here may be the late end of a turn whose beginning is summed up; a message begins one.
    said = [event for event in turns if is_user_message(event)]
    begun = max((said[index].seq for index in _firsts(said).values()), default=0)
    return (name for name, event in last.items() if not is_final(event) and event.seq >= begun)


def _waiting(events: Sequence[Event]) -> Iterator[str]:
    """The invocations in which a call waits for a person or the world."""
    over = {event.invocation_id for event in events if event.meta.get("final")}
    answers = _answers(events)
    for event in events:
        if event.invocation_id in over:
            continue
        for number, call in enumerate(calls_of(event)):
            found = _answered(answers, event, number, call)
            waits = found[-1][1].meta.get("waiting") if found else _is_long_running(event, number, call)
            if waits:
                yield event.invocation_id


def _pairs(events: Sequence[Event]) -> Iterator[tuple[int, int]]:
    """For each call that has one: its place, and the place of its last response."""
    answers = _answers(events)
    for index, event in enumerate(events):
        for number, call in enumerate(calls_of(event)):
            if found := _answered(answers, event, number, call):
                yield index, found[-1][0]


def _whole(events: Sequence[Event], pairs: Sequence[tuple[int, int]], cut: int) -> int:
    """The cut, moved back to where an invocation begins for as long as it parts a call from its response."""
    firsts = _firsts(events)
    while parted := [index for index, response in pairs if index < cut <= response]:
        cut = min(firsts[events[index].invocation_id] for index in parted)
    return cut


def _overlap(events: Sequence[Event], overlap: int) -> int:
    """Where the last so many invocations begin."""
    begins: dict[str, int] = {}
    for index, event in enumerate(events):
        if is_user_message(event):
            begins.setdefault(event.invocation_id, index)
    if not overlap:
        return len(events)
    return list(begins.values())[-overlap] if overlap <= len(begins) else 0


def _firsts(events: Sequence[Event]) -> dict[str, int]:
    """Where each invocation begins."""
    firsts: dict[str, int] = {}
    for index, event in enumerate(events):
        firsts.setdefault(event.invocation_id, index)
    return firsts


def _answers(events: Sequence[Event]) -> dict[_Key, list[tuple[int, Event]]]:
    """The responses in order, by the call that they name: its place in our own events, its id in others'."""
    found: dict[_Key, list[tuple[int, Event]]] = {}
    for index, event in enumerate(events):
        if call := event.meta.get("call"):
            keys: set[_Key] = {(event.invocation_id, str(call["step"]), str(call["index"]))}
        else:
            responses = [part.get("functionResponse") for part in parts_of(event)]
            keys = {(str(each["id"]),) for each in responses if isinstance(each, dict) and each.get("id")}
        for key in keys:
            found.setdefault(key, []).append((index, event))
    return found


def _answered(
    answers: dict[_Key, list[tuple[int, Event]]], event: Event, number: int, call: JsonObject
) -> list[tuple[int, Event]]:
    ours = answers.get((event.invocation_id, str(event.meta.get("step")), str(number)), [])
    others = answers.get((str(call["id"]),), []) if call.get("id") else []
    return sorted((*ours, *others), key=lambda found: found[0])


def _is_long_running(event: Event, number: int, call: JsonObject) -> bool:
    if number in (event.meta.get("long_running") or ()):
        return True
    adk = event.meta.get("adk") or {}
    return call.get("id") is not None and call["id"] in (adk.get("longRunningToolIds") or ())


def _tokens(event: Event) -> int:
    """About what an event adds to a prompt. Signatures count for nothing, as with Gemini."""
    total = 0
    for part in parts_of(event):
        if not part.get("thought"):
            said = {name: value for name, value in part.items() if name != "thoughtSignature"}
            total += MEDIA_TOKENS if "inlineData" in said or "fileData" in said else _size(said)
    return total


def _size(value: Json) -> int:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return len(text.encode("utf-8", "surrogatepass")) // BYTES_PER_TOKEN
