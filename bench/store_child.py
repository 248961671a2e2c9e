"""The other side of :mod:`bench.store_adk`: asks the child and reads its answers."""

from __future__ import annotations

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

from tests.adk.environment import ROOT, command_environment, ensure

__all__ = ["CAP", "Child", "Refused", "TookTooLong"]

CAP = 60.0
"""Seconds after which a step of google-adk's is given up."""
FILL_CAP = 600.0
ANSWER_BYTES = 2**20


class TookTooLong(Exception):
    """The child did not answer within the cap; it was ended, and the next question starts another."""


class Refused(Exception):
    """The child raised; the message says what."""


class Child:
    """google-adk on one database, in a process and an environment of its own.

    Args:
        url: an SQLAlchemy URL with an async driver.
        log: where its errors and warnings go.
    """

    def __init__(self, url: str, log: Path) -> None:
        self._url = url
        self._log = log
        self._process: Process | None = None

    async def ask(self, do: str, *, cap: float = CAP, **arguments: Any) -> list[float]:
        """Have something done; the milliseconds that each time took.

        Raises:
            TookTooLong: not within ``cap`` seconds.
            Refused: google-adk raised.
        """
        process = await self._started()
        assert process.stdin is not None, "piped"
        assert process.stdout is not None, "piped"
        process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), cap)
        except TimeoutError:
            await self.stop()
            raise TookTooLong(f"{do}: more than {cap:g} s") from None
        if not line:
            raise RuntimeError(f"google-adk's process ended at {do}; see {self._log.read_text()[-2000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise Refused(answer["error"])
        found: list[float] = answer["ms"]
        return found

    async def fill(self, do: str, **arguments: Any) -> None:
        """Make data; that may take its time."""
        await self.ask(do, cap=FILL_CAP, **arguments)

    async def stop(self) -> None:
        """End the process; safe to call twice."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def _started(self) -> Process:
        if self._process is None:
            python = await asyncio.to_thread(ensure)
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *(str(python), str(ROOT / "bench" / "store_adk.py"), self._url),
                    cwd=ROOT,
                    env=command_environment(),
                    stdin=PIPE,
                    stdout=PIPE,
                    stderr=log,
                    limit=ANSWER_BYTES,
                )
        return self._process
