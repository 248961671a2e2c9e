"""The end of a process that may have talked to Temporal.

The threads of Temporal's client know nothing of Python's end. One that is just telling of something while
the interpreter is torn down aborts the process (temporalio/sdk-python issue 300): a command that did
all it should then ends with a SIGABRT and not with its exit code.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable
from typing import NoReturn

__all__ = ["end_with"]


def end_with(program: Callable[[], int]) -> NoReturn:
    """Run a program, and end the process with the exit code that it returns.

    Threads are waited for, and what is registered with ``atexit`` while it runs is called, as ever. Only
    then, where Temporal's client is loaded, the process ends without tearing the interpreter down.
    """
    code = 1  # of what is raised

    def leave() -> None:
        if "temporalio" not in sys.modules:
            return
        import logging

        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:  # who read it is gone, and Python says so by its exit code, too
                os._exit(code or 120)
        os._exit(code)

    atexit.register(leave)  # the first of all, so it is called last
    code = program()
    sys.exit(code)
