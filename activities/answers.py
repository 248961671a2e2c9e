"""What becomes of a model's answer: the event of its step, with whether it is one and what it cost.

An agent may want its answers to be JSON of a schema. One that is not is kept all the same, with a
note of what is wrong in ``meta["repair"]``: the prompt of the next step shows it to the model, which
may mend its answer once (:mod:`activities.prompt`). The second such answer of a turn ends it.
"""

from __future__ import annotations

from dataclasses import replace

from activities.budgets import accounted, spent_meta
from activities.gemini import Answer
from activities.prompt import calls_of, model_event_id
from activities.protocol import ModelTask
from perdure.agent import Agent
from perdure.errors import InvalidAnswer
from perdure.structured import json_of, what_is_wrong
from perdure.transfer import ACTING
from perdure.types import ANSWERED_LATER, Event, JsonObject, Spent
from storage.sessions import Context

__all__ = ["answer_event", "goes_on"]

MEND = """\
Your answer cannot be used. It has to be JSON that fits the schema, and nothing else:
{wrong}
Give the whole answer again."""
CUT_OFF = "- it was cut off, being too long; give a shorter one"


def answer_event(agent: Agent, task: ModelTask, answer: Answer, context: Context, lost: Spent) -> Event:
    """The event of a step that the model has answered.

    Args:
        agent: who was asked.
        task: the step.
        answer: the answer.
        context: what it was asked with.
        lost: what earlier tries of the step took without an answer.
    """
    meta: JsonObject = {"step": task.step}
    if answer.finish_reason:
        meta["finish_reason"] = answer.finish_reason
    if answer.model_version:
        meta["model_version"] = answer.model_version
    event = Event(
        id=model_event_id(task.invocation_id, task.step),
        invocation_id=task.invocation_id,
        author=agent.name,
        content=answer.content,
        state_delta={ACTING: None} if task.step == 1 and _took_over(agent, context) else {},
        usage=answer.usage or None,
        meta=meta | spent_meta(agent, agent.model, answer.usage, lost),
    )
    if not calls_of(event):
        event = _ended(agent, event, context)
    elif later := _answered_later(agent, event):
        event = replace(event, meta={**event.meta, ANSWERED_LATER: later})
    return accounted(agent, context, event, goes_on=goes_on(event))


def _took_over(agent: Agent, context: Context) -> bool:
    """Whether a turn has begun with another agent than the last one ended with."""
    return str(context.session.state.get(ACTING, agent.name)) != agent.name


def goes_on(event: Event) -> bool:
    """Whether the turn does after this answer: it asks for calls, or is to be mended."""
    return bool(calls_of(event)) or "repair" in event.meta


def _answered_later(agent: Agent, event: Event) -> list[int]:
    """Which of its calls are of long-running tools, by their numbers."""
    tools = [agent.tool(str(call.get("name"))) for call in calls_of(event)]
    return [number for number, tool in enumerate(tools) if tool is not None and tool.long_running]


def _ended(agent: Agent, event: Event, context: Context) -> Event:
    """An answer without calls: as it is to be, or to be mended, or the end of it."""
    said: JsonObject = {} if agent.output_key is None else {agent.output_key: event.text}
    if agent.output_schema is None:
        return replace(event, state_delta={**event.state_delta, **said})
    wrong = what_is_wrong(agent.output_schema, event.text)
    if wrong is None:
        given = dict.fromkeys(said, json_of(event.text))
        delta = {**event.state_delta, **given}
        return replace(event, state_delta=delta, meta={**event.meta, "structured": True})
    words, places = wrong
    if event.meta.get("finish_reason") == "MAX_TOKENS":
        words = CUT_OFF
    mine = [each for each in context.events if each.invocation_id == event.invocation_id]
    if not any("repair" in each.meta for each in mine):
        return replace(event, meta={**event.meta, "final": False, "repair": MEND.format(wrong=words)})
    brief = (
        f"the answer does not fit the output schema {agent.output_schema.__name__} in {places} "
        f"place{'s' if places > 1 else ''}, also after the model was asked to mend it"
    )
    error = InvalidAnswer(f"{brief}:\n{words}", brief=brief)
    told = {"type": type(error).__name__, "message": str(error)}
    return replace(event, error=told, meta={**event.meta, "brief": error.brief})
