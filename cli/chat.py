"""``perdure chat``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cli.common import DEFAULT_DATA, DataOption, find_settings
from perdure.loading import loading
from perdure.types import SessionKey

__all__ = ["chat"]


def chat(
    app: Annotated[str, typer.Argument(help="The agent's name.")],
    user: Annotated[str, typer.Option(help="Who is talking.")] = "user",
    session: Annotated[str, typer.Option(help="Which conversation; it goes on where it was.")] = "chat",
    reopen: Annotated[bool, typer.Option("--reopen", help="Open the session again if it was ended.")] = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Talk to an agent, also while a turn runs. Ctrl-C cancels what was said; /help lists the commands.

    Over a pipe, each line is said when what came of the one before is there, and the exit code is 1
    where something failed.
    """
    with loading():
        from cli.talking import converse
        from embedded import devfile

    key = SessionKey(app=app, user_id=user, session_id=session)
    settings = find_settings(data)
    well = converse(settings, key, serves=devfile.served_by(data, settings), reopen=reopen)
    if not well and not sys.stdin.isatty():
        raise typer.Exit(1)
