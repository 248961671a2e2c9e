"""Sessions and events as a person reads them, and as JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from perdure.budget import dollars
from perdure.types import ArtifactVersion, Event, Json, JsonObject, Session

if TYPE_CHECKING:  # Temporal takes a second to import, which a list of sessions need not pay
    from gateway.waiting_lists import WaitingCall

__all__ = [
    "as_json",
    "describe",
    "event_table",
    "one_line",
    "session_table",
    "show",
    "state_lines",
    "waiting_lines",
]

_WIDTH = 160
_ARGUMENTS = 1_000
"""Characters of the arguments that somebody is to decide about."""


def as_json(value: Any) -> str:
    """JSON of records, times and all."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False)


def describe(event: Event) -> Iterator[str]:
    """What happened, one line each: words, calls, results, rewinds, summaries, errors."""
    if event.rewind is not None:
        yield f"rewound to before {event.rewind.get('before')}"
    if event.compaction is not None:
        covered = f"{event.compaction.get('start')} to {event.compaction.get('end')}"
        yield f"summary of {covered}: {one_line(event.text)}"
    else:
        for part in (event.content or {}).get("parts") or ():
            yield from _part(part)
    if "repair" in event.meta:
        yield "(does not fit the schema, and is to be mended)"
    for name, version in event.artifact_delta.items():
        yield f"saved {name}, version {version}"
    if event.error is not None:
        yield f"{event.error.get('type')}: {event.error.get('message')}"
    elif event.meta.get("interrupted"):
        yield f"interrupted: {event.meta.get('reason') or 'asked to'}"


def one_line(value: Json, width: int = _WIDTH) -> str:
    """A value on one line of at most `width` characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: width - 1]}…"


def state_lines(state: Mapping[str, Json]) -> Iterator[str]:
    """State, one key a line, sorted."""
    for key in sorted(state):
        yield f"{key} = {one_line(state[key])}"


def waiting_lines(call: WaitingCall) -> list[str]:
    """What a call waits for, since when, until when; the tool, what it is called with, how far it is."""
    what = {"approval": "approval", "result": "its result", "event": f"the event {call.event}"}
    what["agent"] = f"the agent that it has asked in session {call.agent_session}"
    until = f", until {_when(call.until)}" if call.until else ""
    lines = [
        f"waits for {what.get(call.kind, 'its time')} since {_when(call.since)}{until}",
        f"{call.tool} {one_line(call.arguments or {}, _ARGUMENTS)}",
    ]
    if call.ticket is not None:
        lines.append(f"ticket {one_line(call.ticket)}")
    if call.text or call.percent is not None:
        percent = [f"{call.percent:g}%"] if call.percent is not None else []
        lines.append(" ".join([*percent, *([call.text] if call.text else [])]))
    return lines


def session_table(sessions: Sequence[Session]) -> Table:
    """A table of sessions, in the order given."""
    table = Table(box=None, pad_edge=False)
    for title in ("SESSION", "EVENTS", "VERSION", "TOKENS", "MONEY", "CHANGED", "ENDED"):
        table.add_column(title, overflow="fold")
    for session in sessions:
        ended = _when(session.ended_at) if session.ended_at else ""
        spent = session.spent
        table.add_row(
            Text(str(session.key)),
            str(session.head),
            str(session.version),
            f"{spent.tokens:,}",
            dollars(spent.usd) if spent.nano_usd else "",
            _when(session.updated_at),
            ended,
        )
    return table


def event_table(events: Sequence[Event]) -> Table:
    """A table of events; those that were rewound are marked and dimmed."""
    table = Table(box=None, pad_edge=False)
    for title in ("SEQ", "", "INVOCATION", "AUTHOR", "WHAT", "STATE"):
        table.add_column(title, overflow="fold")
    for event in events:
        table.add_row(
            str(event.seq),
            "" if event.live else "rewound",
            Text(event.invocation_id),
            Text(event.author),
            Text("\n".join(describe(event))),
            Text("\n".join(_changes(event.state_delta))),
            style=None if event.live else "dim",
        )
    return table


def show(table: Table) -> None:
    """Print a table. Into a pipe there is no width to fit; folded at 80 columns it would help nobody."""
    terminal = Console(highlight=False)
    (terminal if terminal.is_terminal else Console(highlight=False, width=200)).print(table)


def _part(part: JsonObject) -> Iterator[str]:
    if call := part.get("functionCall"):
        arguments = ", ".join(
            f"{name}={one_line(value, 60)}" for name, value in (call.get("args") or {}).items()
        )
        yield f"{call.get('name')}({arguments})"
    elif response := part.get("functionResponse"):
        yield f"{response.get('name')} → {one_line(response.get('response'))}"
    elif part.get("text"):
        yield f"(thought) {one_line(part['text'])}" if part.get("thought") else part["text"].strip()
    elif kind := next((name for name in ("inlineData", "fileData") if name in part), None):
        yield f"[{part[kind].get('mimeType', 'data')}]"


def _changes(delta: Mapping[str, Json]) -> Iterator[str]:
    for key, value in delta.items():
        yield f"-{key}" if value is None else f"{key} = {one_line(value, 60)}"


def _when(time: datetime) -> str:
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _plain(value: Any) -> Any:
    if isinstance(value, Event | Session | ArtifactVersion):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if dataclasses.is_dataclass(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value
