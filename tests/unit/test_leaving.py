"""How a process ends: with its exit code, whatever the threads of Temporal's client do meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import atexit, sys, threading, time, types
from perdure.leaving import end_with

def program():
    atexit.register(print, "called at exit")
    threading.Thread(target=lambda: (time.sleep(0.2), print("a thread is done"))).start()
    sys.stdout.write("said\\n")
    {then}

atexit.register(print, "torn down")
if {temporal}:
    sys.modules["temporalio"] = types.ModuleType("temporalio")
end_with(program)
"""
ENDED = ["said", "a thread is done", "called at exit"]


def ended(*, temporal: bool, then: str) -> tuple[int, list[str], str]:
    """The exit code of a program, and what it said."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(temporal=temporal, then=then)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize("code", [0, 3])
def test_after_temporal_the_interpreter_is_not_torn_down(code: int) -> None:
    assert ended(temporal=True, then=f"return {code}") == (code, ENDED, "")


def test_without_it_the_process_ends_as_any() -> None:
    assert ended(temporal=False, then="return 3") == (3, [*ENDED, "torn down"], "")


def test_what_is_raised_is_told() -> None:
    code, said, complaint = ended(temporal=True, then="raise ZeroDivisionError('by nothing')")
    assert (code, said) == (1, ENDED)
    assert complaint.endswith("ZeroDivisionError: by nothing\n")
