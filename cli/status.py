"""``perdure sessions status``: what a session's workflow is doing now."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from cli import render
from cli.common import DEFAULT_DATA, DataOption, JsonOption, SessionArgument, find_settings, open_runner
from cli.common import session_key as key_of
from cli.schedules import schedule_json, schedule_lines
from perdure.budget import dollars
from perdure.errors import SessionNotFound
from perdure.settings import Settings

if TYPE_CHECKING:  # Temporal takes a second to import, which `--help` need not pay
    from gateway.held_up import Work
    from workflows.wait_messages import AskedAgent

__all__ = ["add_to", "work_lines"]


def add_to(app: typer.Typer) -> None:
    """Add the command to ``perdure sessions``."""
    app.command()(status)


def status(session: SessionArgument, data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """Show what a session is doing: its turn, what that waits for, the agents it has asked; its schedules."""
    asyncio.run(_status(find_settings(data), session, json=json))


def work_lines(work: Work) -> Iterator[str]:
    """What a session is doing, for people."""
    turn = f", in turn {work.invocation_id}" if work.invocation_id else ""
    yield f"{work.status}{turn}: {work.doing or 'idle'}"
    if work.held_up is not None:
        yield f"held up by {work.held_up.type}: {work.held_up.message}"
    for call in work.waiting:
        yield f"{call.call_id} waits for {call.title}"
    for agent in work.agents:
        yield f"{agent.call_id} has asked {agent.tool} in session {agent.session}, which {_stands(agent)}"
    yield f"{work.queued} messages wait for their turn"
    yield f"{work.turns} turns took {work.tokens:,} tokens" + (f", {dollars(work.usd)}" if work.usd else "")
    if work.turn_tokens:
        money = f", {dollars(work.turn_usd)}" if work.turn_usd else ""
        yield f"this turn has taken {work.turn_tokens:,} tokens{money}"
    if work.warning:
        yield f"budget: {work.warning}"
    if work.last_error is not None:
        yield f"last error {work.last_error.type}: {work.last_error.message}"


def _stands(agent: AskedAgent) -> str:
    if agent.ending:
        return "is ending"
    waits = "; ".join(f"{each.title} ({each.call_id})" for each in agent.waiting)
    return f"waits for {waits}" if waits else "works"


async def _status(settings: Settings, session: str, *, json: bool) -> None:
    key = key_of(session)
    async with open_runner(settings) as runner:
        try:
            work = await runner.status(key)
        except SessionNotFound:
            await runner.store.get(key, max_events=0)  # else there is none at all
            work = None
        scheduled = await runner.schedules(key)
    if json:
        told = None if work is None else work.model_dump(mode="json", exclude_none=True)
        schedules = [schedule_json(each) for each in scheduled]
        print(render.as_json({"session": str(key), "work": told, "schedules": schedules}))
        return
    for line in ["no workflow is open: the session rests"] if work is None else work_lines(work):
        print(line)
    for each in scheduled:
        print("by the clock:", *schedule_lines(each), sep="\n  ")
