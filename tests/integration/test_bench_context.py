"""The benchmark of the prompt runs, at sizes where its times mean nothing and its counts do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import context


def test_with_compaction_a_prompt_is_flat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "SECONDS", 0.0)
    monkeypatch.setattr(context, "LEAST", 1)
    file = tmp_path / "numbers.json"
    context.main(["--turns", "10", "20", "60", "--databases", "sqlite", "--json", str(file)])
    kinds = json.loads(file.read_text())["sqlite"]
    assert list(kinds) == ["without", "with"]
    assert [kinds["with"][turn]["characters_ratio"] for turn in ("10", "20", "60")] == [1.0, 1.0, 1.0]
    assert kinds["without"]["20"]["characters_ratio"] > 1.8
    assert kinds["without"]["60"]["characters_ratio"] > 5.5
    for costs in kinds.values():
        assert all(row["cold_ms"] > 0 and row["cached_ms"] > 0 for row in costs.values())
