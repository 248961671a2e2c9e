"""The benchmark of cancels runs, at sizes where its times mean nothing."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from pathlib import Path

import pytest

from bench import cancel
from workflows import calls


def test_a_cancel_is_felt_by_all_kinds_of_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda least, most: 0.0)
    # What is tried again, because this process has stood still, does not hang any more.
    monkeypatch.setattr(calls, "HEARTBEAT", timedelta(seconds=60))
    file = tmp_path / "numbers.json"
    cancel.main(["--samples", "1", "--calls", "2", "--seconds", "0.1", "--json", str(file)])
    found = json.loads(file.read_text())
    assert set(found["felt_seconds"]) == set(cancel.KINDS)
    assert all(0 < felt["p50"] <= felt["most"] for felt in found["felt_seconds"].values())
    assert set(found["cpu_percent"]) == {"1 call", "2 calls"}
    assert found["cpu_percent"]["2 calls"]["server"] >= 0
