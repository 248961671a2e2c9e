"""Sessions over HTTP: :class:`Client` blocks, :class:`AsyncClient` is awaited; else they are the same.

    from perdure import Client

    with Client("http://127.0.0.1:8000", token) as client:
        session = client.sessions.create("counter", "ann", metadata={"ticket": 7})
        print(session.ask("Increment 'visits' counter by 1").text)
        for event in session.stream("Increment 'visits' counter by 1"):
            if event.partial:
                print(event.text, end="", flush=True)

What it gives are the records of :mod:`perdure.types` and those named here; what it raises are the
errors of :mod:`perdure.errors`, the same classes as inside, and :class:`GatewayUnavailable` where
there is no gateway. It needs no Temporal client, and nothing of the runtime.
"""

from __future__ import annotations

from perdure.client.aio import AsyncClient, AsyncFoundSession, AsyncSessionHandle, AsyncSessions
from perdure.client.aio_artifacts import AsyncArtifacts
from perdure.client.aio_memory import AsyncUserMemory
from perdure.client.aio_streams import AsyncSessionStream, AsyncTurnStream
from perdure.client.memory import Remembered
from perdure.client.results import (
    Answer,
    ArtifactInfo,
    Compacted,
    Context,
    Failure,
    Moment,
    Partial,
    Rewind,
    Rewound,
    SessionUpdate,
    Status,
    UpdateOutcome,
    Work,
)
from perdure.client.schedule_results import Scheduled
from perdure.client.sync import Client, FoundSession, SessionHandle, Sessions
from perdure.client.sync_artifacts import Artifacts
from perdure.client.sync_memory import UserMemory
from perdure.client.sync_streams import SessionStream, TurnStream
from perdure.client.waiting_results import Settled, WaitingCall
from perdure.client.work_results import AskedAgent
from perdure.errors import GatewayUnavailable

__all__ = [
    "Answer",
    "ArtifactInfo",
    "Artifacts",
    "AskedAgent",
    "AsyncArtifacts",
    "AsyncClient",
    "AsyncFoundSession",
    "AsyncSessionHandle",
    "AsyncSessionStream",
    "AsyncSessions",
    "AsyncTurnStream",
    "AsyncUserMemory",
    "Client",
    "Compacted",
    "Context",
    "Failure",
    "FoundSession",
    "GatewayUnavailable",
    "Moment",
    "Partial",
    "Remembered",
    "Rewind",
    "Rewound",
    "Scheduled",
    "SessionHandle",
    "SessionStream",
    "SessionUpdate",
    "Sessions",
    "Settled",
    "Status",
    "TurnStream",
    "UpdateOutcome",
    "UserMemory",
    "WaitingCall",
    "Work",
]
