"""The small session that docs/data-model.md tells of: its rows, as the page shows them.

``python -m tests.conformance.story`` prints the tables for the page, from a run in memory.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.types import Event, SessionKey
from storage.sessions import SessionStore
from tests.conformance.events import answer, event, user

__all__ = ["KEY", "Rows", "play", "query", "tables"]

KEY = SessionKey(app="counter", user_id="ada", session_id="main")

Rows = Sequence[Sequence[Any]]

_TABLES = {
    "sessions": (
        ("id", "version", "epoch", "head", "projection"),
        "SELECT id, version, epoch, head, projection FROM sessions WHERE id = '{id}'",
    ),
    "events": (
        ("seq", "event_id", "state_delta", "state_undo", "artifact_delta", "live"),
        """SELECT e.seq, e.event_id, e.state_delta, e.state_undo, e.artifact_delta,
                  CASE WHEN l.seq IS NULL THEN '' ELSE 'live' END
             FROM events e LEFT JOIN live_events l USING (app, user_id, session_id, seq)
            WHERE e.session_id = '{id}' ORDER BY e.seq""",
    ),
    "state": (
        ("key", "value"),
        "SELECT key, CAST(value AS text) FROM state WHERE session_id = '{id}' ORDER BY key",
    ),
    "artifacts": (
        ("name", "version", "seq"),
        "SELECT name, version, seq FROM artifacts WHERE session_id = '{id}' ORDER BY name, version",
    ),
}


async def play(store: SessionStore, *, redo: bool = True) -> dict[str, str]:
    """Play it, to the rewind or beyond; the tables at each point, by the names that the page gives them."""
    shown: dict[str, str] = {}
    await store.create(KEY, state={"mode": "test"})
    await _turn(store, "small-one", "Add milk", {"items": 1}, b"milk")
    await _turn(store, "big-one", "Add all there is", {"items": 99, "mode": None, "sale": True}, b"all")
    shown["before"] = await tables(store, "main")
    was = await store.get(KEY, before="big-one")
    shown["time travel"] = f"state  {_text(was.state)}\nevents {_text([event.seq for event in was.events])}"
    assert await tables(store, "main") == shown["before"], "time travel writes nothing"
    await store.fork(KEY, "path-b", before="big-one")
    shown["fork"] = await tables(store, "path-b")
    await store.rewind(KEY, before="big-one", request_id="undo-1")
    shown["rewind"] = await tables(store, "main")
    if redo:
        await store.rewind(KEY, before="undo-1", request_id="redo-1")
        shown["redo"] = await tables(store, "main")
    return shown


async def query(store: SessionStore, statement: str) -> Rows:
    """What a statement finds, with JSON as values on every database."""

    async def work(conn: AsyncConnection) -> Rows:
        found = await conn.execute(text(statement))
        return [[_value(value) for value in row] for row in found]

    return await store._db.read(work)


async def tables(store: SessionStore, session_id: str) -> str:
    """The rows of a session, as the page shows them."""
    parts = []
    for name, (columns, statement) in _TABLES.items():
        rows = [
            [_text(value) for value in row] for row in await query(store, statement.format(id=session_id))
        ]
        parts.append(f"{name}\n{_grid(columns, rows)}")
    return "\n\n".join(parts)


async def _turn(store: SessionStore, name: str, said: str, delta: dict[str, Any], data: bytes) -> None:
    """The user's words, a call that changes state and saves a file, the answer."""
    await store.begin_turn(KEY, user(name, said), epoch=None)
    call = {"functionCall": {"name": "add", "args": {}}}
    await store.append(KEY, event(f"{name}:m1", content={"role": "model", "parts": [call]}, usage=_used(20)))
    done = f"{name}:t1.0"
    version = await store.stage_artifact(KEY, "list.txt", data, "text/plain", event_id=done)
    response = {"role": "user", "parts": [{"functionResponse": {"name": "add", "response": {"ok": True}}}]}
    await store.append(
        KEY, event(done, content=response, state_delta=delta, artifact_delta={"list.txt": version})
    )
    last: Event = answer(name, "Done.")
    await store.append(KEY, event(f"{name}:m2", content=last.content, usage=_used(30)))


def _used(tokens: int) -> dict[str, Any]:
    return {"totalTokenCount": tokens}


def _grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = [columns, ["-" * width for width in widths], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _value(value: Any) -> Any:
    """SQLite has JSON as text, and PostgreSQL's driver gives it as text too where no type is known."""
    return json.loads(value) if isinstance(value, str) and value.startswith(("{", "[")) else value


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), sort_keys=True)


async def _print() -> None:
    store = await SessionStore.open("sqlite://", "memory://story", migrate=True)
    try:
        for name, shown in (await play(store)).items():
            print(f"<!-- rows: {name} -->\n```text\n{shown}\n```\n")
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(_print())
