"""``perdure memory``: search what sessions left to their users' others, add to it, forget."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from cli import render
from cli.common import (
    DEFAULT_DATA,
    DataOption,
    JsonOption,
    SessionArgument,
    UserArgument,
    find_settings,
    open_runner,
    open_store,
    session_key,
    user_named,
)
from perdure.settings import Settings
from perdure.types import SessionKey

__all__ = ["app"]

app = typer.Typer(
    help="Search, and forget, what sessions left to their users' memory.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command()
def search(
    user: UserArgument,
    query: Annotated[str, typer.Argument(help="Words, or a question.")],
    limit: Annotated[int, typer.Option(min=1, max=100, help="At most so many passages.")] = 10,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Search a user's memory, best first."""
    asyncio.run(_search(find_settings(data), *user_named(user), query, limit, json=json))


@app.command()
def remember(session: SessionArgument, data: DataOption = DEFAULT_DATA) -> None:
    """Put what is live in a session into its user's memory."""
    asyncio.run(_remember(find_settings(data), session_key(session)))


@app.command()
def forget(
    whose: Annotated[
        str,
        typer.Argument(metavar="APP/USER[/SESSION]", help="A session, or all that is remembered of a user."),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Forget a session, or a user. The sessions themselves stay. Twice is the same as once."""
    settings = find_settings(data)
    forgotten = session_key(whose) if whose.count("/") == 2 else user_named(whose)
    if not yes:
        typer.confirm(f"Forget what is remembered of {whose}?", abort=True, err=True)
    count = asyncio.run(_forget(settings, forgotten))
    print(f"{whose} is forgotten; sessions of which there was something: {count}")


async def _search(
    settings: Settings, application: str, user_id: str, query: str, limit: int, *, json: bool
) -> None:
    from gateway.remembering import open_memories
    from perdure.registry import Registry, load_agents

    agents = load_agents(settings.agents) if settings.agents else Registry()
    async with open_store(settings) as store, open_memories(settings, store, agents) as memories:
        found = await memories.search(application, user_id, query, limit)
    if json:
        print(render.as_json({"passages": [asdict(passage) for passage in found]}))
        return
    if not found:
        print("nothing of it is remembered")
    for passage in found:
        key = SessionKey(app=application, user_id=user_id, session_id=passage.session_id)
        print(f"{key}  {passage.event_id}")
        print(f"  {passage.author}, {passage.said_at:%Y-%m-%d %H:%M:%S} UTC")
        print("  " + "\n  ".join(passage.excerpt.splitlines()))


async def _remember(settings: Settings, key: SessionKey) -> None:
    async with open_runner(settings) as runner:
        done = await runner.remember(key)
    print(f"{key} is remembered up to seq {done.upto}, in {done.passages} passages.")


async def _forget(settings: Settings, whose: SessionKey | tuple[str, str]) -> int:
    async with open_store(settings) as store:
        if isinstance(whose, SessionKey):
            return int(await store.forget(whose))
        return await store.forget_user(*whose)
