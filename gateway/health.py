"""Whether a worker can serve: ``/healthz`` for who sends it work, ``/livez`` for who restarts it.

They differ on purpose. A worker whose database is away is of no use and not ready, and
yet a restart would not help it: it is alive, and goes on when the database is back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

__all__ = ["PATIENCE", "Checks", "NotReady", "health_app"]

PATIENCE = 5.0
"""Seconds that a part has for its answer."""
_LONGEST_REASON = 200

Check = Callable[[], Awaitable[None]]


class NotReady(Exception):
    """What a check raises where it has nothing better: the reason, in words."""


class Checks:
    """What has to hold for a worker to be ready, asked together.

    A part that hangs is not asked again before it has answered: whoever probes every few
    seconds must not pile up connections that wait for a dead database.

    Args:
        checks: by name; each raises what is wrong, or returns.
        patience: seconds each has.
    """

    def __init__(self, checks: Mapping[str, Check], *, patience: float = PATIENCE) -> None:
        self._checks = dict(checks)
        self._patience = patience
        self._asked: dict[str, asyncio.Task[None]] = {}

    async def down(self) -> dict[str, str]:
        """What does not answer, and why; empty if all is well."""
        asked = {name: self._ask(name) for name in self._checks}
        await asyncio.wait(asked.values(), timeout=self._patience)
        return {name: why for name, task in asked.items() if (why := self._reason(task))}

    async def close(self) -> None:
        """Stop asking."""
        for task in self._asked.values():
            task.cancel()
        await asyncio.gather(*self._asked.values(), return_exceptions=True)

    def _ask(self, name: str) -> asyncio.Task[None]:
        task = self._asked.get(name)
        if task is None or task.done():
            task = self._asked[name] = asyncio.ensure_future(_run(self._checks[name]))
        return task

    def _reason(self, task: asyncio.Task[None]) -> str | None:
        if not task.done():
            return f"no answer in {self._patience:g} seconds"
        error = None if task.cancelled() else task.exception()
        if error is None:
            return None
        said = str(error).partition("\n")[0][:_LONGEST_REASON]
        return said if isinstance(error, NotReady) else f"{type(error).__name__}: {said}".rstrip(": ")


def health_app(checks: Checks) -> Starlette:
    """``/healthz``: 200 if ready, else 503 with what is down; ``/livez``: 200 while it can answer."""

    async def healthz(_: Request) -> JSONResponse:
        down = await checks.down()
        return JSONResponse({"ready": not down, "down": down}, status_code=503 if down else 200)

    async def livez(_: Request) -> JSONResponse:
        return JSONResponse({"alive": True})

    return Starlette(routes=[Route("/healthz", healthz), Route("/livez", livez)])


async def _run(check: Check) -> None:
    await check()
