"""The store's bench runs, on tiny sizes: that its cases are there, not what they take."""

from __future__ import annotations

import json

import pytest

from bench.store import bench
from bench.store_cases import QUICK
from bench.store_report import numbers_of, show, targets_of


async def test_every_case_and_target_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    cases = (await bench(["sqlite"], QUICK, adk=False))["sqlite"]
    targets = targets_of("sqlite", cases, QUICK)
    show({"sqlite": cases}, QUICK)
    shown = capsys.readouterr().out
    for case in cases:
        assert case.name in shown
        assert len(case.ms["ours"]) == case.samples
        assert len(case.ms["floor"]) == (case.samples if case.floor is not None else 0)
        assert json.loads(json.dumps(numbers_of(case)))["ours"]["p50_ms"] > 0
    unmeasured = [target.name for target in targets if target.measured is None]
    assert len(unmeasured) == 1
    assert "google-adk" in unmeasured[0]
