"""What goes wrong when a program is started, each with what to do about it in its message.

perdure.errors.PerdureError
├── MissingProgram     a program we start is not installed
├── DidNotStart        a program ended, or was not ready in time
└── AlreadyRunning     the data folder is in use by another ``perdure dev``
"""

from __future__ import annotations

from perdure.errors import PerdureError

__all__ = ["AlreadyRunning", "DidNotStart", "MissingProgram"]


class MissingProgram(PerdureError):
    """A program that we start is not installed. Install what the message names."""


class DidNotStart(PerdureError):
    """A program ended before it was ready, or was not ready in time. The message ends with its log."""


class AlreadyRunning(PerdureError):
    """Another ``perdure dev`` uses the data folder. End that one, or give this one a folder of its own."""
