"""Fork: what was live before a point, copied into a session of its own.

Events keep their ids and get dense new seqs, so all that names seqs is renumbered. Markers
of rewinds are left behind: what they undid is not in the fork, so there is nothing that
they could redo. No undo has to be computed anew: along the live path a marker changes
nothing (it restores what was there when its predecessor on that path had been appended), so
each event's ``state_undo`` is what it takes back in the fork, too. The state that the source
was created with is in no event; it is what remains when all is taken back, in both.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from sqlalchemy import bindparam, func, insert, literal, select, union_all, update
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import SessionExists
from perdure.types import JsonObject, Session, SessionKey
from storage import artifacts as versions
from storage import log, past, projection, session_row, state
from storage.projection import Span
from storage.records import owner
from storage.schema import artifacts, events
from storage.session_row import LockedSession

__all__ = ["fork", "live_blobs"]

_COPIED = [column.name for column in events.c if column.name not in ("app", "user_id", "session_id", "seq")]
_SUMMARIES = select(events.c.seq, events.c.compaction).where(*log.OWNED, events.c.compaction.is_not(None))
_RENUMBER = update(events).where(
    events.c.app == bindparam("b_app"),
    events.c.user_id == bindparam("b_user_id"),
    events.c.session_id == bindparam("b_session_id"),
    events.c.seq == bindparam("b_seq"),
)


class _Places:
    """Where the copied events come to stand: the seqs within spans, without those of markers."""

    def __init__(self, spans: Sequence[Span], markers: Sequence[int]) -> None:
        self._spans = spans
        self._starts = [start for start, _ in spans]
        self._before = [0, *accumulate(stop - start for start, stop in spans)]
        self._markers = markers

    def below(self, seq: int) -> int:
        """How many copied events have a lower seq in the source."""
        at = bisect_left(self._starts, seq)
        count = self._before[at]
        if at and (stop := self._spans[at - 1][1]) > seq:
            count -= stop - seq
        return count - bisect_left(self._markers, seq)

    def of(self, seq: int) -> int:
        """The new seq of a copied event."""
        return self.below(seq) + 1

    def summed_up(self, compaction: JsonObject) -> JsonObject:
        """The range of a copied summary. One that covers markers alone comes to cover its neighbour."""
        end = max(1, self.below(compaction["end"] + 1))
        start = min(self.of(compaction["start"]), end)
        return {**compaction, "start": start, "end": end, "tail": self.of(compaction["tail"])}


async def fork(
    conn: AsyncConnection, row: LockedSession, key: SessionKey, before: str | None, blobs: dict[str, str]
) -> Session:
    """See :meth:`storage.copy_store.CopyStore.fork`.

    Args:
        conn: the transaction.
        row: the source, locked.
        key: the fork.
        before: the point; None means all that is live.
        blobs: where the bytes are in the fork, for those that are not where the source has them.
    """
    stop, spans, own = await _point(conn, row, before)
    origin = {"session": str(row.key), "seq": stop - 1, "before": before}
    made = await session_row.insert(conn, key, forked_from=origin)
    if made is None:
        raise SessionExists(f"session {key} (app/user/session) exists; fork into another id")
    places = _Places(spans, await _markers(conn, row.key, spans))
    await _copy_events(conn, row.key, key, spans)
    await _renumber_summaries(conn, key, row.key, places, spans)
    await _copy_artifacts(conn, row.key, key, spans, places, blobs)
    await state.write_own(conn, key, own)
    made.head = places.below(stop)
    made.metadata = dict(row.metadata)
    await made.save(conn)
    return made.session(await state.load(conn, key))


async def live_blobs(conn: AsyncConnection, row: LockedSession, before: str | None) -> set[str]:
    """Where the bytes are of the artifact versions that a fork takes with it."""
    ranges = row.projection
    if before is not None:
        point = await past.before(conn, row.key, ranges, before)
        ranges = projection.cut(point.projection, point.seq)
    return {version.blob for version in await _own_versions(conn, row.key, ranges)}


async def _point(
    conn: AsyncConnection, row: LockedSession, before: str | None
) -> tuple[int, list[Span], dict[str, Any]]:
    """The first seq that is not copied, the live spans below it, and the session's own state there."""
    own = await state.load_own(conn, row.key)
    if before is None:
        return row.head + 1, projection.clip(row.projection, 1, row.head + 1), own
    point = await past.before(conn, row.key, row.projection, before)
    was = await past.own_state(conn, row.key, point.seq)
    return point.seq, projection.clip(point.projection, 1, point.seq), state.changed(own, was)


async def _markers(conn: AsyncConnection, key: SessionKey, spans: Sequence[Span]) -> list[int]:
    query = select(events.c.seq).where(*log.OWNED, events.c.rewind.is_not(None)).order_by(events.c.seq)
    found = (await conn.execute(query, owner(key))).scalars()
    return [seq for seq in found if projection.contains(spans, seq)]


async def _copy_events(
    conn: AsyncConnection, source: SessionKey, key: SessionKey, spans: Sequence[Span]
) -> None:
    """Copy rows within the database; what is in them never comes here."""
    done = 0
    for first in range(0, len(spans), log.AT_ONCE):
        parts = [
            select(events).where(
                *log.OWNED, events.c.seq >= start, events.c.seq < stop, events.c.rewind.is_(None)
            )
            for start, stop in spans[first : first + log.AT_ONCE]
        ]
        old = (union_all(*parts) if len(parts) > 1 else parts[0]).subquery()
        columns = [literal(value).label(name) for name, value in owner(key).items()]
        place = literal(done) + func.row_number().over(order_by=old.c.seq)
        query = select(*columns, place.label("seq"), *(old.c[name] for name in _COPIED))
        copied = insert(events).from_select([*owner(key), "seq", *_COPIED], query)
        done += (await conn.execute(copied, owner(source))).rowcount


async def _renumber_summaries(
    conn: AsyncConnection, key: SessionKey, source: SessionKey, places: _Places, spans: Sequence[Span]
) -> None:
    """The copied summaries name the seqs of the source until here."""
    named = {f"b_{column}": value for column, value in owner(key).items()}
    rows = [
        {**named, "b_seq": places.of(row.seq), "compaction": places.summed_up(row.compaction)}
        for row in await conn.execute(_SUMMARIES, owner(source))
        if projection.contains(spans, row.seq)
    ]
    if rows:
        await conn.execute(_RENUMBER, rows)


async def _copy_artifacts(
    conn: AsyncConnection,
    source: SessionKey,
    key: SessionKey,
    spans: Sequence[Span],
    places: _Places,
    blobs: dict[str, str],
) -> None:
    rows = [
        {
            **row._mapping,
            **owner(key),
            "origin": key.session_id,
            "seq": places.of(row.seq),
            "blob": blobs.get(row.blob, row.blob),
        }
        for row in await _own_versions(conn, source, spans)
    ]
    if rows:
        await conn.execute(insert(artifacts), rows)


async def _own_versions(conn: AsyncConnection, key: SessionKey, ranges: projection.Ranges) -> list[Any]:
    found = await versions.visible(conn, key, ranges, name=None, event_id=None)
    return [row for row in found if row.session_id == key.session_id]
