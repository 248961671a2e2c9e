"""What tests of the command line share: what a command said, and a folder for it to run in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from embedded import devfile
from storage.sessions import SessionStore

__all__ = ["Run", "Said", "dev_folder"]


class Said(NamedTuple):
    """A command's exit code, its output and its complaints."""

    code: int
    out: str
    err: str


Run = Callable[..., Said]


async def dev_folder(folder: Path) -> SessionStore:
    """Make an empty folder one as ``perdure dev`` leaves it; its store, for the caller to close."""
    urls = {
        "database_url": f"sqlite:///{folder / 'perdure.db'}",
        "artifacts_url": f"file://{folder / 'artifacts'}",
    }
    # Nothing listens on port 1: Temporal is away.
    settings = {**urls, "temporal_address": "127.0.0.1:1", "agents": ["examples.counter"]}
    devfile.write(folder, devfile.DevFile(settings=settings))
    return await SessionStore.open(urls["database_url"], urls["artifacts_url"], migrate=True)
