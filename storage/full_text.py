"""The full-text index of memory, which each database has in its own way, and the queries through it.

Both index the column ``words``, which :mod:`storage.words` writes; its first word is the
owner's. A look-up asks for that and one word more: an index goes through the shorter list, so
it costs what the user's memory holds, not what everybody's does. PostgreSQL has a GIN index over a
``tsvector``, made without its dictionaries; SQLite an FTS5 table over the rows, kept by triggers.

Every word of the query counts, the more the rarer it is in this user's memory: no passage has
to have all of them, and those that are in every passage count for little.
"""

from __future__ import annotations

from sqlalchemy import Connection, text

__all__ = ["COUNT_WORDS", "FIND", "LOOK_UP", "create_full_text"]

VECTOR = "array_to_tsvector(string_to_array({column}, ' '))"

DDL = {
    # Without fastupdate: a search would go through what was added last for everybody.
    "postgresql": (
        f"CREATE INDEX memory_passages_by_words ON memory_passages"
        f" USING gin (({VECTOR.format(column='words')})) WITH (fastupdate = off)",
    ),
    "sqlite": (
        "CREATE VIRTUAL TABLE memory_words USING fts5("
        "words, content='memory_passages', content_rowid='id', tokenize='ascii', detail=none)",
        "CREATE TRIGGER memory_passages_added AFTER INSERT ON memory_passages BEGIN"
        " INSERT INTO memory_words(rowid, words) VALUES (new.id, new.words); END",
        "CREATE TRIGGER memory_passages_removed AFTER DELETE ON memory_passages BEGIN"
        " INSERT INTO memory_words(memory_words, rowid, words) VALUES ('delete', old.id, old.words); END",
    ),
}
"""By dialect. A migration has made the same."""

_FROM = {
    # OFFSET 0 keeps the planner from turning it round, which it does for many words: it would find the
    # user's passages, or read everybody's, and cut each one's words anew for each word of the query.
    "postgresql": f"""
  FROM unnest(CAST(:words AS text[]), CAST(:weights AS float8[])) AS w(word, weight)
 CROSS JOIN LATERAL (
       SELECT m.id, m.app, m.user_id, m.session_id, m.event_id, m.said_at, m.text FROM memory_passages m
        WHERE {VECTOR.format(column="m.words")} @@ w.word::tsquery
       OFFSET 0) AS p
 WHERE p.app = :app AND p.user_id = :user_id AND p.session_id <> :but""",
    # The order is given: looked up the other way round, each passage would be asked for each word.
    "sqlite": """
  FROM (SELECT json_extract(value, '$[0]') AS word, json_extract(value, '$[1]') AS weight
          FROM json_each(:words)) w
 CROSS JOIN memory_words ON memory_words MATCH w.word
 CROSS JOIN memory_passages p ON p.id = memory_words.rowid
 WHERE p.app = :app AND p.user_id = :user_id AND p.session_id <> :but""",
}

LOOK_UP = {"postgresql": "'{owner}' & '{word}'", "sqlite": '"{owner}" AND "{word}"'}
"""What is asked for of one word. Words are letters, digits and marks: nothing in them can be a quote."""

COUNT_WORDS = {
    dialect: text(f"SELECT w.word, count(*){_from} GROUP BY w.word") for dialect, _from in _FROM.items()
}
"""In how many of a user's passages each word is."""

FIND = {
    dialect: text(
        "SELECT max(id) AS id, max(score) AS weight FROM ("
        f"SELECT p.id, p.event_id, p.said_at, p.text, sum(w.weight) AS score{_from}"
        " GROUP BY p.id, p.event_id, p.said_at, p.text) AS each"
        " GROUP BY event_id, said_at, text ORDER BY weight DESC, max(id) DESC LIMIT :limit"
    )
    for dialect, _from in _FROM.items()
}
"""The passages in which the words weigh most, the newest first of those that weigh the same.

What a fork and its source have both is one event, and counts once.
"""


def create_full_text(connection: Connection) -> None:
    """Make what a table's declaration cannot say."""
    for statement in DDL[connection.dialect.name]:
        connection.exec_driver_sql(statement)
