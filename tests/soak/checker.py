"""Every session against its ledger, its log against the naive model, and all of them together."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from perdure.types import Event, Session, SessionKey
from tests.soak.claims import claims
from tests.soak.ledger import Ledger
from tests.soak.replay import Replay
from tests.soak.shared import Found, Shared, versions_differ
from tests.soak.stage import Stage

__all__ = ["Checked", "check", "export"]


@dataclass(kw_only=True)
class Checked:
    """What was looked at, and what was wrong with it."""

    found: list[Found] = field(default_factory=list)
    sessions: int = 0
    events: int = 0
    rewound: int = 0
    """Events that are not live."""
    files: int = 0
    runs: int = 0

    def line(self) -> str:
        """What was looked at."""
        return (
            f"{self.sessions:,} sessions, {self.events:,} events ({self.rewound:,} rewound), "
            f"{self.files:,} versions of files, {self.runs:,} runs of workflows"
        )


async def check(stage: Stage, ledgers: Sequence[Ledger]) -> Checked:
    """Check everything. Nothing may be running any more.

    Args:
        stage: where everything is.
        ledgers: of every session.
    """
    checked = Checked()
    known = {ledger.key: ledger for ledger in ledgers}
    shared = Shared(stage=stage, ledgers=known)
    replay = Replay()
    for ledger in _sources_first(known):
        session = await stage.store.get(ledger.key)
        log = shared.logs[ledger.key] = await stage.store.log(ledger.key)
        wrong = [*_row(ledger, session), *claims(ledger, log), *replay.play(session, log)]
        for name, versions in replay.files(ledger.key).items():
            checked.files += len(versions)
            wrong += [what async for what in versions_differ(stage, ledger.key, name, versions)]
        checked.found += [(ledger.key, what) for what in [*ledger.odd, *wrong]]
        _count(checked, log)
    async for found in shared.check():
        checked.found.append(found)
    checked.runs = shared.runs
    return checked


async def export(stage: Stage, ledger: Ledger, folder: Path) -> Path:
    """Write what a person needs to look into a discrepancy: ledger, log, histories."""
    path = folder / f"{ledger.key.session_id}.json"
    histories = {}
    query = f"WorkflowId = '{ledger.key.workflow_id}'"
    async for run in stage.client.list_workflows(query):
        handle = stage.client.get_workflow_handle(run.id, run_id=run.run_id)
        histories[run.run_id] = (await handle.fetch_history()).to_json_dict()
    lines = [json.loads(line) async for line in stage.store.export(ledger.key)]
    whole = {"ledger": ledger.to_json(), "session": lines, "histories": histories}
    await asyncio.to_thread(_write, path, json.dumps(whole, indent=1, default=str))
    return path


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _row(ledger: Ledger, session: Session) -> Iterator[str]:
    if (session.ended_at is not None) != ledger.ended:
        yield f"ended should be {ledger.ended}, and is {session.ended_at}"
    source = session.forked_from and session.forked_from["session"]
    if source != (str(ledger.source) if ledger.source else None):
        yield f"it is a fork of {source}, and should be one of {ledger.source}"
    if session.forked_from and session.forked_from["before"] != ledger.before:
        yield f"it was forked before {session.forked_from['before']}, and should be before {ledger.before}"


def _sources_first(known: dict[SessionKey, Ledger]) -> Iterator[Ledger]:
    """Every session after the one that it is a fork of; without those that never began."""
    done: set[SessionKey] = set()
    left = [ledger for ledger in known.values() if ledger.begun]
    while left:
        ready = [ledger for ledger in left if ledger.source is None or ledger.source in done]
        yield from ready
        done |= {ledger.key for ledger in ready}
        left = [ledger for ledger in left if ledger.key not in done]


def _count(checked: Checked, log: Sequence[Event]) -> None:
    checked.sessions += 1
    checked.events += len(log)
    checked.rewound += sum(not event.live for event in log)
