"""Stands between a worker and an MCP server that it starts, so that the server does not outlive the worker.

A server is to end when its stdin does. One that is in the midst of a call may not, and where the worker was
killed, nobody is left to end it. This process is: it leads the group that the server is in.

It is run by its path, ``python mcp_guard.py WORKER PROGRAM ARGUMENT…``, and imports nothing of ours: it is to
start in milliseconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

__all__ = ["guarded"]

_LOOK_EVERY = 1.0
_GRACE = 2.0
"""Seconds in which the server can end by itself, as when a worker disconnects from it."""


def guarded(command: str, *arguments: str) -> list[str]:
    """The command that runs a program under guard, for this process."""
    return [sys.executable, "-I", "-S", __file__, str(os.getpid()), command, *arguments]


def _end_with(worker: int) -> None:
    while os.getppid() == worker:
        time.sleep(_LOOK_EVERY)
    time.sleep(_GRACE)
    os.killpg(os.getpid(), signal.SIGKILL)


def _run(worker: str, *command: str) -> int:
    server = subprocess.Popen(command)
    threading.Thread(target=_end_with, args=(int(worker),), daemon=True).start()
    return server.wait()


if __name__ == "__main__":
    sys.exit(_run(*sys.argv[1:]))
