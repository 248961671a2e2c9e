"""Messages that are being asked: once each, however many requests wait for the answer.

A client that waits for a long turn comes back under the message's id again and again. Were each
time another question put to Temporal, all of them would wait there until the turn ends.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from functools import partial

from gateway.runner import Answer, Runner, Said
from perdure.types import SessionKey

__all__ = ["Asking"]

_log = logging.getLogger("perdure.gateway")
_Name = tuple[SessionKey, str]


class Asking:
    """The turns whose answers this gateway waits for. It holds their tasks, as asyncio does not."""

    def __init__(self) -> None:
        self._tasks: dict[_Name, asyncio.Task[Answer]] = {}

    def __len__(self) -> int:
        """How many."""
        return len(self._tasks)

    def ask(self, runner: Runner, key: SessionKey, said: Said) -> asyncio.Task[Answer]:
        """Have a message asked; join in where the very same is being asked already.

        Args:
            runner: asks.
            key: the session.
            said: the message, with its id.

        Returns:
            What :meth:`gateway.runner.Runner.ask` gives. Who waits for it does not cancel it: others may
            wait, too.
        """
        name = key, hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
        task = self._tasks.get(name)
        if task is None or task.done():
            task = self._tasks[name] = asyncio.create_task(runner.ask(key, **said))
            task.add_done_callback(partial(self._over, name))
        return task

    async def close(self) -> None:
        """Stop waiting; the turns go on."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _over(self, name: _Name, task: asyncio.Task[Answer]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.debug("a message was not answered: %s", type(error).__name__)
