"""``perdure sessions send`` and ``cancel``: a message from outside a chat, and the end of a turn."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cli import render
from cli.common import DEFAULT_DATA, DataOption, JsonOption, SessionArgument, find_settings, open_runner
from cli.common import session_key as key_of
from perdure.settings import Settings
from perdure.types import During

if TYPE_CHECKING:  # Temporal takes a second to import, which `--help` need not pay
    from gateway.runner import Answer

__all__ = ["add_to"]


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``perdure sessions``."""
    for command in (send, cancel):
        app.command()(command)


def send(
    session: SessionArgument,
    text: Annotated[str, typer.Argument(help="What to say.")],
    during: Annotated[
        During,
        typer.Option(help="Where a turn runs: queue behind it, join its next step, or interrupt it."),
    ] = "queue",
    message_id: Annotated[
        str | None, typer.Option("--id", help="Sent again under its id, a message runs once.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait for the answer.")] = True,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Send a message to a session, and print the answer; the exit code is 1 where the turn got none.

    One that waits for a person or the world will get its own: the exit code is 0, and the same message
    sent again under its --id prints it.
    """
    if not asyncio.run(_send(find_settings(data), session, text, during, message_id, wait=wait, json=json)):
        raise typer.Exit(1)


def cancel(
    session: SessionArgument,
    invocation: Annotated[
        str | None, typer.Argument(help="Only this turn, whether it runs or has not begun.")
    ] = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """End the turn that runs. What it has committed stays."""
    asyncio.run(_cancel(find_settings(data), session, invocation))


async def _send(
    settings: Settings,
    session: str,
    text: str,
    during: During,
    message_id: str | None,
    *,
    wait: bool,
    json: bool,
) -> bool:
    """Whether it went well, as far as is known."""
    key = key_of(session)
    async with open_runner(settings) as runner:
        if not wait:
            sent = await runner.message(key, text, message_id=message_id, during=during)
            print(render.as_json({"message_id": sent}) if json else f"sent to {key} as {sent}")
            return True
        answer = await runner.ask(key, text, message_id=message_id, during=during)
    well = answer.status in ("answered", "waiting")
    if json:
        print(render.as_json(_told(answer)))
    elif well:
        print(answer.text or _outcome(answer))
    else:
        print(_outcome(answer), file=sys.stderr)
    return well


async def _cancel(settings: Settings, session: str, invocation: str | None) -> None:
    key = key_of(session)
    async with open_runner(settings) as runner:
        await runner.cancel(key, invocation)
    print(f"{key} is told to end {f'turn {invocation}' if invocation else 'its turn'}")


def _told(answer: Answer) -> dict[str, object]:
    told: dict[str, object] = {
        "invocation_id": answer.invocation_id,
        "status": answer.status,
        "seq": answer.seq,
        "text": answer.text,
    }
    if answer.output is not None:
        told["output"] = answer.output
    if answer.spent is not None:
        told["spent"] = {
            "tokens": answer.spent.tokens,
            "usd": answer.spent.usd,
            "model_calls": answer.spent.model_calls,
        }
    if answer.failure is not None:
        told["failure"] = answer.failure.model_dump()
    if answer.waiting:
        told["waiting"] = [waiting.model_dump(mode="json", exclude_none=True) for waiting in answer.waiting]
    return told


def _outcome(answer: Answer) -> str:
    why = answer.failure.message if answer.failure else ", ".join(each.title for each in answer.waiting)
    return f"turn {answer.invocation_id}: {answer.status}" + (f", {why}" if why else "")
