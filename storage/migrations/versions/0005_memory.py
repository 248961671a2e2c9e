"""Tables of what is remembered of sessions, and the full-text index over it.

What is written here stays as it is: databases out there were made by it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    postgres = op.get_bind().dialect.name == "postgresql"
    key = sa.Text(collation="C") if postgres else sa.Text()
    moment = sa.DateTime(timezone=True) if postgres else sa.Text()
    vector = sa.ARRAY(sa.REAL) if postgres else sa.LargeBinary()
    owner = ("app", "user_id", "session_id")
    op.create_table(
        "memories",
        *(sa.Column(name, key, nullable=False) for name in owner),
        sa.Column("upto", sa.BigInteger()),
        sa.Column("remembered_at", moment, nullable=False),
        sa.PrimaryKeyConstraint(*owner, name="memories_pkey"),
    )
    op.create_table(
        "memory_passages",
        sa.Column("id", sa.BigInteger() if postgres else sa.Integer(), primary_key=True),
        *(sa.Column(name, key, nullable=False) for name in owner),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("part", sa.BigInteger(), nullable=False),
        sa.Column("event_id", key, nullable=False),
        sa.Column("invocation_id", key, nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("said_at", moment, nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("embedding", vector),
        sa.Column("embedding_model", sa.Text()),
        sa.UniqueConstraint(*owner, "seq", "part", name="memory_passages_place_key"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "memory_passages_by_model", "memory_passages", ["app", "user_id", "embedding_model", "id"]
    )
    for statement in POSTGRESQL if postgres else SQLITE:
        op.get_bind().exec_driver_sql(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE memory_words")
    op.drop_table("memory_passages")
    op.drop_table("memories")


POSTGRESQL = (
    "CREATE INDEX memory_passages_by_words ON memory_passages"
    " USING gin ((array_to_tsvector(string_to_array(words, ' ')))) WITH (fastupdate = off)",
)

SQLITE = (
    "CREATE VIRTUAL TABLE memory_words USING fts5("
    "words, content='memory_passages', content_rowid='id', tokenize='ascii', detail=none)",
    "CREATE TRIGGER memory_passages_added AFTER INSERT ON memory_passages BEGIN"
    " INSERT INTO memory_words(rowid, words) VALUES (new.id, new.words); END",
    "CREATE TRIGGER memory_passages_removed AFTER DELETE ON memory_passages BEGIN"
    " INSERT INTO memory_words(memory_words, rowid, words) VALUES ('delete', old.id, old.words); END",
)
