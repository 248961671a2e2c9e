"""Sessions, state, events and artifacts, and the view live_events.

What is written here stays as it is: databases out there were made by it.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _sessions()
    _state()
    _events()
    _artifacts()
    floor = op.create_table(
        "epoch_floor",
        sa.Column("one", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("value", sa.BigInteger, nullable=False),
        sa.CheckConstraint("one = 1", name="epoch_floor_one_row"),
    )
    op.bulk_insert(floor, [{"one": 1, "value": 0}])
    op.execute(POSTGRESQL_VIEW if op.get_bind().dialect.name == "postgresql" else SQLITE_VIEW)


def _key(name: str) -> sa.Column[Any]:
    return sa.Column(name, sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), nullable=False)


def _number(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


def _json(name: str, *, nullable: bool = True, binary: bool = False) -> sa.Column[Any]:
    kind = postgresql.JSONB() if binary else postgresql.JSON()
    return sa.Column(name, sa.Text().with_variant(kind, "postgresql"), nullable=nullable)


def _moment(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    kind = sa.Text().with_variant(sa.DateTime(timezone=True), "postgresql")
    return sa.Column(name, kind, nullable=nullable)


def _sessions() -> None:
    op.create_table(
        "sessions",
        _key("app"),
        _key("user_id"),
        _key("id"),
        _number("version"),
        _number("epoch"),
        _number("head"),
        _json("projection", nullable=False),
        _json("metadata", nullable=False, binary=True),
        _moment("created_at"),
        _moment("updated_at"),
        _moment("ended_at", nullable=True),
        _json("forked_from"),
        sa.PrimaryKeyConstraint("app", "user_id", "id", name="sessions_pkey"),
    )
    op.create_index("sessions_by_app", "sessions", ["app", "updated_at", "user_id", "id"])
    op.create_index("sessions_by_user", "sessions", ["app", "user_id", "updated_at", "id"])


def _state() -> None:
    op.create_table(
        "state",
        _key("app"),
        _key("user_id"),
        _key("session_id"),
        _key("key"),
        _json("value", nullable=False),
        sa.PrimaryKeyConstraint("app", "user_id", "session_id", "key", name="state_pkey"),
    )


def _events() -> None:
    op.create_table(
        "events",
        _key("app"),
        _key("user_id"),
        _key("session_id"),
        _number("seq"),
        _key("event_id"),
        _key("invocation_id"),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("branch", sa.Text),
        _json("content"),
        _json("state_delta"),
        _json("state_undo"),
        _json("artifact_delta"),
        _json("compaction"),
        _json("rewind"),
        _json("usage"),
        _json("error"),
        _json("meta"),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("app", "user_id", "session_id", "seq", name="events_pkey"),
        sa.UniqueConstraint("app", "user_id", "session_id", "event_id", name="events_event_id_key"),
    )
    session = ["app", "user_id", "session_id"]
    op.create_index("events_by_invocation", "events", [*session, "invocation_id", "seq"])
    for column in ("state_undo", "compaction"):
        filled = sa.text(f"{column} IS NOT NULL")
        op.create_index(
            f"events_with_{column}",
            "events",
            [*session, "seq"],
            sqlite_where=filled,
            postgresql_where=filled,
        )


def _artifacts() -> None:
    op.create_table(
        "artifacts",
        _key("app"),
        _key("user_id"),
        _key("session_id"),
        _key("name"),
        _number("version"),
        _key("origin"),
        _key("event_id"),
        _number("ordinal"),
        _number("seq", nullable=True),
        sa.Column("blob", sa.Text, nullable=False),
        sa.Column("mime_type", sa.Text, nullable=False),
        _number("size"),
        _moment("created_at"),
        sa.PrimaryKeyConstraint("app", "user_id", "session_id", "name", "version", name="artifacts_pkey"),
    )
    op.create_index("artifacts_by_event", "artifacts", ["app", "user_id", "origin", "event_id"])


POSTGRESQL_VIEW = """
CREATE VIEW live_events AS
SELECT e.app, e.user_id, e.session_id, e.seq, e.invocation_id, e.event_id, e.author, e.branch,
       (SELECT string_agg(part->>'text', '' ORDER BY n)
          FROM json_array_elements(
                 CASE json_typeof(e.content->'parts') WHEN 'array' THEN e.content->'parts' END
               ) WITH ORDINALITY AS parts(part, n)
         WHERE part->>'thought' IS DISTINCT FROM 'true') AS text,
       e.content, e.state_delta, e.state_undo, e.artifact_delta, e.compaction, e.rewind, e.usage,
       e.error, e.meta, e.created_at
  FROM sessions s
 CROSS JOIN LATERAL json_array_elements(s.projection) AS live(span)
  JOIN events e ON e.app = s.app AND e.user_id = s.user_id AND e.session_id = s.id
   AND e.seq >= (live.span->>0)::bigint
   AND e.seq < coalesce((live.span->>1)::bigint, 9223372036854775807)
"""

SQLITE_VIEW = """
CREATE VIEW live_events AS
SELECT e.app, e.user_id, e.session_id, e.seq, e.invocation_id, e.event_id, e.author, e.branch,
       (SELECT group_concat(json_extract(part.value, '$.text'), '')
          FROM json_each(
                 CASE json_type(e.content, '$.parts') WHEN 'array' THEN json_extract(e.content, '$.parts') END
               ) AS part
         WHERE CASE part.type WHEN 'object' THEN
                 json_extract(part.value, '$.text') IS NOT NULL
                 AND json_extract(part.value, '$.thought') IS NOT 1
               END) AS text,
       e.content, e.state_delta, e.state_undo, e.artifact_delta, e.compaction, e.rewind, e.usage,
       e.error, e.meta, e.created_at
  FROM sessions s, json_each(s.projection) AS live
  JOIN events e ON e.app = s.app AND e.user_id = s.user_id AND e.session_id = s.id
   AND e.seq >= json_extract(live.value, '$[0]')
   AND e.seq < coalesce(json_extract(live.value, '$[1]'), 9223372036854775807)
"""
