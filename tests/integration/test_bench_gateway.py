"""The benchmark of the gateway runs, for a time in which its numbers mean nothing and its counts do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import gateway


def test_every_reader_gets_every_event(tmp_path: Path) -> None:
    found = measured(tmp_path / "numbers.json", 3.0)
    assert (found["sessions"], found["readers"]) == (3, 6)
    for side in ("gateway", "bare"):
        assert found[side]["turns"] >= 2
        assert found[side]["p95_ms"] >= found[side]["p50_ms"] > 0
        assert set(found[side]["cpu_ms_a_turn"]) == {
            "client", "model", "worker", "gateway", "temporal", "postgres"
        }  # fmt: skip
    assert found["ratio"]["turns_per_second"] > 0
    # Each turn is two events, which each of two readers gets.
    assert found["streams"]["events"] >= 2 * 2 * found["gateway"]["turns"]
    assert found["streams"]["pieces"] > 0
    assert (found["streams"]["missed"], found["streams"]["twice"]) == (0, 0)
    assert found["memory_mb"]["after"]["gateway"] > 0
    assert len(found["load"]) == 2


def measured(file: Path, seconds: float) -> dict[str, Any]:
    """What it found, in as many seconds as it takes for two turns to end on a machine that stands still."""
    try:
        gateway.main(["--seconds", str(seconds), "--sessions", "3", "--readers", "6", "--json", str(file)])
    except RuntimeError as error:
        if "give it more seconds" not in str(error):
            raise
        return measured(file, 4 * seconds)
    found: dict[str, Any] = json.loads(file.read_text())
    assert found["seconds"] == seconds
    return found


@pytest.mark.parametrize("wrong", [["--seconds", "0.5"], ["--sessions", "0"], ["--readers", "-1"]])
def test_sizes_that_make_no_sense_are_refused(wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        gateway.main(wrong)
