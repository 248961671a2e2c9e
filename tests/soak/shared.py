"""What no session's own log can tell: what sessions share, what is left over, what Temporal thinks."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from temporalio.api.enums.v1 import EventType, WorkflowTaskFailedCause
from temporalio.client import WorkflowExecutionStatus

from perdure.types import Event, SessionKey
from storage.schema import artifacts
from storage.turns import is_final
from tests.soak.agents import bytes_of
from tests.soak.claims import Deed, deeds
from tests.soak.ledger import Ledger
from tests.soak.stage import Stage

__all__ = ["Found", "Shared"]

Found = tuple[SessionKey | None, str]
"""A discrepancy: the session, if it is one's, and what is wrong."""

SHARED_FILE = "user:shared.txt"
_FINE = (
    WorkflowExecutionStatus.RUNNING,
    WorkflowExecutionStatus.COMPLETED,
    WorkflowExecutionStatus.CONTINUED_AS_NEW,
)
_PASSING = {WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND}
"""Something came in while the task was being answered: it is simply done again."""
_STOOD_STILL = "[TMPRL1101]"
"""How the SDK begins its word for a worker that was frozen, or starved, for two seconds amid a task: it is
done again, too."""


@dataclass(kw_only=True)
class Shared:
    """What all logs together say.

    Args:
        stage: where everything is.
        ledgers: of every session.
    """

    stage: Stage
    ledgers: Mapping[SessionKey, Ledger]
    logs: dict[SessionKey, Sequence[Event]] = field(default_factory=dict)
    runs: int = 0
    """How many runs of workflows were looked at."""

    def _deeds(self) -> Iterator[tuple[SessionKey, Deed]]:
        """Every call, in the session that it was made in, and not in forks of it."""
        for key, log in self.logs.items():
            for deed in deeds(log):
                if self.ledgers[key].owns(deed.event.invocation_id):
                    yield key, deed

    async def check(self) -> AsyncIterator[Found]:
        """All that is wrong."""
        for found in self._notes():
            yield found
        async for found in self._counters():
            yield found
        async for found in self._files():
            yield found
        async for found in self._rows():
            yield found
        async for found in self._workflows():
            yield found

    def _notes(self) -> Iterator[Found]:
        """What tools did to the world: at least once for each response, never for what was not asked."""
        tries = Counter(line.rsplit(" ", 1)[0] for line in self.stage.notes.read_text().splitlines())
        for key, deed in self._deeds():
            if deed.tool != "ponder" and not tries.pop(f"{key}:{deed.event.id}", 0):
                yield key, f"{deed.event.id} is in the log, and its tool never ran"
        whole = {
            f"{key}:{event.invocation_id}"
            for key, log in self.logs.items()
            for event in log
            if _answers(event)
        }
        for noted in tries:
            name, _, event_id = noted.rpartition(":")
            if name in whole or not event_id.startswith("t"):
                yield None, f"{noted} was run, and its turn was answered without it"

    async def _counters(self) -> AsyncIterator[Found]:
        expected: Counter[tuple[SessionKey, str]] = Counter()
        values: dict[tuple[SessionKey, str], list[Any]] = defaultdict(list)
        for key, deed in self._deeds():
            for scope in ("user", "app"):
                if scope in deed.done:
                    name = f"{scope}:{'all' if deed.tool == 'juggle' else key.session_id}"
                    place = (_holder(key, scope), name)
                    expected[place] += 1
                    values[place].append(deed.event.state_delta.get(name))
        states: dict[SessionKey, Mapping[str, Any]] = {}
        for key in self.logs:
            state = (await self.stage.store.get(key, max_events=0)).state
            states[_holder(key, "user")] = states[_holder(key, "app")] = state
        for (holder, name), count in expected.items():
            if states[holder].get(name) != count:
                yield None, f"{name} of {holder} is {states[holder].get(name)}, and {count} calls counted it"
            if sorted(values[holder, name], key=repr) != sorted(range(1, count + 1), key=repr):
                yield None, f"{name} of {holder} went {values[holder, name]}"

    async def _files(self) -> AsyncIterator[Found]:
        """The files of users: every version that an event names, with its bytes."""
        expected: dict[SessionKey, dict[int, bytes]] = defaultdict(dict)
        someone: dict[SessionKey, SessionKey] = {}
        for key, deed in self._deeds():
            version = deed.event.artifact_delta.get(SHARED_FILE)
            if version is not None:
                user = _holder(key, "user")
                if version in expected[user]:
                    yield key, f"{deed.event.id} saved version {version} of {SHARED_FILE}, which there is"
                expected[user][version] = bytes_of(deed.order, f"{key}:{deed.event.id}")
                someone[user] = key
        for user, files in expected.items():
            async for what in versions_differ(self.stage, someone[user], SHARED_FILE, files):
                yield someone[user], what

    async def _rows(self) -> AsyncIterator[Found]:
        """Versions without a gap; and what is still staged belongs to a turn that was stopped."""
        query = select(
            *(artifacts.c[name] for name in ("app", "user_id", "session_id", "name", "version")),
            *(artifacts.c[name] for name in ("origin", "event_id", "seq")),
        )

        async def work(conn: Any) -> Sequence[Any]:
            rows: Sequence[Any] = (await conn.execute(query)).all()
            return rows

        versions: dict[tuple[SessionKey, str], list[int]] = defaultdict(list)
        whole = {
            (key, event.invocation_id) for key, log in self.logs.items() for event in log if _answers(event)
        }
        for row in await self.stage.store._db.read(work):
            key = SessionKey(app=row.app, user_id=row.user_id, session_id=row.session_id or row.origin)
            holder = key if row.session_id else _holder(key, "user")
            if not row.session_id or self.ledgers[key].source is None:
                versions[holder, row.name].append(row.version)
            if row.seq is None and (key, row.event_id.partition(":")[0]) in whole:
                yield key, f"version {row.version} of {row.name} is staged for {row.event_id}, which is done"
        for (holder, name), found in versions.items():
            if sorted(found) != list(range(1, len(found) + 1)):
                yield holder, f"the versions of {name} are {sorted(found)}"

    async def _workflows(self) -> AsyncIterator[Found]:
        """No run failed, and no workflow task did."""
        failed = EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED
        async for run in self.stage.client.list_workflows():
            self.runs += 1
            key = SessionKey.parse(run.id)
            if run.status not in _FINE:
                yield key, f"its workflow's run {run.run_id} is {run.status and run.status.name}"
            handle = self.stage.client.get_workflow_handle(run.id, run_id=run.run_id)
            async for event in handle.fetch_history_events():
                attributes = event.workflow_task_failed_event_attributes
                passes = attributes.cause in _PASSING or attributes.failure.message.startswith(_STOOD_STILL)
                if event.event_type == failed and not passes:
                    yield key, f"a workflow task failed: {attributes.failure.message} ({attributes.cause})"


async def versions_differ(
    stage: Stage, key: SessionKey, name: str, files: Mapping[int, bytes]
) -> AsyncIterator[str]:
    """How the versions that are listed, and their bytes, differ from what they have to be."""
    listed = [row.version for row in await stage.store.artifact_versions(key, name)]
    if listed != sorted(files):
        yield f"{name} should have the versions {sorted(files)}, and has {listed}"
    for version in listed:
        _, data = await stage.store.load_artifact(key, name, version=version)
        if version in files and data != files[version]:
            yield f"version {version} of {name} should be {files[version]!r}, and is {data!r}"


def _answers(event: Event) -> bool:
    return is_final(event) and not event.meta.get("interrupted")


def _holder(key: SessionKey, scope: str) -> SessionKey:
    """A key that stands for a user, or for an app."""
    return SessionKey(app=key.app, user_id=key.user_id if scope == "user" else "", session_id="")
