"""The ordinary append as one statement: a function in PostgreSQL, and the call of it.

An append by hand is eight round trips: BEGIN, lock the row, read what the keys were, and so
on. ``perdure_append_counted`` does the same within the server, and its call is a transaction of its
own, so nothing else crosses the wire. SQLite has no round trips to save; see
:mod:`storage.append_sqlite`.

**The split.** The function writes what is plainly right: the session is there, open and at
the caller's epoch, the id is new, every key is what the caller read. In any other case it
writes nothing and says so, and :mod:`storage.append`, which every other write is made of
too, does it again from the start and raises the typed error or finds the stored event. So
the function never has to tell *why*; what it cannot judge, such as whether two JSON texts
that differ are the same value, it leaves. Summaries and artifacts always go that way.

**The hazards.**

- Locks: as everywhere, the session's row comes first, then the shared keys in the order of
  their names. A shared key that is not as expected is found when there are writes already; so
  that alone is an error, PD001, which undoes them.
- Plans: PL/pgSQL keeps a plan for as long as its connection lives, also one that was made
  when the tables were empty and a scan was cheapest. So the function plans without scans,
  and looks up the keys one by one: a join would read all that the session has.
- Names: tables are looked up in the schema that the function was made in, first of all, and
  never in a temporary one.
- Releases: during a roll-out the release before calls this function on the newer schema. One
  with other parameters, or that does something else, gets another name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import asyncpg

from perdure.errors import StorageUnavailable
from perdure.state import MISSING
from perdure.types import Event, Json, SessionKey
from storage import state
from storage.engine import Database
from storage.outages import READ_ONLY, sqlstate_of
from storage.records import event_values, stored_event
from storage.session_row import now
from storage.spending import spent_on
from storage.storable import dumps_exactly

__all__ = ["append_at_once", "is_ordinary"]

UNDONE = "PD001"
"""The SQLSTATE of what turned out not to be plain when some of it was written."""
_PARAMETERS = 27
_CALL = (
    "SELECT at_seq, at_epoch, undo FROM perdure_append_counted("
    + ", ".join(f"${n}" for n in range(1, _PARAMETERS + 1))
    + ")"
)


def is_ordinary(event: Event) -> bool:
    """Whether the function can append such an event at all."""
    return event.compaction is None and not event.artifact_delta


async def append_at_once(
    database: Database,
    key: SessionKey,
    event: Event,
    *,
    epoch: int | None,
    expect: Mapping[str, Json],
    begins: bool = False,
    reopen: bool = False,
) -> tuple[Event, int] | None:
    """Append a prepared event that is ordinary, in one statement.

    Args:
        database: it is on PostgreSQL.
        key: the session.
        event: what to append.
        epoch: that of the caller; None is unfenced, or takes the session over where ``begins``.
        expect: what keys were when they were read.
        begins: the event is the first of its invocation.
        reopen: take it also if the session was ended, and open that again.

    Returns:
        The event as stored and the session's epoch; None, with nothing written, if it is no plain case.
    """
    time = now()
    wanted = stored_event(event, seq=0, created_at=time)
    values = event_values(key, wanted)
    names = ("content", "state_delta", "usage", "error", "meta")
    spent = spent_on(wanted)
    given: tuple[Any, ...] = (
        *(key.app, key.user_id, key.session_id),
        *(epoch, begins, reopen, time),
        *(event.id, event.invocation_id, event.author, event.branch),
        *(_text(values[name]) for name in names),
        wanted.created_at,
        *_changes(key, event.state_delta, expect),
        *(spent.tokens, spent.nano_usd, spent.model_calls),
    )
    try:
        at_seq, at_epoch, undo = await database.write_at_once(_CALL, given)
    except (asyncpg.PostgresError, StorageUnavailable) as error:
        if not _is_for_others(error):
            raise
        return None
    return None if at_seq is None else (replace(wanted, seq=at_seq, state_undo=undo or {}), at_epoch)


def _is_for_others(error: Exception) -> bool:
    """Whether nothing was written, and :mod:`storage.append` is to find out what is the matter.

    Its statements go through SQLAlchemy, which gives up all connections to a server that is
    read-only. A DataError is a value that cannot be sent, such as an epoch beyond 64 bits.
    """
    if isinstance(error, asyncpg.DataError):
        return True
    return sqlstate_of(error.__cause__ or error) in (UNDONE, READ_ONLY)


def _changes(key: SessionKey, delta: Mapping[str, Json], expect: Mapping[str, Json]) -> Iterable[Any]:
    """The delta as columns: own names, values and expectations; shared names, users, and the same."""
    own = [name for name in delta if not state.is_shared(name)]
    shared = sorted(filter(state.is_shared, delta))
    users = [state.shared_owner(key, name)["user_id"] for name in shared]
    for names, more in ((own, []), (shared, [users])):
        yield names
        yield from more
        yield [_text(delta[name]) for name in names]
        yield [_expected(expect, name) for name in names]


def _expected(expect: Mapping[str, Json], name: str) -> str | None:
    """What the key's text must be: '' for a key that is not there, None for whatever it is."""
    if name not in expect:
        return None
    return "" if expect[name] is MISSING else dumps_exactly(expect[name])


def _text(value: Json) -> str | None:
    return None if value is None else dumps_exactly(value)
