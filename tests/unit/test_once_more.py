"""A test that failed is run again, alone; what fails twice, or with many others, has failed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAILS_ONCE = """
from pathlib import Path

def test_{name}():
    flag = Path("{name}")
    if not flag.exists():
        flag.touch()
        raise AssertionError("the machine was busy")
"""
FAILS = "def test_broken():\n    assert 1 == 2\n"
PASSES = "def test_good():\n    pass\n"


def played(folder: Path, *tests: str, strict: str = "") -> tuple[int, str]:
    """A whole run of these tests, and what comes after one with failures."""
    (folder / "test_it.py").write_text("\n".join(tests))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "STRICT": strict, "PYTEST_ADDOPTS": ""}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", *command],
            check=False,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )

    assert run("pytest", "--cache-clear", "-p", "no:schemathesis").returncode == 1
    again = run("tests.once_more")
    return again.returncode, again.stdout


def test_what_passes_alone_is_told_and_counts_as_passed(tmp_path: Path) -> None:
    code, said = played(tmp_path, FAILS_ONCE.format(name="busy"), PASSES)
    assert code == 0
    assert "FAILURE then SUCCESS: test_it.py::test_busy" in said
    assert "1 passed" in said, "the other did not need it"


def test_where_it_is_to_count_it_counts(tmp_path: Path) -> None:
    code, said = played(tmp_path, FAILS_ONCE.format(name="busy"), strict="1")
    assert code == 1
    assert "FAILURE then SUCCESS: test_it.py::test_busy" in said


@pytest.mark.parametrize("others", [(), (FAILS_ONCE.format(name="busy"),)], ids=["alone", "with another"])
def test_what_fails_twice_has_failed(tmp_path: Path, others: tuple[str, ...]) -> None:
    code, said = played(tmp_path, FAILS, *others)
    assert code == 1
    assert "FAILURE then SUCCESS" not in said


def test_many_are_no_accident(tmp_path: Path) -> None:
    code, said = played(tmp_path, *(FAILS_ONCE.format(name=f"busy{number}") for number in range(4)))
    assert (code, said) == (1, "")
