"""What a tool may be declared with, and how a sync one runs in its thread."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from perdure.checks import check_seconds, check_text
from perdure.errors import InvalidAgent

if TYPE_CHECKING:
    from perdure.tool import Tool

__all__ = ["check_place", "check_waits", "checked_function", "checked_name", "in_thread", "is_async"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}")


def check_waits(tool: Tool) -> None:
    """What it says of approval and of results that come later.

    Raises:
        InvalidAgent: it makes no sense.
    """
    what = f"tool {tool.name!r}"
    confirm: object = tool.confirm
    if not isinstance(confirm, bool) and (not callable(confirm) or is_async(confirm, tool.name)):
        raise InvalidAgent(
            f"{what}: confirm is {confirm!r}; it is True or a sync function of the dict of arguments"
        )
    if tool.on_timeout not in ("refuse", "approve", "fail"):
        raise InvalidAgent(f"{what}: on_timeout is {tool.on_timeout!r}; it is 'refuse', 'approve' or 'fail'")
    check_seconds(f"{what}: confirm_timeout", tool.confirm_timeout, optional=True)
    check_seconds(f"{what}: result_timeout", tool.result_timeout, optional=True)
    if not confirm and (tool.confirm_timeout is not None or tool.on_timeout != "refuse"):
        raise InvalidAgent(f"{what}: confirm_timeout and on_timeout say nothing without confirm")
    if not tool.long_running and tool.result_timeout is not None:
        raise InvalidAgent(f"{what}: result_timeout says nothing without long_running")


def check_place(tool: Tool) -> None:
    """What it says of where it runs.

    Raises:
        InvalidAgent: it makes no sense.
    """
    what = f"tool {tool.name!r}"
    check_text(f"{what}: task_queue", tool.task_queue, optional=True)
    check_text(f"{what}: activity", tool.activity, optional=True)
    check_seconds(f"{what}: start_timeout", tool.start_timeout, optional=True)
    check_seconds(f"{what}: heartbeat_timeout", tool.heartbeat_timeout, optional=True)
    if tool.task_queue is None and (tool.activity is not None or tool.start_timeout is not None):
        raise InvalidAgent(f"{what}: activity and start_timeout say nothing without task_queue")
    if tool.activity is None:
        if tool.heartbeat_timeout is not None:
            raise InvalidAgent(f"{what}: heartbeat_timeout says nothing without activity")
    elif tool.takes_context:
        raise InvalidAgent(
            f"{what} runs as the activity {tool.activity!r}, which cannot be given a ToolContext; "
            "drop the parameter"
        )
    elif tool.long_running:
        raise InvalidAgent(
            f"{what}: an activity may run for as long as its timeout says, so drop long_running and set that"
        )


def in_thread(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    try:
        return function(*args, **kwargs)
    except StopIteration as error:
        # asyncio cannot carry a StopIteration to the task that waits: the call would hang for ever.
        raise RuntimeError(f"the tool raised StopIteration: {error}") from error


def is_async(function: Callable[..., Any], name: str) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidAgent(f"tool {name!r} is a generator; a tool returns one result, such as a list")
    return inspect.iscoroutinefunction(function)


def checked_function(function: object) -> str | None:
    """The function's own name, if it has one."""
    if not callable(function) or isinstance(function, type):
        raise InvalidAgent(f"{function!r} is not a function; a tool is made of a function or a method")
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", None)


def checked_name(name: object, function: object) -> str:
    if name is None:
        raise InvalidAgent(f"{function!r} has no name; give it one: tool(function, name='...')")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidAgent(
            f"{name!r} cannot be the name of a tool: Gemini takes up to 64 ASCII letters, digits, _ . : "
            "and -, beginning with a letter or _; give it another with tool(name='...')"
        )
    return name
