"""Blocking calls, off the event loop."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

__all__ = ["in_thread", "to_the_end"]

P = ParamSpec("P")
T = TypeVar("T")

_threads = ThreadPoolExecutor(32, thread_name_prefix="perdure-blobs")
# Of their own. The event loop looks up the names of hosts in its default threads, a handful: a bucket
# that hangs would take them all, and no session of the worker could reach its model any more.


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Make a blocking call in a thread; who is cancelled meanwhile hears of it when the call is over.

    A thread cannot be stopped. Were it left alone, whoever cleans up after a cancel would
    close or remove a file that is still being written.
    """
    run = partial(contextvars.copy_context().run, partial(call, *args, **kwargs))
    return await to_the_end(asyncio.get_running_loop().run_in_executor(_threads, run))


async def to_the_end(work: Awaitable[T]) -> T:
    """Await work, and only when it is done be cancelled, if somebody asked for that meanwhile."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None and not task.cancelled():
        task.exception()  # seen: what became of it does not matter to a caller that is gone
        raise cancelled
    return task.result()
