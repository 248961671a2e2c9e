"""An attempt outlives its time-out and writes late; whatever has happened meanwhile, nothing shows of it.

A worker process is stopped, by SIGSTOP, just before a write. Its heartbeats are missed, and
another worker takes its work over. When that is done, and what else the case has, the first
one is let go on. What it still writes must change no row.

The statements themselves, in every order, are in ``tests/conformance/test_store_zombies.py``.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import pytest
import pytest_asyncio

from embedded.postgres import PostgresServer
from embedded.stack import environment_of
from embedded.temporal import TemporalServer
from perdure.testing import StandIn
from tests.integration.crash_runs import Stages, open_stages, started, successor
from tests.integration.crash_scenarios import Script
from tests.integration.crash_services import everything
from tests.integration.crashes import ForkedWorker, Late, Stage

AT_ONCE = 40


class Haunted:
    """One session whose first worker comes late with a write; a second one serves from then on."""

    def __init__(self, script: Script, zombie: ForkedWorker, late: Late) -> None:
        self.script = script
        self.store = script.store
        self.runner = script.runner
        self.key = script.key
        self._zombie = zombie
        self._late = late

    async def is_stopped(self) -> None:
        """The first worker is about to write."""
        assert await self._late.noted(1) == "stopped"

    async def work(self, message_id: str) -> str:
        """A turn whose tool changes the state and saves a file."""
        return await self.script.ask(f"work on '{self.script.notes('tool')}'", message_id)

    def hang(self) -> None:
        """Let no retry come to an answer by itself."""
        self.script.stage.gemini.hang(contains=self.script.mark, times=3)

    async def everything(self) -> str:
        """All rows that belong to it, without the bills."""
        return unbilled(await everything(self.store, self.script.mark))

    async def let_go(self) -> str:
        """The first worker goes on; what became of its write."""
        os.kill(self._zombie.pid, signal.SIGCONT)
        return await self._late.noted(2)


COUNTS = ("tokens", "nano_usd", "model_calls")
BILL = re.compile(r"^events .*:spent\d+'.*\n?", re.MULTILINE)
ROW = re.compile(
    r"^(sessions \('\w+', 'USER', 'USER'), (\d+), (\d+), (.*), (\d+), (\d+), (\d+)\)$", re.MULTILINE
)


def unbilled(rows: str) -> str:
    """Without the events that only count what a late model call took: they change nothing but the sums."""
    bills = BILL.findall(rows)
    told = [sum(map(int, re.findall(rf"'{name}': (\d+)", "".join(bills)))) for name in COUNTS]

    def before(row: re.Match[str]) -> str:
        start, version, head, middle, *counts = row.groups()
        numbers = [int(count) - more for count, more in zip(counts, told, strict=True)]
        return f"{start}, {int(version) - len(bills)}, {int(head) - len(bills)}, {middle}, {numbers}"

    return ROW.sub(before, BILL.sub("", rows)).strip()


Meanwhile = Callable[[Haunted, asyncio.Task[object]], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A write that comes late, and what comes before it."""

    name: str
    late: str
    begin: Callable[[Haunted], Awaitable[object]]
    meanwhile: Meanwhile
    time: int = 1
    before: tuple[str, ...] = ()
    became: tuple[str, ...]
    """What may become of the write, as its caller is told: nothing of it may show in any case."""


async def ask(haunted: Haunted) -> object:
    return await haunted.script.ask(f"hello from {haunted.script.mark}", "m1")


async def work(haunted: Haunted) -> object:
    return await haunted.work("m1")


async def strive(haunted: Haunted) -> object:
    """The same, where the second worker may take the call over before it hears what comes meanwhile."""
    return await haunted.script.ask(f"strive on '{haunted.script.notes('tool')}'", "m1")


async def compact(haunted: Haunted) -> object:
    return await haunted.runner.compact(haunted.key, request_id="c1")


async def save(haunted: Haunted) -> object:
    return await haunted.runner.save_artifact(haunted.key, "report.txt", b"of the day", "text/plain")


async def rewind(haunted: Haunted) -> object:
    return await haunted.runner.rewind(haunted.key, "b2", request_id="r1")


async def end(haunted: Haunted) -> object:
    return (await haunted.runner.end(haunted.key)).ended_at


async def cancelled(haunted: Haunted) -> object:
    async with haunted.script.hanging("m1") as turn:
        await haunted.runner.cancel(haunted.key)
        return await turn


async def the_retry_commits(haunted: Haunted, begun: asyncio.Task[object]) -> None:
    await begun


async def and_then_redo(haunted: Haunted, begun: asyncio.Task[object]) -> None:
    await begun
    await haunted.runner.rewind(haunted.key, "r1", request_id="r2")


async def and_then_it_is_opened_again(haunted: Haunted, begun: asyncio.Task[object]) -> None:
    await begun
    answer = await haunted.runner.ask(
        haunted.key, f"again, {haunted.script.mark}", message_id="m2", reopen=True
    )
    assert answer.status == "answered"


async def a_cancel(haunted: Haunted, begun: asyncio.Task[object]) -> None:
    haunted.hang()
    await haunted.runner.cancel(haunted.key)
    assert await begun == "cancelled"


async def a_rewind(haunted: Haunted, begun: asyncio.Task[object]) -> None:
    haunted.hang()
    await haunted.runner.rewind(haunted.key, "m1", request_id="r1")
    assert await begun == "cancelled"


async def an_end(haunted: Haunted, begun: asyncio.Task[object]) -> None:
    await begun
    await haunted.runner.end(haunted.key)


async def a_delete(haunted: Haunted, begun: asyncio.Task[object]) -> None:
    await haunted.runner.delete(haunted.key)
    await asyncio.gather(begun, return_exceptions=True)
    assert await haunted.everything() == ""


async def a_successor(haunted: Haunted, begun: asyncio.Task[object]) -> None:
    """The session is deleted, and made anew under the same ids."""
    await a_delete(haunted, begun)
    await haunted.script.talked("b1", "b2", "b3")
    assert (await haunted.work("m1")).startswith("answered")


STALE = ("StaleEpoch", "SessionNotFound", "InvocationNotFound")
LOST = ("went through", "StaleEpoch")
"""It found what the winner had stored, and was given that; or it was refused."""

MODEL = partial(Case, late="append", begin=ask)
TOOL = partial(Case, late="append", time=2, begin=work)
FILE = partial(Case, late="stage_artifact", begin=work)
MESSAGE = partial(Case, late="begin_turn")
CANCEL = partial(Case, late="interrupt", begin=cancelled, became=STALE)
SUMMARY = partial(Case, late="compaction", begin=compact, before=("b1", "b2"))
SAVE = partial(Case, late="append", begin=save, before=("b1",))
REWIND = partial(Case, late="rewind", begin=rewind, before=("b1", "b2"))
END = partial(Case, late="end", begin=end, before=("b1",), became=STALE)

CASES = [
    MODEL(name="model, the retry", meanwhile=the_retry_commits, became=LOST),
    MODEL(name="model, cancel", meanwhile=a_cancel, became=STALE),
    MODEL(name="model, rewind", meanwhile=a_rewind, became=STALE),
    MODEL(name="model, end", meanwhile=an_end, became=("went through", "SessionEnded", *STALE)),
    MODEL(name="model, delete", meanwhile=a_delete, became=STALE),
    MODEL(name="model, successor", meanwhile=a_successor, became=STALE),
    TOOL(name="tool, the retry", meanwhile=the_retry_commits, became=LOST),
    TOOL(name="tool, cancel", begin=strive, meanwhile=a_cancel, became=STALE),
    TOOL(name="tool, rewind", begin=strive, meanwhile=a_rewind, became=STALE),
    TOOL(name="tool, successor", meanwhile=a_successor, became=STALE),
    FILE(name="artifact of a tool, the retry", meanwhile=the_retry_commits, became=LOST),
    FILE(name="artifact of a tool, delete", meanwhile=a_delete, became=STALE),
    MESSAGE(name="first message, the retry", begin=ask, meanwhile=the_retry_commits, became=LOST),
    MESSAGE(name="first message, cancel", begin=ask, meanwhile=a_cancel, became=LOST),
    MESSAGE(name="first message, delete", begin=ask, meanwhile=a_delete, became=STALE),
    MESSAGE(name="first message, successor", begin=work, meanwhile=a_successor, became=LOST),
    MESSAGE(name="message, delete", begin=ask, before=("b1",), meanwhile=a_delete, became=STALE),
    CANCEL(name="cancel, delete", meanwhile=a_delete),
    CANCEL(name="cancel, successor", meanwhile=a_successor),
    SUMMARY(name="summary, the retry", meanwhile=the_retry_commits, became=LOST),
    SUMMARY(name="summary, successor", meanwhile=a_successor, became=STALE),
    SAVE(name="save, the retry", meanwhile=the_retry_commits, became=LOST),
    SAVE(name="save, end", meanwhile=an_end, became=("went through", "SessionEnded")),
    SAVE(name="save, successor", meanwhile=a_successor, became=("ArtifactNotFound", *STALE)),
    REWIND(name="rewind, redo", meanwhile=and_then_redo, became=LOST),
    REWIND(name="rewind, successor", meanwhile=a_successor, became=STALE),
    END(name="end, reopened", meanwhile=and_then_it_is_opened_again),
    END(name="end, successor", meanwhile=a_successor),
]


async def play(stage: Stage, case: Case) -> None:
    script = Script(stage, uuid.uuid4().hex[:10], "crasher")
    await script.talked(*case.before)
    slots = 2 if case.late == "interrupt" else 1
    late = Late(write=case.late, time=case.time, slots=slots, notes=stage.folder / f"{script.mark}.late")
    log = stage.folder / f"{script.mark}.log"
    zombie = ForkedWorker(environment_of(stage.settings(script.mark)), log, late=late)
    haunted = Haunted(script, zombie, late)
    try:
        await started(zombie, script)
        begun = asyncio.ensure_future(case.begin(haunted))
        try:
            await haunted.is_stopped()
            async with successor(stage, script):
                await case.meanwhile(haunted, begun)
                before = await haunted.everything()
                became = await haunted.let_go()
                after = await haunted.everything()
            assert after == before
            assert became in case.became
        finally:
            begun.cancel()
            await asyncio.gather(begun, return_exceptions=True)
    except Exception as error:
        error.add_note(f"the end of the workers' log:\n{log.read_text()[-4000:] if log.exists() else ''}")
        raise
    finally:
        await zombie.kill()


@pytest_asyncio.fixture(scope="module")
async def stages(
    temporal: TemporalServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stages]:
    folder = tmp_path_factory.mktemp("zombies")
    async with (
        StandIn() as gemini,
        open_stages(temporal.address, postgres, "zombies", gemini, folder) as opened,
    ):
        yield opened


@pytest_asyncio.fixture(scope="module")
async def played(
    request: pytest.FixtureRequest, stages: Stages
) -> AsyncIterator[dict[tuple[str, str], asyncio.Task[None]]]:
    """The cases that tests were asked for, playing beside each other; by database and name."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(stage: Stage, case: Case) -> None:
        async with room:
            await play(stage, case)

    tasks = {}
    for item in request.session.items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if isinstance(case := params.get("case"), Case):
            run = one(stages[params["database"]], case)
            tasks[params["database"], case.name] = asyncio.create_task(run)
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
async def test_s13_s23_a_late_write_of(
    played: dict[tuple[str, str], asyncio.Task[None]], database: str, case: Case
) -> None:
    await played[database, case.name]
