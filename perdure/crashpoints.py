"""Named points at which a test can kill the process, to see that nothing is lost.

In production :func:`reach` looks at one module variable and returns. A test starts a
worker with ``PERDURE_CRASH_AT=<point>=<file>``: the first process to reach the point
creates the file and is gone, by SIGKILL, before the next line runs; later ones find the
file and go on.
"""

from __future__ import annotations

import os
import signal

__all__ = ["POINTS", "VARIABLE", "reach"]

VARIABLE = "PERDURE_CRASH_AT"

POINTS = frozenset(
    {
        "model.before_commit",
        "model.after_commit",
        "tool.before_commit",
        "tool.after_commit",
        "artifact.staged",
        "compaction.before_commit",
        "compaction.after_commit",
        "rewind.before_commit",
        "rewind.after_commit",
        "end.after_commit",
    }
)
"""Every point there is. Reaching one that is not listed is a bug, and says so when armed."""

_point, _, _flag = os.environ.get(VARIABLE, "").partition("=")


def reach(point: str) -> None:
    """Die here, if this is the point that the environment names and nobody has died at it yet."""
    if not _point:
        return
    if point not in POINTS:
        raise LookupError(f"crash point {point!r} is not listed in POINTS")
    if point == _point:
        try:
            os.close(os.open(_flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)
