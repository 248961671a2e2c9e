"""The benchmark of idle sessions runs, at sizes where its times mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import idle


def test_sessions_that_left_the_cache_go_on(tmp_path: Path) -> None:
    file = tmp_path / "numbers.json"
    idle.main(["--sessions", "12", "--cache", "4", "--sample", "2", "--at-once", "2", "--json", str(file)])
    found = json.loads(file.read_text())
    assert (found["sessions"], found["cache"]) == (12, 4)
    assert found["opened_per_second"] > 0
    assert found["after"]["worker_mb"] > 0
    assert found["after"]["server_mb"] > 0
    assert found["evicted_ms"]["p50"] > 0
    assert found["cached_ms"]["p50"] > 0


@pytest.mark.parametrize("wrong", [["--sessions", "100"], ["--cache", "50"], ["--sample", "1"]])
def test_sizes_that_make_no_sense_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        idle.main(wrong)
