"""Named points at which a test can kill the process, to see that nothing is lost or doubled.

In production :func:`reach` looks at one module variable and returns. A test starts a process
with the variables that :func:`crash_at` gives: it is gone, by SIGKILL, at the n-th time that
it reaches the point, before the next line runs. Which points a run passes, and how often, is
found out by a dry run with :func:`note_in`; so a test need not know them, and a new one is
tried by itself.

A process looks at its environment once, when this module is imported.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Mapping
from pathlib import Path

__all__ = ["POINTS", "crash_at", "note_in", "noted", "reach"]

AT = "PERDURE_CRASH_AT"
NOTES = "PERDURE_CRASH_NOTES"

_TRANSACTIONS = {
    "create": "a session is made",
    "begin_turn": "the user's event, and the session if it is new",
    "append": "an event of the model, of a tool, or of an artifact saved from outside, with its effects",
    "compaction": "a summary",
    "interrupt": "the mark of a turn that was cancelled or failed",
    "rewind": "the marker, and the state as it was",
    "end": "the session is closed",
    "update": "a change of state or metadata from outside a turn",
    "stage_artifact": "an artifact's version, which no event lists yet",
    "fork": "the copy of a session",
    "import": "a session from an archive",
    "delete": "a session and all that is its own goes",
    "remember": "a part of what a session said is in its user's memory",
}

_OTHERS = {
    "blob.before_write": "none of a blob's bytes is in the place for artifacts",
    "blob.before_rename": "on a local filesystem: they are, under a passing name",
    "blob.after_write": "they are, under their key, and no row names them",
    "model.chunk": "a piece of the model's answer has come in",
    "activity.before_completion": "an activity is done, and Temporal has not been told",
    "workflow.before_continue_as_new": "a run has decided to hand over to the next one",
}

POINTS: Mapping[str, str] = {
    **{
        f"{name}.{when}_commit": f"{when} the commit of: {what}"
        for name, what in _TRANSACTIONS.items()
        for when in ("before", "after")
    },
    **_OTHERS,
}
"""Every point there is, and what it means. ``before_commit``: all statements of the transaction
have run, but for an event on PostgreSQL that is one statement: then it has not been sent."""


def crash_at(point: str, flag: Path, *, occurrence: int = 1) -> dict[str, str]:
    """The environment of processes of which the first to get there dies at a point.

    Args:
        point: one of :data:`POINTS`.
        flag: a file that it makes before it dies. While that is there, nobody dies.
        occurrence: the how manieth time, from 1, that a process reaches the point.

    Raises:
        LookupError: there is no such point.
    """
    _check(point)
    return {AT: f"{point}#{occurrence}={flag}"}


def note_in(notes: Path) -> dict[str, str]:
    """The environment of a process that writes down the points that it reaches; see :func:`noted`."""
    return {NOTES: str(notes)}


def noted(notes: Path) -> list[tuple[str, int]]:
    """The points that a process with :func:`note_in` reached, in order, and the how manieth time it was."""
    counts: dict[str, int] = {}
    found = []
    for point in notes.read_text().splitlines() if notes.exists() else ():
        counts[point] = counts.get(point, 0) + 1
        found.append((point, counts[point]))
    return found


def reach(point: str) -> None:
    """Die here, if the environment says so.

    Raises:
        LookupError: armed, and the point is not in :data:`POINTS`.
    """
    if _armed:
        _reached(point)


def _reached(point: str) -> None:
    _check(point)
    if _notes:
        handle = os.open(_notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, f"{point}\n".encode())
        os.close(handle)
    if point == _point and next(_times) == _occurrence:
        try:
            os.close(os.open(_flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def _check(point: str) -> None:
    if point not in POINTS:
        raise LookupError(f"there is no crash point {point!r}; perdure.crashpoints.POINTS lists them")


_place, _, _flag = os.environ.get(AT, "").partition("=")
_point, _, _number = _place.partition("#")
_occurrence = int(_number or 1)
_times = itertools.count(1)
_notes = os.environ.get(NOTES, "")
_armed = bool(_place or _notes)
