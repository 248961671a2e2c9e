"""`perdure retention`, without a Temporal: the dry run needs none, and the rest says that it does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway import retention
from perdure.errors import InvalidOption
from perdure.types import SessionKey
from storage.schema import sessions
from tests.unit.command import Run, dev_folder


@pytest.fixture
async def data(tmp_path: Path) -> None:
    """A folder as `perdure dev` leaves it, with an old session and a new one; Temporal is away."""
    folder = tmp_path / ".perdure"
    folder.mkdir()
    store = await dev_folder(folder)
    for name in ("old", "new"):
        await store.create(SessionKey(app="counter", user_id="ada", session_id=name))

    async def age(conn: AsyncConnection) -> None:
        then = datetime.now(UTC) - timedelta(days=31)
        await conn.execute(update(sessions).where(sessions.c.id == "old").values(updated_at=then))

    await store._db.write(age)
    await store.close()


def test_s50_a_dry_run_prints_what_would_go_and_deletes_nothing(perdure: Run, data: None) -> None:
    for _ in range(2):
        code, out, _ = perdure("retention", "run", "--days", "30", "--dry-run")
        assert code == 0
        assert out.splitlines()[0] == "counter/ada/old"
        assert out.splitlines()[1].endswith(": 1 would go")
        assert "new" not in out
    assert perdure("retention", "run", "--days", "40", "--dry-run")[1].splitlines()[0].endswith("0 would go")


@pytest.mark.parametrize(
    "arguments",
    [["set", "--days", "30", "--every", "6"], ["show"], ["off"], ["run"], ["run", "--dry-run"]],
    ids=" ".join,
)
def test_without_temporal_it_says_so(perdure: Run, data: None, arguments: list[str]) -> None:
    code, out, complaint = perdure("retention", *arguments)
    assert (code, out) == (1, "")
    assert complaint.startswith("perdure: NotReachable: Temporal does not answer at 127.0.0.1:1")


@pytest.mark.parametrize(
    "arguments", [["set"], ["set", "--days", "0"], ["set", "--days", "1", "--every", "0"]], ids=" ".join
)
def test_days_and_hours_are_one_or_more(perdure: Run, arguments: list[str]) -> None:
    assert perdure("retention", *arguments)[0] == 2


@pytest.mark.parametrize("command", [["set"], ["run"], ["run", "--dry-run"]], ids=" ".join)
def test_days_do_not_reach_back_before_the_calendar(perdure: Run, data: None, command: list[str]) -> None:
    assert perdure("retention", *command, "--days", "800000")[0] == 2


async def test_a_schedule_with_days_that_no_run_could_take_is_refused() -> None:
    for days in (-1.0, 800_000.0, float("nan")):
        with pytest.raises(InvalidOption, match="days"):
            await retention.schedule(Mock(), "queue", days=days, every=timedelta(hours=1))
        with pytest.raises(InvalidOption, match="days"):
            await retention.run_now(Mock(), "queue", days=days)
