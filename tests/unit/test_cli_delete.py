"""``perdure sessions delete`` asks first, and says what it cannot do in one line."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from tests.unit.command import Run, dev_folder


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """A folder as ``perdure dev`` leaves it; Temporal is away."""
    folder = tmp_path / ".perdure"
    folder.mkdir()
    await (await dev_folder(folder)).close()
    return folder


@pytest.mark.parametrize("said", ["n\n", "\n", ""], ids=["no", "nothing", "no terminal"])
def test_s22_without_a_yes_nothing_is_deleted(
    perdure: Run, data: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(said))
    done = perdure("sessions", "delete", "counter/ada/one", "counter/ada/two", "--data", str(data))
    assert done.code == 1
    assert done.out.strip() == ""
    for words in ("counter/ada/one", "counter/ada/two", "for ever", "Aborted"):
        assert words in done.err


def test_a_yes_goes_on_and_needs_temporal(perdure: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    asked = perdure("sessions", "delete", "counter/ada/one", "--data", str(data))
    told = perdure("sessions", "delete", "counter/ada/one", "--yes", "--data", str(data))
    for done in (asked, told):
        assert done.code == 1
        assert "perdure: NotReachable: Temporal does not answer" in done.err
    assert "for ever" not in told.err


def test_a_name_that_is_no_session_stops_all(perdure: Run, data: Path) -> None:
    done = perdure("sessions", "delete", "--yes", "counter/ada/one", "nonsense", "--data", str(data))
    assert done.code == 1
    assert "perdure: InvalidOption: 'nonsense' names no session" in done.err


def test_a_user_is_not_deleted_without_a_yes(
    perdure: Run, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    asked = perdure("users", "delete", "counter/ada", "--data", str(data))
    assert asked.code == 1
    for words in ("counter/ada", "for ever", "Aborted"):
        assert words in asked.err
    told = perdure("users", "delete", "counter/ada", "--yes", "--data", str(data))
    assert told.code == 1
    assert "perdure: NotReachable: Temporal does not answer" in told.err
    wrong = perdure("users", "delete", "--yes", "counter/ada/one", "--data", str(data))
    assert "perdure: InvalidOption: 'counter/ada/one' names no user" in wrong.err
