"""The tables, the view through which a person reads a session, and PostgreSQL's function.

The same on SQLite and PostgreSQL but for the column types. Owners are never NULL: a state
key of the user has ``session_id`` '', one of the app ``user_id`` '' too, and the key keeps
its prefix. There are no foreign keys: every write of a session locks its row first, so an
event cannot outlive it, and an append saves the look-up.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Index, PrimaryKeyConstraint, Table, Text, UniqueConstraint
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator, TypeEngine

from storage.full_text import create_full_text
from storage.functions import APPEND
from storage.storable import dumps, loads

__all__ = [
    "LIVE_EVENTS",
    "api_keys",
    "artifacts",
    "epoch_floor",
    "events",
    "memories",
    "memory_passages",
    "memory_requests",
    "metadata",
    "moment_text",
    "sessions",
    "state",
    "utc_of",
]


class Json(TypeDecorator[Any]):
    """JSON as it was written. Python None is SQL NULL.

    PostgreSQL's ``json`` keeps the text, so also the order of keys; ``jsonb`` would not. On
    SQLite the column is TEXT: a column declared JSON has NUMERIC affinity there and would
    turn the stored text ``1.0`` into 1 and round large integers.
    """

    impl = sa.JSON
    cache_ok = True

    def __init__(self, *, binary: bool = False) -> None:
        super().__init__(none_as_null=True)
        self.binary = binary

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            kind = postgresql.JSONB if self.binary else postgresql.JSON
            return dialect.type_descriptor(kind(none_as_null=True))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return value if value is None or dialect.name == "postgresql" else dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:
        return value if value is None or dialect.name == "postgresql" else loads(value)


def moment_text(moment: datetime) -> str:
    """How SQLite keeps a time."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")


def utc_of(moment: datetime) -> datetime:
    """A time in UTC.

    Raises:
        ValueError: it has no timezone.
        OverflowError: in UTC it is out of the calendar.
    """
    if moment.utcoffset() is None:
        raise ValueError(f"time {moment.isoformat()} has no timezone")
    return moment.astimezone(UTC)


class Moment(TypeDecorator[datetime]):
    """A timezone-aware time to the microsecond, in UTC; on SQLite a text that sorts as the time does."""

    impl = sa.DateTime
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(sa.DateTime(timezone=True))
        return dialect.type_descriptor(Text())

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        return value.astimezone(UTC) if dialect.name == "postgresql" else moment_text(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        # asyncpg gives UTC, but the first and last moment of the calendar as naive ones.
        return value.replace(tzinfo=UTC) if dialect.name == "postgresql" else datetime.fromisoformat(value)


class Vector(TypeDecorator[Sequence[float]]):
    """Numbers of four bytes each: an array on PostgreSQL, which pgvector can take, and bytes on SQLite."""

    impl = sa.LargeBinary
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        if dialect.name == "postgresql":
            return dialect.type_descriptor(postgresql.ARRAY(sa.REAL))
        return dialect.type_descriptor(sa.LargeBinary())

    def process_bind_param(self, value: Sequence[float] | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        return list(value) if dialect.name == "postgresql" else struct.pack(f"<{len(value)}f", *value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Sequence[float] | None:
        if value is None:
            return None
        return list(value) if dialect.name == "postgresql" else struct.unpack(f"<{len(value) // 4}f", value)


# Keys compare byte by byte on both, whatever the database's locale.
Key = Text().with_variant(Text(collation="C"), "postgresql")

metadata = sa.MetaData()


def _owner(*, session: str = "session_id") -> list[Column[Any]]:
    return [Column(name, Key, nullable=False) for name in ("app", "user_id", session)]


sessions = Table(
    "sessions",
    metadata,
    *_owner(session="id"),
    Column("version", BigInteger, nullable=False),
    Column("epoch", BigInteger, nullable=False),
    Column("head", BigInteger, nullable=False),
    Column("projection", Json(), nullable=False),
    Column("metadata", Json(binary=True), nullable=False),
    Column("created_at", Moment(), nullable=False),
    Column("updated_at", Moment(), nullable=False),
    Column("ended_at", Moment()),
    Column("forked_from", Json()),
    # What the model calls of its log took; see storage.spending.
    Column("tokens", BigInteger, nullable=False, server_default="0"),
    Column("nano_usd", BigInteger, nullable=False, server_default="0"),
    Column("model_calls", BigInteger, nullable=False, server_default="0"),
    PrimaryKeyConstraint("app", "user_id", "id", name="sessions_pkey"),
    Index("sessions_by_app", "app", "updated_at", "user_id", "id"),
    Index("sessions_by_user", "app", "user_id", "updated_at", "id"),
    Index(
        "sessions_by_metadata",
        "metadata",
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
        info={"only": "postgresql"},
    ).ddl_if(dialect="postgresql"),
)

state = Table(
    "state",
    metadata,
    *_owner(),
    Column("key", Key, nullable=False),
    Column("value", Json(), nullable=False),
    PrimaryKeyConstraint("app", "user_id", "session_id", "key", name="state_pkey"),
)

events = Table(
    "events",
    metadata,
    *_owner(),
    Column("seq", BigInteger, nullable=False),
    Column("event_id", Key, nullable=False),
    Column("invocation_id", Key, nullable=False),
    Column("author", Text, nullable=False),
    Column("branch", Text),
    Column("content", Json()),
    Column("state_delta", Json()),
    Column("state_undo", Json()),
    Column("artifact_delta", Json()),
    Column("compaction", Json()),
    Column("rewind", Json()),
    Column("usage", Json()),
    Column("error", Json()),
    Column("meta", Json()),
    Column("created_at", Moment(), nullable=False),
    PrimaryKeyConstraint("app", "user_id", "session_id", "seq", name="events_pkey"),
    UniqueConstraint("app", "user_id", "session_id", "event_id", name="events_event_id_key"),
    Index("events_by_invocation", "app", "user_id", "session_id", "invocation_id", "seq"),
)

# A rewind reads the undos, a prompt the newest summary, whatever the length of the log.
for _column in ("state_undo", "compaction"):
    _filled = events.c[_column].is_not(None)
    Index(
        f"events_with_{_column}",
        events.c.app,
        events.c.user_id,
        events.c.session_id,
        events.c.seq,
        sqlite_where=_filled,
        postgresql_where=_filled,
    )

artifacts = Table(
    "artifacts",
    metadata,
    *_owner(),
    Column("name", Key, nullable=False),
    Column("version", BigInteger, nullable=False),
    # The session that saved it, also where the artifact itself belongs to the user.
    Column("origin", Key, nullable=False),
    Column("event_id", Key, nullable=False),
    Column("ordinal", BigInteger, nullable=False),
    # The seq of the event that committed it, in the log of its origin; NULL while it is staged.
    Column("seq", BigInteger),
    Column("blob", Text, nullable=False),
    Column("mime_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("created_at", Moment(), nullable=False),
    PrimaryKeyConstraint("app", "user_id", "session_id", "name", "version", name="artifacts_pkey"),
    Index("artifacts_by_event", "app", "user_id", "origin", "event_id"),
)

# One row: the epoch at which new sessions start. A delete lifts it above the epoch of what it
# deletes, so that a turn left over from a deleted session cannot write into its successor.
epoch_floor = Table(
    "epoch_floor",
    metadata,
    Column("one", BigInteger, primary_key=True, autoincrement=False),
    Column("value", BigInteger, nullable=False),
    sa.CheckConstraint("one = 1", name="epoch_floor_one_row"),
)

# The gateway's. A key's secret is nowhere, only its hash; NULL apps or users are all of them.
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Key, primary_key=True),
    Column("hash", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("apps", Json()),
    Column("users", Json()),
    Column("created_at", Moment(), nullable=False),
    Column("expires_at", Moment()),
    Column("revoked_at", Moment()),
)

# What was remembered of a session, also when the session itself is deleted: it is the user's.
memories = Table(
    "memories",
    metadata,
    *_owner(),
    # The seq up to which all that is live is in it; NULL once the session is deleted.
    Column("upto", BigInteger),
    Column("remembered_at", Moment(), nullable=False),
    PrimaryKeyConstraint("app", "user_id", "session_id", name="memories_pkey"),
)

# The requests that have put a session into the memory: one whose record is gone since was forgotten.
memory_requests = Table(
    "memory_requests",
    metadata,
    *_owner(),
    Column("request_id", Key, nullable=False),
    PrimaryKeyConstraint("app", "user_id", "session_id", "request_id", name="memory_requests_pkey"),
)

memory_passages = Table(
    "memory_passages",
    metadata,
    # The rowid on SQLite, by which its full-text index knows it.
    Column("id", BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    *_owner(),
    Column("seq", BigInteger, nullable=False),
    Column("part", BigInteger, nullable=False),
    Column("event_id", Key, nullable=False),
    Column("invocation_id", Key, nullable=False),
    Column("author", Text, nullable=False),
    Column("said_at", Moment(), nullable=False),
    Column("text", Text, nullable=False),
    Column("words", Text, nullable=False),
    Column("embedding", Vector()),
    Column("embedding_model", Text),
    UniqueConstraint("app", "user_id", "session_id", "seq", "part", name="memory_passages_place_key"),
    Index("memory_passages_by_model", "app", "user_id", "embedding_model", "id"),
    # A vector that comes late must not meet another passage under its id.
    sqlite_autoincrement=True,
)

_SHOWN = """e.app, e.user_id, e.session_id, e.seq, e.invocation_id, e.event_id, e.author, e.branch,
       {text} AS text,
       e.content, e.state_delta, e.state_undo, e.artifact_delta, e.compaction, e.rewind, e.usage,
       e.error, e.meta, e.created_at"""

LIVE_EVENTS = {
    "postgresql": "CREATE VIEW live_events AS\nSELECT "
    + _SHOWN.format(
        text="""(SELECT string_agg(part->>'text', '' ORDER BY n)
          FROM json_array_elements(
                 CASE json_typeof(e.content->'parts') WHEN 'array' THEN e.content->'parts' END
               ) WITH ORDINALITY AS parts(part, n)
         WHERE part->>'thought' IS DISTINCT FROM 'true')"""
    )
    + """
  FROM sessions s
 CROSS JOIN LATERAL json_array_elements(s.projection) AS live(span)
  JOIN events e ON e.app = s.app AND e.user_id = s.user_id AND e.session_id = s.id
   AND e.seq >= (live.span->>0)::bigint
   AND e.seq < coalesce((live.span->>1)::bigint, 9223372036854775807)""",
    "sqlite": "CREATE VIEW live_events AS\nSELECT "
    + _SHOWN.format(
        text="""(SELECT group_concat(json_extract(part.value, '$.text'), '')
          FROM json_each(
                 CASE json_type(e.content, '$.parts') WHEN 'array' THEN json_extract(e.content, '$.parts') END
               ) AS part
         WHERE CASE part.type WHEN 'object' THEN
                 json_extract(part.value, '$.text') IS NOT NULL
                 AND json_extract(part.value, '$.thought') IS NOT 1
               END)"""
    )
    + """
  FROM sessions s, json_each(s.projection) AS live
  JOIN events e ON e.app = s.app AND e.user_id = s.user_id AND e.session_id = s.id
   AND e.seq >= json_extract(live.value, '$[0]')
   AND e.seq < coalesce(json_extract(live.value, '$[1]'), 9223372036854775807)""",
}
"""The view's definition, by dialect. ``text`` is what a person would read of an event."""


@sa.event.listens_for(metadata, "after_create")
def _add_what_tables_lack(_target: sa.MetaData, connection: sa.Connection, **_: Any) -> None:
    connection.execute(epoch_floor.insert().values(one=1, value=0))
    connection.exec_driver_sql(LIVE_EVENTS[connection.dialect.name])
    create_full_text(connection)
    if connection.dialect.name == "postgresql":
        schema = connection.exec_driver_sql("SELECT quote_ident(current_schema())").scalar_one()
        connection.exec_driver_sql(APPEND.replace("{schema}", schema))
