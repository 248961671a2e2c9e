"""``perdure sessions schedule``, ``schedules`` and ``unschedule``: messages by the clock."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cli import render
from cli.common import DEFAULT_DATA, DataOption, JsonOption, SessionArgument, find_settings, open_runner
from cli.common import session_key as key_of
from perdure.settings import Settings
from perdure.types import During, JsonObject

if TYPE_CHECKING:  # Temporal takes a second to import, which `--help` need not pay
    from gateway.schedules import Scheduled

__all__ = ["add_to", "schedule_json", "schedule_lines"]


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``perdure sessions``."""
    for command in (schedule, schedules, unschedule):
        app.command()(command)


def schedule(
    session: SessionArgument,
    cron: Annotated[str, typer.Argument(help="When: five fields, @daily, '@every 30m' and the like.")],
    text: Annotated[str, typer.Argument(help="What to say each time.")],
    schedule_id: Annotated[
        str | None, typer.Option("--id", help="Names it; one that is there is changed.")
    ] = None,
    timezone: Annotated[str, typer.Option(help="Of the fields, as Europe/Berlin.")] = "UTC",
    during: Annotated[During, typer.Option(help="What it does where a turn runs, as with send.")] = "queue",
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Have a message sent whenever the clock says so."""
    settings = find_settings(data)
    asyncio.run(_schedule(settings, session, cron, text, schedule_id, timezone, during))


def schedules(session: SessionArgument, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """List the messages that are sent to a session by the clock."""
    asyncio.run(_schedules(find_settings(data), session, json=json))


def unschedule(
    session: SessionArgument,
    schedule_id: Annotated[str, typer.Argument(metavar="ID", help="As schedules prints it.")],
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Remove a schedule. Twice is the same as once."""
    asyncio.run(_unschedule(find_settings(data), session, schedule_id))


def schedule_lines(scheduled: Scheduled) -> Iterator[str]:
    """A schedule, for people."""
    times = ", ".join(f"{when:%Y-%m-%d %H:%M:%S} UTC" for when in scheduled.next_times[:3]) or "never"
    yield f"{scheduled.schedule_id}  {scheduled.cron} ({scheduled.timezone}), {scheduled.sent} so far"
    yield f"  {'paused' if scheduled.paused else f'next: {times}'}"
    yield f"  {scheduled.text}"


def schedule_json(scheduled: Scheduled) -> JsonObject:
    """A schedule, for programs."""
    return {**asdict(scheduled), "key": str(scheduled.key)}


async def _schedule(
    settings: Settings,
    session: str,
    cron: str,
    text: str,
    schedule_id: str | None,
    timezone: str,
    during: During,
) -> None:
    key = key_of(session)
    async with open_runner(settings) as runner:
        name = await runner.schedule(
            key, cron, text, schedule_id=schedule_id, timezone=timezone, during=during
        )
    print(f"{key} is sent a message at {cron!r}, {timezone}; to remove it:")
    print(f"  perdure sessions unschedule {key} {name}")


async def _schedules(settings: Settings, session: str, *, json: bool) -> None:
    key = key_of(session)
    async with open_runner(settings) as runner:
        found = await runner.schedules(key)
    if json:
        print(render.as_json({"schedules": [schedule_json(each) for each in found]}))
        return
    if not found:
        print("nothing is scheduled")
    for each in found:
        for line in schedule_lines(each):
            print(line)


async def _unschedule(settings: Settings, session: str, schedule_id: str) -> None:
    key = key_of(session)
    async with open_runner(settings) as runner:
        was = await runner.unschedule(key, schedule_id)
    print("the schedule is removed" if was else "there is no such schedule")
