"""Sessions under fire: clients ask, a monkey breaks things, and in the end everything is checked."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from temporalio.client import WorkflowQueryFailedError

from perdure.errors import SessionNotFound
from tests.integration.harness import until
from tests.soak.checker import Checked, check, export
from tests.soak.client import PASSING, Client
from tests.soak.ledger import Ledger, Tally
from tests.soak.monkey import Monkey
from tests.soak.stage import Stage, open_stage

__all__ = ["Plan", "soak"]

SETTLED_IN = 120.0
"""Seconds within which what runs behind the replies comes to its end, once nothing is broken any more."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long, how much, and with what."""

    seconds: float
    seed: int
    database: str
    """``postgres`` or ``sqlite``."""
    sessions: int = 50
    workers: int = 3
    pause: float = 2.0
    """Seconds between two requests of a client, on average."""
    fault_every: float = 4.0
    """Seconds between two faults, on average."""


async def soak(plan: Plan, folder: Path, say: Callable[[str], None]) -> Checked:
    """Run it.

    Args:
        plan: what to do.
        folder: for data, logs, and what is exported of discrepancies.
        say: takes the lines that tell of it.
    """
    seed, tally = f"{plan.seed}/{plan.database}", Tally()
    say(f"soak: {plan.sessions} sessions on {plan.database} for {plan.seconds:g} s, seed {plan.seed}")
    async with open_stage(folder, database=plan.database, workers=plan.workers, seed=seed) as stage:
        clients = [
            Client(stage, number, tally, random.Random(f"{seed}/client/{number}"), pause=plan.pause)
            for number in range(plan.sessions)
        ]
        monkey = Monkey(stage, tally, random.Random(f"{seed}/monkey"), pause=plan.fault_every)
        await _under_fire(plan, stage, clients, monkey, lambda: say(tally.line()))
        say("nothing is broken any more; waiting for what is under way")
        ledgers = [ledger for client in clients for ledger in client.ledgers]
        await _settled(stage, ledgers)
        ended = await check(stage, ledgers)
        say(f"checked {ended.line()}")
        say("one more message to each session")
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(_say_last(client))
        await _settled(stage, ledgers)
        checked = await check(stage, ledgers)
        for line in [*tally.report(), f"workers that ended unasked: {_unasked(stage)}"]:
            say(line)
        say(f"checked {checked.line()}")
        checked.found = list(dict.fromkeys([*ended.found, *checked.found]))
        await _tell(stage, ledgers, checked, folder / "discrepancies", say)
        return checked


async def _under_fire(
    plan: Plan, stage: Stage, clients: list[Client], monkey: Monkey, report: Callable[[], None]
) -> None:
    """Until the time is over and the clients have been told of all that they asked for."""
    stop, mended = asyncio.Event(), asyncio.Event()

    async def time_passes() -> None:
        began = monotonic()
        try:
            while (left := plan.seconds - (monotonic() - began)) > 0:
                await asyncio.sleep(min(left, 60))
                report()
                stage.forget_prompts()
                for berth in stage.berths:
                    berth.check()
        finally:
            stop.set()

    async def break_things() -> None:
        await monkey.run(stop)
        mended.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(time_passes())
        group.create_task(break_things())
        for client in clients:
            group.create_task(client.run(stop))


async def _say_last(client: Client) -> None:
    for ledger in client.ledgers:
        await client.say_last(ledger)


async def _settled(stage: Stage, ledgers: list[Ledger]) -> None:
    """Nothing is under way in any session."""
    for ledger in ledgers:
        if ledger.begun:
            with suppress(TimeoutError):
                await until(lambda ledger=ledger: _idle(stage, ledger), within=SETTLED_IN)  # type: ignore[misc]
                continue
            ledger.odd.append(f"it did not come to rest: {await stage.runner.status(ledger.key)}")


async def _idle(stage: Stage, ledger: Ledger) -> bool:
    try:
        status = await stage.runner.status(ledger.key)
    except SessionNotFound:  # it has no workflow, or a closed one
        return True
    except (*PASSING, WorkflowQueryFailedError):  # its worker stands still, say, and does not answer in time
        return False
    return not (status.compacting or status.doing or status.queued)


async def _tell(
    stage: Stage, ledgers: list[Ledger], checked: Checked, folder: Path, say: Callable[[str], None]
) -> None:
    """Print each discrepancy, and write down what is needed to look into it."""
    if not checked.found:
        say("discrepancies: none")
        return
    say(f"discrepancies: {len(checked.found)}")
    for key, what in checked.found:
        say(f"  {key or 'shared'}: {what}")
    wrong = {key for key, _ in checked.found}
    for ledger in ledgers:
        if ledger.key in wrong and ledger.begun:
            say(f"  see {await export(stage, ledger, folder)}")


def _unasked(stage: Stage) -> str:
    codes = [code for berth in stage.berths for code in berth.by_itself]
    return f"{len(codes)} (exit codes {sorted(set(map(str, codes)))})" if codes else "none"
