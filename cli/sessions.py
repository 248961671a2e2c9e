"""``perdure sessions``: look at sessions and steer them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import render, schedules, status, steering, waiting
from cli.common import (
    DEFAULT_DATA,
    DataOption,
    JsonOption,
    SessionArgument,
    find_settings,
    open_runner,
    open_store,
    session_key,
)
from cli.prompt_view import show_context
from perdure.errors import InvalidOption
from perdure.settings import Settings
from perdure.types import Session, SessionKey

if TYPE_CHECKING:  # Temporal takes a second to import, which `--help` need not pay
    from gateway.runner import Runner

__all__ = ["app", "compact_now", "delete_all"]

app = typer.Typer(help="Look at sessions and steer them.", no_args_is_help=True, rich_markup_mode=None)


@app.command("list")
def list_(
    application: Annotated[
        str | None, typer.Argument(metavar="[APP]", help="An agent's name; default: all that run here.")
    ] = None,
    user: Annotated[str | None, typer.Option(help="Only this user's.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many of an app.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Go on after an earlier list, which printed it.")] = None,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """List sessions, the last changed first."""
    settings = find_settings(data)
    apps = [application] if application else _apps(settings)
    asyncio.run(_list(settings, apps, user=user, limit=limit, cursor=cursor, json=json))


@app.command()
def show(
    session: SessionArgument,
    live: Annotated[bool, typer.Option("--live", help="Leave out what was rewound.")] = False,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Show a session: every event, also the rewound ones, its state and its artifacts."""
    asyncio.run(_show(find_settings(data), session_key(session), live=live, json=json))


@app.command()
def context(session: SessionArgument, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """Show what the model would get now, with sizes: instruction, tools, summary and what follows it.

    With --json it is the request itself, but for the message that will be at its end.
    """
    asyncio.run(show_context(find_settings(data), session_key(session), as_json=json))


@app.command()
def rewind(
    session: SessionArgument,
    invocation: Annotated[
        str, typer.Argument(help="The first invocation to undo; a rewind's own id is redo.")
    ],
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Rewind a session to just before an invocation. A running turn is cancelled first."""
    asyncio.run(_rewind(find_settings(data), session_key(session), invocation, json=json))


@app.command()
def compact(session: SessionArgument, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """Sum up what is old in a session now, whatever the agent's policy says."""
    asyncio.run(_compact(find_settings(data), session_key(session), json=json))


@app.command()
def end(session: SessionArgument, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """Close a session and print its final state. Twice is the same as once."""
    asyncio.run(_end(find_settings(data), session_key(session), json=json))


@app.command()
def delete(
    sessions: Annotated[
        list[str], typer.Argument(metavar="APP/USER/SESSION...", help="The sessions, as list prints them.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Delete sessions with all that is in them, and close their workflows. Twice is the same as once."""
    keys = [session_key(session) for session in sessions]
    settings = find_settings(data)
    if not yes:
        named = "\n".join(f"  {key}" for key in keys)
        typer.confirm(f"{named}\nDelete this for ever, with its log and files?", abort=True, err=True)
    asyncio.run(_delete(settings, keys, json=json))


@app.command("export")
def export_(
    session: SessionArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write; default: standard output.")
    ] = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Write everything in a session as JSON Lines, artifacts and rewound events included."""
    asyncio.run(_export(find_settings(data), session_key(session), output))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="What export wrote.", exists=True, dir_okay=False)],
    under: Annotated[
        str | None,
        typer.Option("--as", metavar="APP/USER/SESSION", help="Where it goes; default: where it came from."),
    ] = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Make an exported session again: the same log, state and artifacts."""
    asyncio.run(_import(find_settings(data), file, session_key(under) if under else None))


waiting.add_to(app)
status.add_to(app)
steering.add_to(app)
schedules.add_to(app)


def _apps(settings: Settings) -> list[str]:
    if not settings.agents:
        raise InvalidOption("which app's sessions? Name it: perdure sessions list APP")
    from perdure.registry import load_agents

    return list(load_agents(settings.agents))


async def _list(
    settings: Settings, apps: Sequence[str], *, user: str | None, limit: int, cursor: str | None, json: bool
) -> None:
    sessions: list[Session] = []
    cursors: dict[str, str] = {}
    async with open_store(settings) as store:
        for name in apps:
            page = await store.list_sessions(name, user, limit=limit, cursor=cursor)
            sessions += page.sessions
            if page.next_cursor:
                cursors[name] = page.next_cursor
    if json:
        print(render.as_json({"sessions": [_summary(session) for session in sessions], "next": cursors}))
        return
    if not sessions:
        print(f"no sessions of {', '.join(apps)}" + (f" for user {user}" if user else ""))
        return
    render.show(render.session_table(sorted(sessions, key=lambda session: session.updated_at, reverse=True)))
    for name, after in cursors.items():
        print(f"more: perdure sessions list {name} --cursor {after}")


async def _show(settings: Settings, key: SessionKey, *, live: bool, json: bool) -> None:
    async with open_store(settings) as store:
        session = await store.get(key, max_events=0)
        events = [event for event in await store.log(key) if event.live or not live]
        artifacts = await store.list_artifacts(key)
    if json:
        shown = {**_summary(session), "state": session.state, "events": events, "artifacts": artifacts}
        print(render.as_json(shown))
        return
    render.show(render.session_table([session]))
    print()
    render.show(render.event_table(events))
    print("\nSTATE")
    for line in render.state_lines(session.state) if session.state else ["none"]:
        print(f"  {line}")
    print("\nARTIFACTS")
    for artifact in artifacts:
        print(f"  {artifact.name}  version {artifact.version}  {artifact.mime_type}  {artifact.size} bytes")
    if not artifacts:
        print("  none")


async def _rewind(settings: Settings, key: SessionKey, invocation: str, *, json: bool) -> None:
    async with open_runner(settings) as runner:
        done = await runner.rewind(key, invocation)
        session = await runner.store.get(key, max_events=0)
    if json:
        print(render.as_json({"request_id": done.request_id, "seq": done.seq, "state": session.state}))
        return
    print(f"{key} is as it was before {invocation}.")
    print(f"To undo that: perdure sessions rewind {key} {done.request_id}")
    for line in render.state_lines(session.state):
        print(f"  {line}")


async def _compact(settings: Settings, key: SessionKey, *, json: bool) -> None:
    async with open_runner(settings) as runner:
        await compact_now(runner, key, json=json)


async def compact_now(runner: Runner, key: SessionKey, *, json: bool) -> None:
    """Sum up what is old in a session, and print the summary."""
    seq = await runner.compact(key)
    summary = None if seq is None else (await runner.store.log(key, after=seq - 1, limit=1))[0]
    if json:
        print(render.as_json({"seq": seq, "summary": summary}))
    elif summary is None:
        print(f"{key} has nothing to sum up.")
    else:
        covered = summary.compaction or {}
        print(f"SUMMARY of {covered.get('start')} to {covered.get('end')}\n{summary.text}")


async def _end(settings: Settings, key: SessionKey, *, json: bool) -> None:
    async with open_runner(settings) as runner:
        session = await runner.end(key)
    if json:
        print(render.as_json({**_summary(session), "state": session.state}))
        return
    print(f"{key} is ended. Its final state:")
    for line in render.state_lines(session.state):
        print(f"  {line}")


async def _delete(settings: Settings, keys: Sequence[SessionKey], *, json: bool) -> None:
    async with open_runner(settings) as runner:
        await delete_all(runner, keys, json=json)


async def delete_all(runner: Runner, keys: Sequence[SessionKey], *, json: bool) -> None:
    """Delete sessions one after the other, and print what was there."""
    deleted: list[str] = []
    for key in keys:
        there = await runner.delete(key)
        if there:
            deleted.append(str(key))
        if not json:
            print(f"{key} is deleted." if there else f"{key}: there is no such session.")
    if json:
        print(render.as_json({"deleted": deleted}))


async def _export(settings: Settings, key: SessionKey, output: Path | None) -> None:
    async with open_store(settings) as store:
        await store.get(key, max_events=0)  # no file where there is no session
        with output.open("w", encoding="utf-8") if output else nullcontext(sys.stdout) as file:
            async for line in store.export(key):
                file.write(line + "\n")


async def _import(settings: Settings, path: Path, key: SessionKey | None) -> None:
    async with open_store(settings) as store:
        with path.open(encoding="utf-8") as file:
            session = await store.import_session(file, key=key)
    print(f"{session.key} has {session.head} events and is at version {session.version}.")


def _summary(session: Session) -> dict[str, Any]:
    return {
        "session": str(session.key),
        "app": session.key.app,
        "user_id": session.key.user_id,
        "session_id": session.key.session_id,
        "version": session.version,
        "epoch": session.epoch,
        "head": session.head,
        "projection": session.projection,
        "metadata": session.metadata,
        "created_at": session.created_at,
        "updated_at": session.updated_at,
        "ended_at": session.ended_at,
        "tokens": session.spent.tokens,
        "usd": session.spent.usd,
        "model_calls": session.spent.model_calls,
    }
