"""What a workflow's history holds, over all its runs, and where the bytes go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus

__all__ = ["Gauge", "Reading", "explain"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """The totals of all runs so far, and which run is the newest (from 1)."""

    run: int
    events: int
    size: int


class Gauge:
    """Reads events and bytes of a workflow across continue-as-new, as Temporal counts them.

    Args:
        client: connected.
        workflow_id: a workflow that has been started.
    """

    def __init__(self, client: Client, workflow_id: str) -> None:
        self._client = client
        self._workflow_id = workflow_id
        self._run_id: str | None = None
        self._run = 1
        self._closed = Counter[str]()

    async def read(self) -> Reading:
        """The totals now."""
        found = await self._describe()
        self._run_id = found.run_id
        while found.status is WorkflowExecutionStatus.CONTINUED_AS_NEW:
            self._closed += _size(found)
            self._run += 1
            self._run_id = None  # the newest one; no run is so short that two end between two readings
            found = await self._describe()
            self._run_id = found.run_id
        total = self._closed + _size(found)
        return Reading(run=self._run, events=total["events"], size=total["bytes"])

    async def _describe(self) -> WorkflowExecutionDescription:
        return await self._client.get_workflow_handle(self._workflow_id, run_id=self._run_id).describe()


def _size(found: WorkflowExecutionDescription) -> Counter[str]:
    info = found.raw_description.workflow_execution_info
    return Counter(events=info.history_length, bytes=info.history_size_bytes)


def explain(events: Sequence[HistoryEvent]) -> str:
    """The bytes of some events, event by event and text by text, as a table."""
    lines = []
    for event in events:
        name = event.WhichOneof("attributes") or "?"
        lines.append(f"{event.ByteSize():6}  {event.event_id} {name.removesuffix('_event_attributes')}")
        fields = Counter[str]()
        for path, size in _fields(event, ""):
            fields[path.removeprefix(f"{name}.")] += size
        lines += [f"        {size:6}  {path}" for path, size in fields.most_common()]
        lines.append(f"        {event.ByteSize() - fields.total():6}  numbers, times and tags")
    lines.append(f"{sum(event.ByteSize() for event in events):6}  together")
    return "\n".join(lines)


def _fields(message: Message, path: str) -> list[tuple[str, int]]:
    """The texts in a message, with the bytes of each."""
    found: list[tuple[str, int]] = []
    for field, value in message.ListFields():
        name = f"{path}.{field.name}" if path else field.name
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        repeated = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        for item in value.values() if is_map else value if repeated else [value]:
            if isinstance(item, Message):
                found += _fields(item, name)
            elif isinstance(item, str | bytes):
                found.append((name, len(item.encode() if isinstance(item, str) else item)))
    return found
