"""Runs the stand-in as a process: ``python -m perdure.testing.gemini --port 8089``.

It is no model. It speaks Gemini's REST protocol and answers by rule, for examples, tests
and demos without an API key. Point Perdure at it with ``PERDURE_MODEL_BASE_URL``; steer it
with :class:`perdure.testing.StandInClient` or over HTTP (:mod:`perdure.testing.control`).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Sequence

from perdure.testing.standin import StandIn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until interrupted or terminated."""
    parser = argparse.ArgumentParser(prog="python -m perdure.testing.gemini", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, the default, takes a free one and prints it")
    parser.add_argument("--no-signatures", action="store_true", help="do not ask for thought signatures back")
    options = parser.parse_args(arguments)
    asyncio.run(_run(options.port, signatures=not options.no_signatures))


async def _run(port: int, *, signatures: bool) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with StandIn(port, signatures=signatures) as stand_in:
        print(f"Gemini stand-in (no model, answers by rule) on {stand_in.url}", flush=True)
        await ended.wait()


if __name__ == "__main__":
    main()
