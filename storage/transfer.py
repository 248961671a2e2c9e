"""A session as JSON Lines, and back: the row, the whole log, the state, the artifacts with their bytes.

The first line is the session, the last one counts the others, so that a file which was cut
off is not taken for a whole one. A log only grows, so an export reads it a page at a time
and stops at the head that it saw first. What belongs to the user or the app is not the
session's and stays out: ``user:`` and ``app:`` keys, ``user:`` artifacts.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import InvalidContent, SessionExists
from perdure.types import Event, Json, JsonObject, Session, SessionKey, Spent
from storage import memory, session_row, state
from storage.names import check_name, is_users
from storage.records import check_event, event_values, owner
from storage.schema import artifacts, events, utc_of
from storage.storable import check_id, check_json, check_key, dumps, loads

__all__ = ["FORMAT", "Reader", "artifact_line", "end_line", "event_line", "session_line", "write"]

FORMAT = 1
"""Of the lines. A reader refuses a later one."""
AT_ONCE = 500
"""Rows written by one statement."""

MAX_NUMBER = 2**53
"""Of a version, an epoch and the like: far from what a column holds, so that there is room to go on."""

_FAULTS = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, binascii.Error)
_ROW = ("version", "epoch", "head")
_COUNTED = ("tokens", "nano_usd", "model_calls")
_MOMENTS = ("created_at", "updated_at", "ended_at")
_NAMED = ("invocation_id", "author", "branch", "content", "compaction", "rewind", "usage", "error")
_DELTAS = ("state_delta", "state_undo", "artifact_delta", "meta")
_SAVED = ("name", "version", "event_id", "ordinal", "seq", "mime_type")


def session_line(row: Any, own: JsonObject) -> str:
    """The first line: a row of ``sessions``, and the session's own state."""
    columns = row._mapping
    told = {name: columns[name] for name in (*_ROW, "projection", "metadata", "forked_from")}
    told |= {name: _written(columns[name]) for name in _MOMENTS}
    told["spent"] = {name: columns[name] for name in _COUNTED}
    named = {"app": columns["app"], "user_id": columns["user_id"], "session_id": columns["id"]}
    return dumps({"kind": "session", "format": FORMAT, **named, **told, "state": own})


def event_line(event: Event) -> str:
    """An event; ``live`` tells whether it was rewound."""
    told = {name: getattr(event, name) for name in _NAMED if getattr(event, name) is not None}
    told |= {name: dict(getattr(event, name)) for name in _DELTAS if getattr(event, name)}
    place = {"seq": event.seq, "id": event.id, "live": event.live, "created_at": _written(event.created_at)}
    return dumps({"kind": "event", **place, **told})


def artifact_line(row: Any, data: bytes) -> str:
    """A version of an artifact, live or not, with its bytes."""
    told = {name: getattr(row, name) for name in _SAVED}
    encoded = base64.b64encode(data).decode()
    return dumps({"kind": "artifact", **told, "created_at": _written(row.created_at), "data": encoded})


def end_line(events: int, artifacts: int) -> str:
    """The last line."""
    return dumps({"kind": "end", "events": events, "artifacts": artifacts})


@dataclass(kw_only=True)
class Reader:
    """Takes an export line by line and says what is wrong with it."""

    session: JsonObject = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    artifacts: list[JsonObject] = field(default_factory=list)
    ended: bool = False
    _line: int = 0

    async def lines(
        self, given: AsyncIterable[str] | Iterable[str]
    ) -> AsyncIterator[tuple[JsonObject, bytes]]:
        """Take every line; those of artifacts are given on with their bytes, which are not kept here.

        Raises:
            InvalidContent: this is no whole export of a session.
        """
        async for text in _each(given):
            self._line += 1
            if not text.strip():
                continue
            try:
                found = self._take(text)
            except _FAULTS as error:
                reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
                raise InvalidContent(
                    f"line {self._line} is not one of an export ({reason}); export the session again"
                ) from error
            if found is not None:
                yield found
        if not self.ended:
            raise InvalidContent(
                f"the export was cut off after line {self._line}: its last line is missing; export it again"
            )

    @property
    def key(self) -> SessionKey:
        """The session that was exported."""
        told = self.session
        return SessionKey(app=told["app"], user_id=told["user_id"], session_id=told["session_id"])

    def _take(self, text: str) -> tuple[JsonObject, bytes] | None:
        told = loads(text)
        kind = told["kind"]
        if (kind == "session") == bool(self.session) or self.ended:
            raise ValueError(f"a line of kind {kind!r} does not belong here")
        check_json(told, f"line {self._line}")
        if kind == "session":
            self.session = _session(told)
            check_key(self.key)
        elif kind == "event":
            self.events.append(_event(told, len(self.events) + 1))
        elif kind == "artifact":
            data = base64.b64decode(told["data"], validate=True)
            self.artifacts.append(_artifact(told, len(data), self.session["head"]))
            return self.artifacts[-1], data
        elif kind == "end":
            self._end(told)
        else:
            raise ValueError(f"kind {kind!r} is unknown")
        return None

    def _end(self, told: JsonObject) -> None:
        counts = (len(self.events), len(self.artifacts))
        if (told["events"], told["artifacts"]) != counts or len(self.events) != self.session["head"]:
            raise ValueError(f"{counts[0]} events and {counts[1]} artifacts came, not all of them")
        if len({event.id for event in self.events}) != len(self.events):
            raise ValueError("two events have one id")
        if len({(each["name"], each["version"]) for each in self.artifacts}) != len(self.artifacts):
            raise ValueError("two artifacts have one name and version")
        self.ended = True


async def write(conn: AsyncConnection, key: SessionKey, read: Reader) -> Session:
    """Make the session that was read, under this key.

    Raises:
        SessionExists: the id is taken.
    """
    told = read.session
    row = await session_row.insert(conn, key, forked_from=told["forked_from"], created_at=told["created_at"])
    if row is None:
        raise SessionExists(f"session {key} (app/user/session) exists; import under another key")
    for name in ("version", "head", "projection", "metadata", "updated_at", "ended_at"):
        setattr(row, name, told[name])
    row.spent = _spent(told)
    # Not below what a session of this name had here, nor what its turns had there.
    row.epoch = max(row.epoch, told["epoch"])
    await _insert(conn, events, [event_values(key, event) for event in read.events])
    mine = {**owner(key), "origin": key.session_id}
    await _insert(conn, artifacts, [{**artifact, **mine} for artifact in read.artifacts])
    await state.write_own(conn, key, told["state"])
    await row.write(conn)
    await memory.take_out_the_dead(conn, row)
    return row.session(await state.load(conn, key))


def _spent(told: JsonObject) -> Spent:
    """What the session had spent; an export of a release before did not say."""
    given = told.get("spent") or {}
    return Spent(**{name: given.get(name, 0) for name in _COUNTED})


async def _insert(conn: AsyncConnection, table: Any, rows: list[dict[str, Any]]) -> None:
    for start in range(0, len(rows), AT_ONCE):
        await conn.execute(insert(table), rows[start : start + AT_ONCE])


def _session(told: JsonObject) -> JsonObject:
    if told["format"] != FORMAT:
        raise ValueError(f"format {told['format']} is newer than this release, which reads {FORMAT}")
    for name in _ROW:
        _natural(name, told[name])
    for name, count in (told.get("spent") or {}).items():
        _natural(f"spent {name}", count)
    own = state.storable_delta(told["state"])
    if own != told["state"] or any(value is None or state.is_shared(name) for name, value in own.items()):
        raise ValueError("its state has keys that are not the session's own")
    if not isinstance(told["metadata"], dict) or not isinstance(told["forked_from"], (dict, type(None))):
        raise ValueError("metadata and forked_from are objects")
    _check_projection(told["projection"], told["head"])
    times: dict[str, Any] = {name: _moment(told[name]) for name in _MOMENTS}
    if times["created_at"] is None or times["updated_at"] is None:
        raise ValueError("it was created and updated at some time")
    return {**told, **times}


def _check_projection(ranges: Json, head: int) -> None:
    at = 1
    for place, (start, stop) in enumerate(ranges, 1):
        if (stop is None) != (place == len(ranges)):
            raise ValueError("only the last range of its projection is open")
        at = _natural("a range", start, at)
        at = _natural("a range", at + 1 if stop is None else stop, at + 1)
    if not ranges or ranges[-1][0] > head + 1:
        raise ValueError("its projection does not reach the head")


def _event(told: JsonObject, seq: int) -> Event:
    if told["seq"] != seq:
        raise ValueError(f"event {told['seq']} came where {seq} was due")
    named: dict[str, Any] = {name: told.get(name) for name in _NAMED}
    deltas: dict[str, Any] = {name: dict(told.get(name) or {}) for name in _DELTAS}
    event = Event(id=told["id"], seq=seq, created_at=_moment(told["created_at"]), **named, **deltas)
    if event.created_at is None or not isinstance(event.rewind, (dict, type(None))):
        raise ValueError("an event has a time, and an object for its rewind")
    if event.rewind is not None:
        _check_projection(event.rewind["projection"], seq - 1)
        _natural("the seq of a rewind", event.rewind["seq"], 1)
    # Only rewind() makes markers, says the check of an append; these were made by it.
    check_event(replace(event, rewind=None))
    return event


def _artifact(told: JsonObject, size: int, head: int) -> JsonObject:
    check_name(told["name"])
    check_id(told["mime_type"], "its MIME type")
    check_id(told["event_id"], "its event's id", max_bytes=600)
    if is_users(told["name"]) or not 1 <= _natural("seq", told["seq"]) <= head:
        raise ValueError("an artifact belongs to the session and to one of its events")
    _natural("version", told["version"], 1)
    _natural("ordinal", told["ordinal"])
    moment = _moment(told["created_at"])
    if moment is None:
        raise ValueError("an artifact has a time")
    return {**{name: told[name] for name in _SAVED}, "size": size, "created_at": moment}


def _natural(name: str, value: Json, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MAX_NUMBER:
        raise ValueError(f"{name} is {value!r}")
    return value


def _written(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _moment(text: Json) -> datetime | None:
    return None if text is None else utc_of(datetime.fromisoformat(text))


async def _each(lines: AsyncIterable[str] | Iterable[str]) -> AsyncIterator[str]:
    if isinstance(lines, AsyncIterable):
        async for line in lines:
            yield line
    else:
        for line in lines:
            yield line
