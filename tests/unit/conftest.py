"""The command line as a fixture."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import main
from tests.unit.command import Run, Said

SETTINGS = (
    "PERDURE_LOG_LEVEL",
    "PERDURE_DATA",
    "PERDURE_AGENTS",
    "PERDURE_DATABASE_URL",
    "PERDURE_TEMPORAL_ADDRESS",
)


@pytest.fixture
def perdure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """The command, in an empty folder and with no settings."""
    monkeypatch.chdir(tmp_path)
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["perdure", *arguments])
        code = main.run()
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    root = logging.getLogger()
    before = list(root.handlers)
    yield run
    for handler in set(root.handlers) - set(before):
        # What a command that serves logs to is a stream that is closed now.
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)
