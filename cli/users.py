"""``perdure users``: all that an app has of a user is deleted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from cli import render
from cli.common import (
    DEFAULT_DATA,
    DataOption,
    JsonOption,
    UserArgument,
    find_settings,
    open_runner,
    user_named,
)
from perdure.settings import Settings

if TYPE_CHECKING:  # Temporal takes a second to import, which `--help` need not pay
    from gateway.runner import Runner

__all__ = ["app", "delete_user"]

app = typer.Typer(help="The users of agents.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def users() -> None:
    """The users of agents."""


@app.command()
def delete(
    user: UserArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Delete all that an agent's app has of a user. Twice is the same as once.

    That is the user's sessions, `user:` state and files, and the memory.
    """
    application, user_id = user_named(user)
    settings = find_settings(data)
    if not yes:
        typer.confirm(f"Delete {user} with all sessions, files and memory, for ever?", abort=True, err=True)
    asyncio.run(_delete(settings, application, user_id, json=json))


async def _delete(settings: Settings, application: str, user_id: str, *, json: bool) -> None:
    async with open_runner(settings) as runner:
        await delete_user(runner, application, user_id, json=json)


async def delete_user(runner: Runner, application: str, user_id: str, *, json: bool) -> None:
    """Delete a user, and print what there was."""
    done = await runner.delete_user(application, user_id)
    if json:
        print(render.as_json({"sessions": done.sessions, "remembered": done.remembered}))
        return
    print(f"the user is deleted; sessions: {done.sessions}, remembered ones: {done.remembered}")
