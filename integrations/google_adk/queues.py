"""Waiting in line, within a process: whoever asks first is served first."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from weakref import WeakValueDictionary

__all__ = ["Queues"]


class Queues:
    """One line for each thing that must not be worked on by two at once."""

    def __init__(self) -> None:
        # By event loop too: Runner.run makes one of its own, and a lock belongs to one loop.
        self._locks: WeakValueDictionary[tuple[int, Hashable], asyncio.Lock] = WeakValueDictionary()

    def of(self, what: Hashable) -> asyncio.Lock:
        """The lock of a thing; it is there as long as somebody holds it or waits for it."""
        return self._locks.setdefault((id(asyncio.get_running_loop()), what), asyncio.Lock())
