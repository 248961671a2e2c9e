"""What a database or a filesystem says when it is away, full or locked, told from all that is an error.

An outage passes: the same call may be made again, and under the same ids it happens once,
also where a connection was lost and nobody knows whether the commit before that was done.
Everything else is left as it is raised. SQLAlchemy's own classes do not tell the two apart:
a full disk and a table that is not there are both an ``OperationalError`` on SQLite.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import asyncpg
from sqlalchemy import exc

from perdure.errors import StorageUnavailable

__all__ = ["LOST", "READ_ONLY", "is_outage", "sqlstate_of", "typed_outages"]

READ_ONLY = "25006"
_LONGEST_QUOTE = 200

_GOES_ON = (
    "nothing is lost; what waits goes on by itself, and what failed may be done again under the same ids"
)
_READ_ONLY = "it is read-only: lead PERDURE_DATABASE_URL to the primary, or allow writes again"
_FULL = "its disk is full: make room"
_FILES = "it cannot read or write its files: look at its disk and its log"
_AWAY = "it does not answer, or the connection was lost: see that it runs and can be reached"
_LOCKED = "it is locked by another transaction: find the process that holds it"
_STARTING = "it is starting or shutting down"
_NO_MEMORY = "it has no memory left"

_SQLSTATES: Mapping[str, str] = {
    READ_ONLY: _READ_ONLY,
    "25P03": _AWAY,
    "40001": _LOCKED,
    "40P01": _LOCKED,
    "53100": _FULL,
    "53200": _NO_MEMORY,
    "53300": "it has no connection free: raise max_connections, or lower PERDURE_POOL_SIZE",
    "53400": _FULL,
    "55P03": _LOCKED,
    "57014": "it cancelled the statement, by a time-out or by hand",
    "57P01": _STARTING,
    "57P02": _STARTING,
    "57P03": _STARTING,
    "57P05": _AWAY,
    "58000": _FILES,
    "58030": _FILES,
}
"""What PostgreSQL says, by SQLSTATE; all of class 08 is a connection."""

_SQLITE: Mapping[str, str] = {
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_CANTOPEN": _FILES,
    "SQLITE_FULL": _FULL,
    "SQLITE_IOERR": _FILES,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_NOMEM": _NO_MEMORY,
    "SQLITE_READONLY": "it is read-only: look at the permissions of its file and folder",
}
"""What SQLite says, by the primary result code."""

LOST = (asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises itself. The second, where the server's last words have come and no end of the
connection: it takes the next statement for one that comes in between."""
_DRIVERS = (sqlite3.Error, asyncpg.PostgresError, *LOST)
"""What statements raise that went past SQLAlchemy."""

_REMOTE = frozenset({"aiobotocore", "aiohttp", "botocore", "gcsfs", "httpx", "requests", "urllib3"})
"""Packages by which filesystems reach their servers, and whose errors are outages."""


@contextmanager
def typed_outages(*, files: bool = False) -> Iterator[None]:
    """Let a database's outage be raised as :class:`StorageUnavailable`.

    Args:
        files: the block reads or writes files too, whose ``OSError`` is no word of the database.
    """
    try:
        yield
    except (exc.SQLAlchemyError, *_DRIVERS, OSError) as error:
        if (found := _why(error)) is None or (files and isinstance(error, OSError)):
            raise
        why, said = found
        quoted = f" ({said})" if said else ""
        raise StorageUnavailable(f"the database cannot be used now, {why}{quoted}; {_GOES_ON}") from error


def is_outage(error: BaseException) -> bool:
    """Whether an error says that the database or the artifacts' filesystem is out of order, for now."""
    if isinstance(error, StorageUnavailable | OSError):
        return not isinstance(error, FileNotFoundError)
    return type(error).__module__.partition(".")[0] in _REMOTE


def sqlstate_of(error: BaseException | None) -> str | None:
    """The SQLSTATE in an error of PostgreSQL's driver, if there is one."""
    state = getattr(error, "sqlstate", None)
    return state if isinstance(state, str) else None


def _why(error: Exception) -> tuple[str, str] | None:
    """Why the database cannot be used, and what it said; None if this is no outage."""
    if isinstance(error, OSError):
        return _AWAY, _quote(error)
    if isinstance(error, exc.TimeoutError):
        return "all connections of this process are in use: raise PERDURE_POOL_SIZE", ""
    if isinstance(error, LOST):
        return _AWAY, _quote(error)
    if not isinstance(error, (exc.DBAPIError, *_DRIVERS)):
        return None
    said = error.orig if isinstance(error, exc.DBAPIError) else error
    state = sqlstate_of(said) or ""
    code = str(getattr(said, "sqlite_errorname", ""))
    why = _SQLSTATES.get(state) or _SQLITE.get("_".join(code.split("_")[:2]))
    if why is None and (state.startswith("08") or getattr(error, "connection_invalidated", False)):
        why = _AWAY
    return None if why is None else (why, _quote(said))


def _quote(error: BaseException | None) -> str:
    """The first line, which tells of the outage and quotes no row."""
    lines = str(error).strip().splitlines() if error is not None else []
    return lines[0].partition(">: ")[2][:_LONGEST_QUOTE] or lines[0][:_LONGEST_QUOTE] if lines else ""
