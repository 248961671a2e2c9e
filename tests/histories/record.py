"""Records the histories that ``tests/integration/test_replay.py`` replays in every run.

    python -m tests.histories.record many_tools limits    # these plays, of tests/histories/plays.py

Record a new kind of turn once, with the release that brings it, beside what is there. A history
is never recorded anew because today's workflow does not replay it: sessions that are open have
just such ones, and the workflow is to be mended (docs/durability.md tells how). It goes only
when no run can be open that began before the change.

It starts a dev server, a worker and the stand-in, and plays one session for each kind of
turn. What tells of the machine and the moment is taken out (see :func:`cleaned`).
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from temporalio.client import WorkflowHistory

from embedded.temporal import TemporalServer
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.histories.plays import APPS, EXTRA_AGENTS, PLAYS, Play
from tests.integration.agents import AGENTS
from tests.integration.harness import World, open_world

__all__ = ["FOLDER", "cleaned", "main", "recorded"]

FOLDER = Path(__file__).parent
LARGE = {"full"}
"""Those of a megabyte and more, which are kept compressed."""
RENEW_AT = 100
"""Events after which the server suggests to continue as new; a play that is longer has several runs."""
UNTOUCHED = 4
"""Events of a run in which nothing has happened yet."""

_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")


def cleaned(history: WorkflowHistory) -> str:
    """The history as JSON without what is of no use to a replay: who, where, and random ids.

    Identities become ``worker@host``, queues ``perdure`` and ``sticky``, build ids and stack traces
    nothing, and UUIDs are numbered in the order in which they come.
    """
    found = json.loads(history.to_json())
    numbers: dict[str, int] = {}

    def numbered(match: re.Match[str]) -> str:
        number = numbers.setdefault(match[0], len(numbers) + 1)
        return f"00000000-0000-4000-8000-{number:012d}"

    _clean(found, numbered)
    return _UUID.sub(numbered, json.dumps(found, indent=1, ensure_ascii=False)) + "\n"


def recorded(file: Path) -> dict[str, Any]:
    """A recorded history."""
    kept = file.read_bytes()
    history = json.loads(gzip.decompress(kept) if file.suffix == ".gz" else kept)
    assert isinstance(history, dict)
    return history


def _clean(node: Any, numbered: Callable[[re.Match[str]], str]) -> None:
    if isinstance(node, list):
        for item in node:
            _clean(item, numbered)
    if not isinstance(node, dict):
        return
    for name, value in node.items():
        if name == "identity":
            node[name] = "worker@host"
        elif name == "stackTrace":
            node[name] = ""
        elif name == "taskQueue":
            sticky = value.get("kind") == "TASK_QUEUE_KIND_STICKY"
            node[name] = {**value, "name": "sticky" if sticky else "perdure"}
            if sticky:
                node[name]["normalName"] = "perdure"
        elif name in ("workerVersion", "prevAutoResetPoints"):
            node[name] = {}
        elif name == "data" and isinstance(value, str):  # a payload may name a run, too
            text = _UUID.sub(numbered, base64.b64decode(value).decode())
            node[name] = base64.b64encode(text.encode()).decode()
        else:
            _clean(value, numbered)


async def _record(name: str, world: World) -> None:
    play = Play(world, SessionKey(app=APPS.get(name, "tester"), user_id="alice", session_id=name))
    world.gemini.clear()
    await PLAYS[name](play)
    histories = [history async for history in _runs(play) if len(history.events) > UNTOUCHED]
    for number, history in enumerate(histories, start=1):
        suffix = f"_{number}" if len(histories) > 1 else ""
        file = FOLDER / f"{name}{suffix}.json{'.gz' if name in LARGE else ''}"
        text = cleaned(history).encode()
        file.write_bytes(gzip.compress(text, mtime=0) if name in LARGE else text)
        print(f"{file.name}: {len(history.events)} events")


async def _runs(play: Play) -> AsyncIterator[WorkflowHistory]:
    """From the first run to the last, each continued as the next."""
    info = (await play.handle.describe()).raw_description.workflow_execution_info
    run_id = info.first_run_id
    while run_id:
        handle = play.world.client.get_workflow_handle(play.handle.id, run_id=run_id)
        history = await handle.fetch_history()
        yield history
        run_id = history.events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id


async def _run(names: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        config = {"limit.historyCount.suggestContinueAsNew": RENEW_AT}
        async with TemporalServer(Path(folder) / "temporal", dynamic_config=config) as temporal:
            database = f"sqlite:///{folder}/perdure.db"
            store = await SessionStore.open(database, f"file://{folder}/artifacts", migrate=True)
            try:
                async with open_world(temporal.address, store, [*AGENTS, *EXTRA_AGENTS]) as world:
                    for name in names:
                        await _record(name, world)
            finally:
                await store.close()


def main(names: Sequence[str]) -> None:
    """Record these."""
    if unknown := set(names) - set(PLAYS):
        sys.exit(f"no play {', '.join(sorted(unknown))}; there are {', '.join(PLAYS)}")
    if not names:
        sys.exit(f"name the plays to record, of {', '.join(PLAYS)}; what is recorded already is to stay")
    asyncio.run(_run(names))


if __name__ == "__main__":
    main(sys.argv[1:])
