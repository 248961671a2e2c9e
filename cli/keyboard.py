"""What is typed while something runs.

A prompt waits for its line and lets nothing else happen. While a turn runs there is no prompt: then the
terminal itself edits the line, and whoever listens here gets it when it is whole.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Keyboard"]

MOST = 65_536
"""Bytes that are read at a time."""


class Keyboard:
    """The lines of a terminal.

    Args:
        descriptor: of the terminal.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._begun = b""

    @contextmanager
    def listening(self, heard: Callable[[str], None]) -> Iterator[None]:
        """Call ``heard`` with each line that is typed while the block runs; blank ones are none."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._descriptor, self._read, loop, heard)
        try:
            yield
        finally:
            loop.remove_reader(self._descriptor)

    def _read(self, loop: asyncio.AbstractEventLoop, heard: Callable[[str], None]) -> None:
        typed = os.read(self._descriptor, MOST)
        if not typed:  # Ctrl-D, which is for the prompt
            loop.remove_reader(self._descriptor)
            return
        *lines, self._begun = (self._begun + typed).split(b"\n")
        for line in lines:
            if said := line.decode(errors="replace").strip():
                heard(said)
