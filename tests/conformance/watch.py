"""See, count or break the statements that a store sends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from storage.sessions import SessionStore

__all__ = ["Broken", "breaking", "statements"]


class Broken(Exception):
    """What a test makes a statement raise, as if the process had died there."""


@contextmanager
def statements(store: SessionStore, seen: list[str]) -> Iterator[None]:
    """Collect the statements sent meanwhile, BEGIN and COMMIT left out."""
    with _each(store, lambda statement: None if statement.startswith("BEGIN") else seen.append(statement)):
        yield


@contextmanager
def breaking(store: SessionStore, at: int) -> Iterator[None]:
    """Let the statement number ``at`` (from 1) fail before it is sent."""
    count = 0

    def check(statement: str) -> None:
        nonlocal count
        if statement.startswith("BEGIN"):
            return
        count += 1
        if count == at:
            raise Broken(f"statement {at}: {statement}")

    with _each(store, check):
        yield


@contextmanager
def _each(store: SessionStore, act: Callable[[str], None]) -> Iterator[None]:
    engine = store._db.engine.sync_engine

    def listen(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        act(statement)

    event.listen(engine, "before_cursor_execute", listen)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", listen)
