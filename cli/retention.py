"""``perdure retention``: delete sessions that nobody has touched for long, by a schedule or now."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from cli.common import DEFAULT_DATA, MAX_DAYS, DataOption, connect, find_settings, open_store
from perdure.errors import InvalidOption
from perdure.settings import Settings

__all__ = ["app"]

app = typer.Typer(
    help="Delete sessions some days after their last change.", no_args_is_help=True, rich_markup_mode=None
)

DaysOption = Annotated[int, typer.Option(min=1, max=MAX_DAYS, help="Days after a session's last change.")]


@app.command("set")
def set_(
    days: DaysOption,
    every: Annotated[int, typer.Option(min=1, help="Hours between two runs.")] = 24,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Create the schedule that does it, or change it."""
    asyncio.run(_set(find_settings(data), days, every))


@app.command()
def show(data: DataOption = DEFAULT_DATA) -> None:
    """Show the schedule."""
    asyncio.run(_show(find_settings(data)))


@app.command()
def off(data: DataOption = DEFAULT_DATA) -> None:
    """Remove the schedule. Twice is the same as once."""
    asyncio.run(_off(find_settings(data)))


@app.command()
def run(
    days: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_DAYS,
            help="Days after a session's last change; default: as the schedule has it.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Delete nothing; print what would go, from the database alone.")
    ] = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Run it now. A session with a turn under way stays."""
    settings = find_settings(data)
    asyncio.run(_dry_run(settings, days) if dry_run else _run(settings, days))


async def _set(settings: Settings, days: int, every: int) -> None:
    from gateway import retention

    client = await connect(settings)
    await retention.schedule(client, settings.task_queue, days=days, every=timedelta(hours=every))
    print(f"sessions go {days} days after their last change; looked at every {every} hours")


async def _show(settings: Settings) -> None:
    from gateway import retention

    plan = await retention.plan(await connect(settings), settings.task_queue)
    if plan is None:
        print("no schedule: nothing is deleted by itself")
        return
    hours = plan.every.total_seconds() / 3600
    print(f"sessions go {plan.days:g} days after their last change; looked at every {hours:g} hours")
    print("paused" if plan.paused else f"next: {', '.join(map(str, plan.next_runs[:3]))}")
    print(f"runs so far: {plan.runs}")


async def _off(settings: Settings) -> None:
    from gateway import retention

    was = await retention.unschedule(await connect(settings), settings.task_queue)
    print("the schedule is removed: nothing is deleted by itself" if was else "there is no schedule")


async def _run(settings: Settings, days: int | None) -> None:
    from gateway import retention

    client = await connect(settings)
    days_kept = await _days(settings, days)
    done = await retention.run_now(client, settings.task_queue, days=days_kept)
    print(f"last changed before {done.before}: {done.deleted} deleted, {done.kept} kept")
    print(f"blobs that nothing named: {done.blobs} deleted")


async def _dry_run(settings: Settings, days: int | None) -> None:
    before = datetime.now(UTC) - timedelta(days=await _days(settings, days))
    count, cursor = 0, None
    async with open_store(settings) as store:
        while True:
            page = await store.expired(None, before, cursor=cursor)
            for key in page.keys:
                print(key)
            count, cursor = count + len(page.keys), page.next_cursor
            if cursor is None:
                break
        blobs = await store.collect_blobs(dry_run=True)
    print(f"last changed before {before}: {count} would go")
    print(f"blobs that nothing names, without theirs: {blobs} would go")


async def _days(settings: Settings, days: int | None) -> float:
    """The days that were given, or the schedule's."""
    if days is not None:
        return days
    from gateway import retention

    plan = await retention.plan(await connect(settings), settings.task_queue)
    if plan is None:
        raise InvalidOption("after how many days? There is no schedule that says it: give --days")
    return plan.days
