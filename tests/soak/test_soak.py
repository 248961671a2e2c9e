"""A short soak on each database; ``make soak`` runs the long one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.soak.soak import Plan, soak

SECONDS = float(os.environ.get("SOAK_SECONDS", "180"))
"""Under fire, on both databases together. Starting, mending and checking come on top."""
SEED = int(os.environ.get("SOAK_SEED", "1"))


@pytest.mark.timeout(SECONDS / 2 + 600)
@pytest.mark.parametrize("database", ["postgres", "sqlite"])
async def test_s58_to_s63_sessions_under_fire_are_what_was_acknowledged(
    database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    plan = Plan(seconds=SECONDS / 2, seed=SEED, database=database, sessions=20, pause=3.0, fault_every=5.0)
    checked = await soak(plan, tmp_path, told.append)
    with capsys.disabled():
        print("", *told, sep="\n  ")
    assert checked.found == [], "\n".join(told)
    assert checked.events > 0
