"""What a model's step comes to, as its workflow is told: names, numbers and times, no content."""

from __future__ import annotations

from activities.prompt import calls_of
from activities.protocol import TOOL_SECONDS, CallRef, Failure, ModelOutcome
from perdure.agent import Agent
from perdure.types import Event, JsonObject
from storage.spending import spent_on

__all__ = ["outcome_of"]


def outcome_of(epoch: int, agent: Agent, event: Event, *, inline: bool) -> ModelOutcome:
    """What the workflow needs to know of the event that a step ended in."""
    fields: JsonObject = {"epoch": epoch, "seq": event.seq}
    if event.error:
        # In full it is in the log; Temporal gets what quotes nobody.
        message = event.meta.get("brief") or event.error["message"]
        fields["failure"] = Failure(type=event.error["type"], message=message)
    if event.meta.get("interrupted"):
        fields["cancelled"] = True
    spent = spent_on(event)
    if spent.tokens:
        fields["tokens"] = spent.tokens
    if spent.nano_usd:
        fields["nano_usd"] = spent.nano_usd
    if told := event.meta.get("budget"):
        fields["warning"] = "; ".join(told)
    if "repair" in event.meta:
        fields["mend"] = True
    calls = [_call_ref(agent, str(call.get("name"))) for call in calls_of(event)]
    if calls:
        fields["calls"] = calls
    elif inline and not event.error and "repair" not in event.meta:
        fields["text"] = event.text
    return ModelOutcome(**fields)


def _call_ref(agent: Agent, name: str) -> CallRef:
    tool = agent.tool(name)
    fields: JsonObject = {"name": name}
    if tool is not None and tool.serial:
        fields["serial"] = True
    seconds = agent.limits.tool_timeout if tool is None or tool.timeout is None else tool.timeout
    if tool is None:  # a server's, perhaps; the call itself is kept to what that says
        seconds = max([seconds, *(server.timeout or 0 for server in agent.servers)])
    if seconds > TOOL_SECONDS:
        fields["timeout"] = seconds
    if tool is not None and tool.task_queue is not None and tool.activity is None:
        fields["queue"] = tool.task_queue
        if tool.start_timeout is not None:
            fields["start_timeout"] = tool.start_timeout
    return CallRef(**fields)
