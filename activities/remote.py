"""Tools that are activities of another worker: what it is handed, in whatever language it is written.

Such a worker reaches no database. So the arguments travel in the result of ``run_tool``, the workflow calls
the activity with them, and its result travels into another ``run_tool``, which writes the
response. All of that is in Temporal's history, unlike what other tools are told and say.
"""

from __future__ import annotations

import json

from activities.protocol import RemoteCall
from perdure.agent import Limits
from perdure.errors import InvalidArguments
from perdure.tool import Tool
from perdure.types import JsonObject, given

__all__ = ["ARGUMENT_BYTES", "remote_call"]

ARGUMENT_BYTES = 64 * 1024
"""How much of a call's arguments Temporal is given: they are in the history twice."""


def remote_call(tool: Tool, arguments: JsonObject, limits: Limits) -> RemoteCall:
    """What is to run for a call of a tool that is an activity.

    Raises:
        InvalidArguments: they do not fit the signature, or are too large.
        InvalidContent: a default that has no JSON form.
    """
    assert tool.activity is not None, "it is one"
    assert tool.task_queue is not None, "an activity is declared with its queue"
    checked = tool.checked(arguments)
    size = len(json.dumps(checked, ensure_ascii=False).encode())
    if size > ARGUMENT_BYTES:
        raise InvalidArguments(
            f"{tool.name} was not run: its arguments have {size} bytes, and the activity that it is takes "
            f"{ARGUMENT_BYTES} at most."
        )
    more = {"start_timeout": tool.start_timeout, "heartbeat_timeout": tool.heartbeat_timeout}
    return RemoteCall(
        activity=tool.activity,
        queue=tool.task_queue,
        arguments=checked,
        timeout=tool.timeout if tool.timeout is not None else limits.tool_timeout,
        attempts=tool.attempts,
        lives=limits.tool_attempts,
        **given(**more),
    )
