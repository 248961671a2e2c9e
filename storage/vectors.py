"""Memory by meaning: which passages still lack a vector, and which are nearest to one.

Vectors have length 1, so the nearest is the one with the largest dot product. A search looks at
all vectors of one user and model, exactly: by pgvector, where the PostgreSQL database has that
extension, else here, among the newest passages. Vectors of different models are never compared.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from operator import mul
from typing import Any

from sqlalchemy import bindparam, or_, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.types import SessionKey
from storage.records import Whose, owner
from storage.schema import Vector, memories, memory_passages

__all__ = ["AMONG", "by_pgvector", "keep", "lacking", "nearest", "of_length_one", "stored"]

AMONG = 5_000
"""Passages of a user, the newest, that are compared where there is no pgvector."""

_COLUMNS = memory_passages.c
_MINE = (
    _COLUMNS.app == bindparam("app"),
    _COLUMNS.user_id == bindparam("user_id"),
    _COLUMNS.session_id != bindparam("but"),
    _COLUMNS.embedding_model == bindparam("model"),
)
_STORED = (
    select(_COLUMNS.id, _COLUMNS.event_id, _COLUMNS.said_at, _COLUMNS.text, _COLUMNS.embedding)
    .where(*_MINE)
    .order_by(_COLUMNS.id.desc())
    .limit(AMONG)
)
# What a fork and its source have both is one event, and found once.
_BY_PGVECTOR = """
SELECT max(id) AS id FROM memory_passages
 WHERE app = :app AND user_id = :user_id AND session_id <> :but AND embedding_model = :model
 GROUP BY event_id, said_at, text
 ORDER BY min(CAST(embedding AS {schema}.vector) OPERATOR({schema}.<=>)
              CAST(CAST(:near AS real[]) AS {schema}.vector)), max(id) DESC
 LIMIT :limit"""
_PGVECTOR = text(
    "SELECT quote_ident(n.nspname) FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace"
    " WHERE e.extname = 'vector'"
)


async def lacking(conn: AsyncConnection, key: SessionKey, model: str, limit: int) -> list[tuple[int, str]]:
    """The first passages of a session that have no vector of this model: their ids and texts."""
    mine = [_COLUMNS[name] == value for name, value in owner(key).items()]
    none = or_(_COLUMNS.embedding_model.is_(None), _COLUMNS.embedding_model != model)
    query = select(_COLUMNS.id, _COLUMNS.text).where(*mine, none).order_by(_COLUMNS.seq, _COLUMNS.part)
    return [(row.id, row.text) for row in await conn.execute(query.limit(limit))]


async def keep(
    conn: AsyncConnection, key: SessionKey, model: str, vectors: Sequence[tuple[int, Sequence[float]]]
) -> None:
    """Store vectors of passages; of those that are gone meanwhile, nothing."""
    record = [memories.c[name] == value for name, value in owner(key).items()]
    # First the record, as whoever forgets it does: so neither waits for the other's rows.
    await conn.execute(select(memories.c.upto).where(*record).with_for_update())
    put = (
        update(memory_passages)
        .where(_COLUMNS.id == bindparam("b_id"))
        .values(embedding=bindparam("b_embedding", type_=Vector()), embedding_model=model)
    )
    given = [{"b_id": number, "b_embedding": of_length_one(vector)} for number, vector in vectors]
    await conn.execute(put, given)


async def by_pgvector(
    conn: AsyncConnection, whose: Whose, model: str, near: Sequence[float], limit: int
) -> list[int] | None:
    """The ids of the nearest passages, nearest first; None where the database has no pgvector."""
    if conn.dialect.name != "postgresql":
        return None
    schema = (await conn.execute(_PGVECTOR)).scalar_one_or_none()
    if schema is None:
        return None
    given = {**whose, "model": model, "near": of_length_one(near), "limit": limit}
    found = await conn.execute(text(_BY_PGVECTOR.format(schema=schema)), given)
    return [row.id for row in found]


async def stored(conn: AsyncConnection, whose: Whose, model: str) -> list[tuple[int, Sequence[float]]]:
    """The newest passages of a user that have a vector of this model: their ids and vectors."""
    found: dict[tuple[Any, ...], tuple[int, Sequence[float]]] = {}
    for row in await conn.execute(_STORED, {**whose, "model": model}):
        found.setdefault((row.event_id, row.said_at, row.text), (row.id, row.embedding))
    return list(found.values())


def nearest(vectors: Sequence[tuple[int, Sequence[float]]], near: Sequence[float], limit: int) -> list[int]:
    """The ids of the nearest of these vectors, nearest first; it takes as long as there are many."""
    wanted = of_length_one(near)
    scored = ((sum(map(mul, vector, wanted)), number) for number, vector in vectors)
    return [number for _, number in heapq.nlargest(limit, scored)]


def of_length_one(vector: Sequence[float]) -> list[float]:
    """A vector of the same direction and of length 1."""
    length = math.sqrt(sum(map(mul, vector, vector)))
    return [value / length for value in vector] if length else list(vector)
