"""``perdure sessions waiting``, ``approve``, ``result``, ``complete`` and their like: calls that wait."""

from __future__ import annotations

import asyncio
import json as json_lib
from dataclasses import asdict, replace
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import render
from cli.common import DEFAULT_DATA, DataOption, JsonOption, SessionArgument, find_settings, open_runner
from cli.common import session_key as key_of
from perdure.errors import InvalidOption
from perdure.settings import Settings
from perdure.tasktoken import read_task_token

if TYPE_CHECKING:  # Temporal takes a second to import, which `--help` need not pay
    from gateway.waiting_lists import WaitingCall

__all__ = ["add_to"]

CallArgument = Annotated[str, typer.Argument(metavar="CALL", help="The call, as waiting prints it.")]
TokenArgument = Annotated[str, typer.Argument(metavar="TOKEN", help="The tool's context.task_token.")]
ResultArgument = Annotated[str | None, typer.Argument(metavar="[JSON]", help="The result, as JSON.")]
ErrorOption = Annotated[str | None, typer.Option(help="What it failed by, instead of a result.")]
ByOption = Annotated[str | None, typer.Option(help="Who says so; the log keeps it.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``perdure sessions``."""
    for command in (waiting, approve, decline, result, complete, progress, notify):
        app.command()(command)


def waiting(
    application: Annotated[
        str | None, typer.Option("--app", metavar="APP", help="Only sessions with this agent.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """List what waits for a person or the world, across sessions."""
    asyncio.run(_waiting(find_settings(data), application, user, json=json))


def approve(
    session: SessionArgument,
    call: CallArgument,
    arguments: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Call it with these, an object, instead of the model's."),
    ] = None,
    by: ByOption = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Say yes to a call that waits for it."""
    given = None if arguments is None else _json("--arguments", arguments)
    if given is not None and not isinstance(given, dict):
        raise InvalidOption(f"--arguments is {arguments!r}; it is a JSON object, by parameter name")
    asyncio.run(_settle(find_settings(data), session, "approve", call, arguments=given, by=by))


def decline(
    session: SessionArgument,
    call: CallArgument,
    reason: Annotated[str | None, typer.Option(help="What the model is told.")] = None,
    by: ByOption = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Say no to a call that waits for a yes."""
    asyncio.run(_settle(find_settings(data), session, "decline", call, reason=reason, by=by))


def result(
    session: SessionArgument,
    call: CallArgument,
    value: ResultArgument = None,
    error: ErrorOption = None,
    by: ByOption = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Give the result of a long-running tool."""
    given = _outcome(value, error)
    asyncio.run(_settle(find_settings(data), session, "tool_result", call, result=given, error=error, by=by))


def complete(
    token: TokenArgument,
    value: ResultArgument = None,
    error: ErrorOption = None,
    by: ByOption = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Give the result of a long-running tool by its task token."""
    key, call = read_task_token(token)
    given = _outcome(value, error)
    asyncio.run(_settle(find_settings(data), str(key), "tool_result", call, result=given, error=error, by=by))


def progress(
    token: TokenArgument,
    text: Annotated[str | None, typer.Argument(metavar="[TEXT]", help="How far it has come.")] = None,
    percent: Annotated[float | None, typer.Option(help="The same, of 100.")] = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Tell how far a long-running tool has come by its task token."""
    asyncio.run(_progress(find_settings(data), token, text, percent))


def notify(
    session: SessionArgument,
    name: Annotated[str, typer.Argument(help="The event's name.")],
    payload: Annotated[
        str | None, typer.Argument(metavar="[JSON]", help="What the model is to know of it, as JSON.")
    ] = None,
    notification_id: Annotated[
        str | None, typer.Option("--id", help="Sent twice under one id, it happened once.")
    ] = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Tell a session of an event. It wakes the call that waits for it, or is kept until one does."""
    given = None if payload is None else _json("the payload", payload)
    asyncio.run(_notify(find_settings(data), session, name, given, notification_id))


def _outcome(value: str | None, error: str | None) -> Any:
    if (value is None) == (error is None):
        raise InvalidOption("the outcome of a tool is a result, as JSON, or --error; give one of them")
    return None if value is None else _json("the result", value)


def _json(what: str, text: str) -> Any:
    try:
        return json_lib.loads(text)
    except ValueError:
        raise InvalidOption(
            f"{what} is {text!r}, which is no JSON; a text has quotes: '\"like this\"'"
        ) from None


async def _waiting(settings: Settings, app: str | None, user: str | None, *, json: bool) -> None:
    async with open_runner(settings) as runner:
        found = [call async for call in runner.all_waiting(app, user)]
    if json:
        told = [{**asdict(call), "session": str(call.key), "key": None} for call in found]
        print(
            render.as_json({"waiting": [{k: v for k, v in each.items() if v is not None} for each in told]})
        )
        return
    if not found:
        print("nothing waits")
    for call in found:
        print(f"{call.key}  {call.call_id}")
        for line in [*render.waiting_lines(call), *_answers(call)]:
            print(f"  {line}")


def _answers(call: WaitingCall) -> list[str]:
    """How it can be answered."""
    place = f"{quote(str(call.key))} {quote(call.call_id)}"
    if call.kind == "approval":
        return [
            f"yes: perdure sessions approve {place}",
            f"no:  perdure sessions decline {place} --reason …",
        ]
    if call.kind == "result":
        return [f"perdure sessions result {place} …"]
    if call.agent_session is not None:
        there = replace(call.key, session_id=call.agent_session)
        return [f"what for: perdure sessions status {quote(str(there))}"]
    if call.event is not None:
        return [f"perdure sessions notify {quote(str(call.key))} {quote(call.event)} …"]
    return []


async def _settle(settings: Settings, session: str, how: str, call: str, **more: Any) -> None:
    key = key_of(session)
    async with open_runner(settings) as runner:
        settled = await getattr(runner, how)(key, call, **more)
    print(f"{key} goes on: {settled.call_id} has {settled.decision!r}.")


async def _progress(settings: Settings, token: str, text: str | None, percent: float | None) -> None:
    key, call = read_task_token(token)
    async with open_runner(settings) as runner:
        await runner.tool_progress(key, call, text, percent=percent)
    print(f"{key} is told how far {call} has come.")


async def _notify(
    settings: Settings, session: str, name: str, payload: Any, notification_id: str | None
) -> None:
    key = key_of(session)
    async with open_runner(settings) as runner:
        sent = await runner.notify(key, name, payload, notification_id=notification_id)
    print(f"{key} is told of {name}, as {sent}.")
