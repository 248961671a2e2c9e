"""Writes that wait until the database or the bucket is back.

What a model has answered is paid for, and what a tool has done is done. If the commit of it
fails because the database is away, read-only or full, another attempt of the activity would
ask the model, or run the tool, again. So the attempt that has the result keeps it and tries
the commit again, for as long as it is let; its heartbeats go on meanwhile. Every write has
an id: one that was done after all, unknown to us, is found.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from temporalio.service import RPCError

from activities.runtime import Attempts, log
from perdure.logs import words_of
from perdure.types import SessionKey
from storage.outages import is_outage

__all__ = ["patiently"]

T = TypeVar("T")

FIRST_PAUSE = 0.25
LONGEST_PAUSE = 15.0


async def patiently(
    write: Callable[[], Awaitable[T]],
    key: SessionKey,
    invocation_id: str,
    *,
    attempts: Attempts | None = None,
    tries: int | None = None,
) -> T:
    """Do a write that may be done again, until it is done.

    Args:
        write: the write.
        key: the session, for the log.
        invocation_id: the turn, for the log.
        attempts: of the activity: this one is not counted if it has to wait, since it may be
            ended meanwhile, and it was not the model or the tool that failed.
        tries: give up after so many; None: never.

    Raises:
        Exception: what is no outage, or the outage where ``tries`` were given.
    """
    pause = FIRST_PAUSE
    for number in itertools.count(1):
        try:
            done = await write()
        except Exception as error:
            # Temporal itself is asked, before some commits, whether it still waits for them.
            if number == tries or not (is_outage(error) or isinstance(error, RPCError)):
                raise
            log(logging.WARNING, "storage.wait", key, invocation_id, "try %d: %s", number, words_of(error))
        else:
            if attempts is not None:
                attempts.waits_to_write = False
            return done
        if attempts is not None:
            attempts.waits_to_write = True
            attempts.take_back()
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
    raise AssertionError("counting never ends")
