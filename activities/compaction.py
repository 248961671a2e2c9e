"""``compact``: replace what is old in the model's context by one summary.

A compaction event names the seqs it sums up, ``start`` to ``end``, and ``tail``, the seq
from which the prompt goes on raw: the last ``overlap`` invocations stay in it word for
word and are summed up again next time. A new summary takes in the one before, so there
is never more than one in a prompt. It is an event that comes after what it covers, and
is read through the projection like any other; so a rewind to before it brings back the
originals, and what was rewound can be in no summary.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import replace

from temporalio import activity

from activities.gemini import Gemini
from activities.model import compaction_due
from activities.prompt import build_prompt, is_user_message
from activities.protocol import COMPACT, CompactTask
from activities.runtime import beating, log, session_key, typed_errors
from perdure.agent import Agent, Compaction
from perdure.crashpoints import reach
from perdure.errors import ModelRefused
from perdure.registry import Registry
from perdure.types import Event, Json, JsonObject, text_of
from storage.sessions import Context, SessionStore

__all__ = ["PROMPT", "CompactionActivities"]

PROMPT = """\
Summarize the conversation below between a user and an agent, for the agent to go on with.
Keep every fact, number, id, name, decision and open task; leave out pleasantries.
If it begins with an earlier summary, take all of that into the new one. Answer with the
summary alone.
"""


class CompactionActivities:
    """The activity that sums up.

    Args:
        store: where sessions live.
        agents: the agents this worker serves, by name.
        gemini: the model client.
    """

    def __init__(self, store: SessionStore, agents: Registry, gemini: Gemini) -> None:
        self._store = store
        self._agents = agents
        self._gemini = gemini

    @activity.defn(name=COMPACT)
    @typed_errors
    async def compact(self, task: CompactTask) -> int | None:
        """Sum up the live events up to the end of an invocation, if that is still due.

        Returns:
            The seq of the compaction event, or None if nothing was due any more.

        Raises:
            StaleEpoch: a rewind changed what was being summed up; nothing was written.
            ModelUnavailable, ModelRefused: the summariser failed; the session goes on without.
        """
        key = session_key()
        agent = self._agents.get(key.app)
        async with beating():
            context = await self._store.context(key)
            window = _window(context, task.invocation_id)
            if agent.compaction is None or not window or not compaction_due(agent, context):
                return None
            summary = await self._summarise(agent, agent.compaction, context.summary, window)
            event = _compaction_event(agent, agent.compaction, context, window, summary, task.invocation_id)
            reach("compaction.before_commit")
            stored = await self._store.append(key, event, first_wins=True)
            reach("compaction.after_commit")
            log(logging.INFO, "compacted", key, task.invocation_id, "%s", stored.compaction)
            return stored.seq

    async def _summarise(
        self, agent: Agent, policy: Compaction, before: Event | None, window: Sequence[Event]
    ) -> JsonObject:
        answer = await self._gemini.generate(
            model=policy.model or agent.model,
            system=policy.prompt or PROMPT,
            contents=[{"role": "user", "parts": [{"text": _transcript(before, window)}]}],
            tools=[],
            extra=None,
            timeout=agent.limits.model_timeout,
        )
        text = text_of(answer.content).strip()
        if not text:
            raise ModelRefused("the summariser answered without any text")
        return {"role": "user", "parts": [{"text": text}]}


def _window(context: Context, invocation_id: str) -> list[Event]:
    """The live events up to the last one of the invocation; later turns may be under way already."""
    last = max((event.seq for event in context.events if event.invocation_id == invocation_id), default=0)
    return [event for event in context.events if event.seq <= last]


def _compaction_event(
    agent: Agent,
    policy: Compaction,
    context: Context,
    window: Sequence[Event],
    summary: JsonObject,
    invocation_id: str,
) -> Event:
    before = context.summary
    start = before.compaction["start"] if before and before.compaction else window[0].seq
    end = window[-1].seq
    firsts: dict[str, int] = {}
    for event in window:
        if is_user_message(event):
            firsts.setdefault(event.invocation_id, event.seq)
    kept = list(firsts.values())[len(firsts) - policy.overlap :] if policy.overlap else []
    tail = kept[0] if kept else end + 1
    event = Event(
        id=f"{invocation_id}:compact",
        invocation_id=invocation_id,
        author="perdure",
        content=summary,
        compaction={"start": start, "end": end, "tail": tail},
    )
    state = context.session.state
    left = [event for event in context.events if event.seq >= tail]
    chars = [
        build_prompt(agent, state, before, context.events).chars,
        build_prompt(agent, state, event, left).chars,
    ]
    return replace(event, meta={"prompt_chars": chars})


def _transcript(before: Event | None, window: Sequence[Event]) -> str:
    lines = [f"Earlier summary: {before.text}"] if before else []
    for event in window:
        for part in (event.content or {}).get("parts") or ():
            if line := _line(event, part):
                lines.append(line)
    return "\n".join(lines)


def _line(event: Event, part: JsonObject) -> str | None:
    if part.get("thought"):
        return None
    if call := part.get("functionCall"):
        return f"{event.author} called {call.get('name')}({_json(call.get('args') or {})})"
    if response := part.get("functionResponse"):
        return f"{response.get('name')} returned {_json(response.get('response'))}"
    if text := part.get("text"):
        return f"{event.author}: {text}"
    return None


def _json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)
