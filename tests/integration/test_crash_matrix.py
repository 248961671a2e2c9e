"""A worker is killed at every point that there is, of everything that it does; then nothing must show.

Each scenario is played once undisturbed, and notes the points it passes. Then it is played
once more for each of them: its worker dies there, by SIGKILL, and another takes over. What
clients are told, the log, the state, the files and the session's row have to be the same as
undisturbed, and the model may only be asked again for an answer that was not in the log.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from perdure.crashpoints import POINTS
from perdure.testing import StandIn
from tests.integration import crash_services
from tests.integration.crash_runs import Matrix, Stages, open_stages
from tests.integration.crash_scenarios import INPUT_LIMIT, SCENARIOS, Scenario, Script

DATABASES = ["sqlite", "postgres"]

WHOLE = os.environ.get("CRASH_MATRIX") == "whole"
"""Try every point every time; else, on SQLite, the first and the last time, or all those of a scenario
that says so, and on PostgreSQL the first."""


def chosen(database: str, scenario: Scenario, points: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Which of the points are tried."""
    sqlite = database == "sqlite"
    last = dict(points) if sqlite else {}
    return [
        (point, time)
        for point, time in points
        if WHOLE or time in (1, last.get(point)) or (sqlite and scenario.whole and point != "model.chunk")
    ]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One scenario on one database, in all its runs."""

    points: list[tuple[str, int]]
    tried: int
    failures: list[Exception]


async def play_row(matrix: Matrix, database: str, scenario: Scenario) -> Row:
    points = (await matrix.undisturbed(database, scenario)).points
    tried = chosen(database, scenario, points)
    runs = [matrix.killed_at(database, scenario, at) for at in tried]
    done = await asyncio.gather(*runs, return_exceptions=True)
    return Row(
        points=points, tried=len(tried), failures=[each for each in done if isinstance(each, Exception)]
    )


@pytest_asyncio.fixture(scope="module")
async def stages(
    temporal: TemporalServer, postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stages]:
    folder = tmp_path_factory.mktemp("matrix")
    # With ids of calls as they come, two runs would differ by them.
    async with (
        StandIn(call_ids=False, input_limit=INPUT_LIMIT) as gemini,
        open_stages(temporal.address, postgres, "crash_matrix", gemini, folder) as opened,
    ):
        yield opened


@pytest_asyncio.fixture(scope="module")
async def matrix(stages: Stages) -> Matrix:
    return Matrix(stages)


@pytest_asyncio.fixture(scope="module")
async def rows(
    request: pytest.FixtureRequest, matrix: Matrix
) -> AsyncIterator[dict[tuple[str, str], asyncio.Task[Row]]]:
    """The rows that tests were asked for, playing beside each other; by database and scenario."""
    tasks = {}
    for item in request.session.items:
        params = getattr(getattr(item, "callspec", None), "params", {})
        if isinstance(scenario := params.get("scenario"), Scenario):
            row = play_row(matrix, params["database"], scenario)
            tasks[params["database"], scenario.name] = asyncio.create_task(row)
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
@pytest.mark.parametrize("database", DATABASES)
async def test_s58_a_worker_dies_at_every_point_of(
    rows: dict[tuple[str, str], asyncio.Task[Row]], database: str, scenario: Scenario
) -> None:
    row = await rows[database, scenario.name]
    print(f"{database}, {scenario.name}: {row.tried} of", dict(Counter(point for point, _ in row.points)))
    if row.failures:
        raise ExceptionGroup(f"{len(row.failures)} of {row.tried} runs", row.failures)
    assert row.tried


async def test_s58_a_slow_client_leads_past_the_same_points(
    matrix: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a worker would be sent to die where it never comes."""
    scenarios = [each for each in SCENARIOS if each.name in ("call that waits", "message that joins")]
    quick = [await matrix.undisturbed("sqlite", each) for each in scenarios]
    ask = Script.ask

    async def hesitate(script: Script, *args: Any, **more: Any) -> str:
        await asyncio.sleep(1)  # longer than any step of a turn takes: a client need not be quick
        return await ask(script, *args, **more)

    monkeypatch.setattr(Script, "ask", hesitate)
    slow = await asyncio.gather(*(matrix.played_anew("sqlite", each) for each in scenarios))
    assert [Counter(each.points) for each in slow] == [Counter(each.points) for each in quick]


@pytest.mark.parametrize("name", crash_services.OPERATIONS)
@pytest.mark.parametrize("database", DATABASES)
async def test_s6_a_service_dies_at_every_point_of(stages: Stages, database: str, name: str) -> None:
    assert await crash_services.dies_at_every_point(stages[database], name)


async def test_s58_every_crash_point_is_reached(matrix: Matrix, stages: Stages) -> None:
    """By a worker or by a service; one that is not listed says so when it is reached."""
    reached: set[str] = set()
    for scenario in SCENARIOS:
        reached |= {point for point, _ in (await matrix.undisturbed("sqlite", scenario)).points}
    for name in crash_services.OPERATIONS:
        reached |= {point for point, _ in (await crash_services.undisturbed(stages["sqlite"], name)).points}
    assert reached == set(POINTS)
