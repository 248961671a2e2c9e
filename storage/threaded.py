"""Transactions of a driver that blocks, each whole in a thread of its own.

SQLite's driver answers without waiting for anybody, so handing every statement to a thread
and back, as its asyncio wrappers do, costs more than the statements. Here a transaction is
handed over once. Its work is written for asyncio, as PostgreSQL needs it; the thread just
runs it through, which goes well because nothing in it ever has to wait.

The hazard: work that awaits anything but its connection (a blob, say) cannot be run so, and
is refused. It is run by :meth:`ThreadedEngine.step_by_step`, on the event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.engine import URL, Dialect
from sqlalchemy.ext.asyncio import AsyncConnection

__all__ = ["ThreadedEngine", "Work"]

T = TypeVar("T")
Work = Callable[[AsyncConnection], Awaitable[T]]
"""What is done in one transaction, given its connection."""


class ThreadedEngine:
    """An engine of a driver that blocks.

    Args:
        engine: its connections must not mind in which thread they are used.
        threads: how many transactions may run at once.
    """

    def __init__(self, engine: Engine, threads: int) -> None:
        self.sync_engine = engine
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="perdure-database")

    @property
    def dialect(self) -> Dialect:
        """As of the engine."""
        return self.sync_engine.dialect

    @property
    def url(self) -> URL:
        """As of the engine."""
        return self.sync_engine.url

    def transact(self, work: Work[T], **options: Any) -> asyncio.Future[T]:
        """Run work that awaits nothing but its connection, in a transaction with these execution options."""
        context = contextvars.copy_context()
        run = functools.partial(context.run, _run_through, self.sync_engine, work, options)
        return asyncio.get_running_loop().run_in_executor(self._threads, run)

    async def step_by_step(self, work: Work[T], **options: Any) -> T:
        """Run work that awaits other things too: on the event loop, each statement in a thread."""
        connection = await asyncio.to_thread(self.sync_engine.connect)
        try:
            connection.execution_options(**options)
            transaction = await asyncio.to_thread(connection.begin)
            try:
                done = await work(_as_async(_Stepping(connection)))
            except BaseException as error:
                await asyncio.to_thread(transaction.__exit__, type(error), error, error.__traceback__)
                raise
            await asyncio.to_thread(transaction.__exit__, None, None, None)
            return done
        finally:
            await asyncio.to_thread(connection.close)

    async def dispose(self) -> None:
        """Close every connection and end the threads."""
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.to_thread(self.sync_engine.dispose)


class _Direct:
    """What work uses of a connection, answered at once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.dialect = connection.dialect

    async def execute(self, *arguments: Any, **options: Any) -> Any:
        return self._connection.execute(*arguments, **options)

    async def exec_driver_sql(self, *arguments: Any, **options: Any) -> Any:
        return self._connection.exec_driver_sql(*arguments, **options)

    async def run_sync(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        return function(self._connection, *arguments, **options)


class _Stepping(_Direct):
    """The same, answered by a thread."""

    async def execute(self, *arguments: Any, **options: Any) -> Any:
        return await asyncio.to_thread(self._connection.execute, *arguments, **options)

    async def exec_driver_sql(self, *arguments: Any, **options: Any) -> Any:
        return await asyncio.to_thread(self._connection.exec_driver_sql, *arguments, **options)

    async def run_sync(self, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
        return await asyncio.to_thread(function, self._connection, *arguments, **options)


def _run_through(engine: Engine, work: Work[T], options: dict[str, Any]) -> T:
    with engine.connect() as connection, connection.execution_options(**options).begin():
        steps = work(_as_async(_Direct(connection))).__await__()
        try:
            next(steps)
        except StopIteration as done:
            return cast(T, done.value)
        close = getattr(steps, "close", None)
        if close is not None:
            close()
        raise RuntimeError("the work of a transaction waited for something else than its connection")


def _as_async(connection: _Direct) -> AsyncConnection:
    # Work asks for no more than what _Direct has; SQLAlchemy's own class takes asyncio drivers alone.
    return cast(AsyncConnection, connection)
