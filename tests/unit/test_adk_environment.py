"""google-adk's environment, asked for by two at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.adk import environment


def test_it_is_made_once_however_many_ask_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    monkeypatch.setattr(environment, "STAMP", tmp_path / ".installed")
    monkeypatch.setattr(environment, "_run", lambda *command: ran.append(command[2]))
    with ThreadPoolExecutor(4) as pool:
        found = {each.result() for each in [pool.submit(environment.ensure) for _ in range(4)]}
    assert found == {tmp_path / "bin" / "python"}
    assert ran == ["venv", "pip"]
