"""Examples of the OpenAPI document that belong to an operation as a whole, by its id.

Records that stand in many answers have theirs beside their fields, in ``shapes.py``; a test
holds every body and every answer to one that fits its schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["ANSWERS", "BODIES", "with_examples"]

_SESSION = {
    "id": "s1",
    "appName": "counter",
    "userId": "ann",
    "lastUpdateTime": 1795000000.5,
    "version": 4,
    "epoch": 1,
    "head": 4,
    "projection": [[1, None]],
    "metadata": {"ticket": 7},
    "spent": {"tokens": 1450, "usd": 0.000875, "modelCalls": 2},
    "createdAt": "2026-11-18T10:13:18.000000+00:00",
    "updatedAt": "2026-11-18T10:13:20.500000+00:00",
}
_STATE = {"counters": {"one": 1}}
_WHOLE = {**_SESSION, "state": _STATE}
_SAID = {"role": "user", "parts": [{"text": "Add one."}]}
_EVENT = {
    "id": "m1:user",
    "invocationId": "m1",
    "author": "user",
    "content": _SAID,
    "actions": {"stateDelta": {}},
    "timestamp": 1795000000.5,
    "createdAt": "2026-11-18T10:13:20.500000+00:00",
    "seq": 1,
    "live": True,
}
_SUMMARY = {
    **_EVENT,
    "id": "m9:summary",
    "author": "perdure",
    "content": {"role": "model", "parts": [{"text": "Summary of 3 requests so far."}]},
    "seq": 21,
    "compaction": {"start": 1, "end": 20, "tail": 17},
}
_FILE = {
    "name": "notes/a.txt",
    "version": 1,
    "mimeType": "text/plain",
    "size": 10,
    "sha256": "eeae8cf618cc849d815e087991bf2a5f7fc061ba08ef666e7483fb1e5d26f014",
    "createdAt": "2026-11-18T10:13:21.000000+00:00",
}
_WORK = {
    "status": "open",
    "queued": 0,
    "turns": 1,
    "modelCalls": 2,
    "toolCalls": 1,
    "tokens": 1450,
    "usd": 0.000875,
    "turnTokens": 0,
    "turnUsd": 0.0,
    "rewinds": 0,
    "compacting": False,
    "agents": [],
}
_ABOUT = {
    "name": "counter",
    "rootAgentName": "counter",
    "description": "Keeps named counters.",
    "language": "python",
    "isComputerUse": False,
}
_ADK_EVENT = {
    "content": {"role": "model", "parts": [{"text": "That makes 1."}]},
    "finishReason": "STOP",
    "invocationId": "m1",
    "author": "counter",
    "actions": {"stateDelta": {}, "artifactDelta": {}},
    "id": "m1:m1",
    "timestamp": 1795000001.5,
}
_ADK_SESSION = {
    "id": "s1",
    "appName": "counter",
    "userId": "ann",
    "state": _STATE,
    "events": [],
    "lastUpdateTime": 1795000000.5,
}
_ADK_FILE = {
    "version": 0,
    "canonicalUri": "artifact://apps/counter/users/ann/sessions/s1/artifacts/notes.txt/versions/0",
    "customMetadata": {},
    "createTime": 1795000001.0,
    "mimeType": "text/plain",
}
_GRAPH = {
    "name": "counter",
    "root_agent": {
        "name": "counter",
        "description": "Keeps named counters.",
        "sub_agents": [],
        "model": "gemini-3-flash-preview",
        "tools": [{"name": "increment_counter", "type": "tool"}],
        "type": "agent",
    },
}

BODIES: Mapping[str, Any] = {
    "createSession": {"userId": "ann", "state": {"mode": "test"}, "metadata": {"ticket": 7}},
    "findSessions": {"userId": "ann", "metadata": {"ticket": 7}},
    "batchUpdateSessions": {
        "updates": [{"userId": "ann", "sessionId": "s1", "metadata": {"ticket": 8}, "expectedVersion": 4}]
    },
    "updateSession": {"stateDelta": {"mood": "good"}, "metadata": {"ticket": 8}, "expectedVersion": 4},
    "adkCreateSessionWithId": {"mode": "test"},
    "rewindSession": {"before": "m2", "requestId": "undo"},
    "forkSession": {"before": "m2"},
    "cancelTurn": {"invocationId": "m2"},
    "endSession": {"requestId": "end-1"},
    "compactSession": {"requestId": "compact-1"},
    "rememberSession": {"requestId": "remember-1"},
    "adkUpdateMemory": {"sessionId": "s1"},
    "adkFinalizeCredentials": {
        "connectorName": "calendar",
        "userId": "ann",
        "userIdValidationState": "x",
        "consentNonce": "y",
    },
}
"""Of requests."""

ANSWERS: Mapping[str, Any] = {
    "listSessions": {"sessions": [_SESSION]},
    "findSessions": {"sessions": [_SESSION]},
    "batchUpdateSessions": {"outcomes": [{"userId": "ann", "sessionId": "s1", "session": _SESSION}]},
    "listEvents": {"events": [_EVENT], "head": 4, "next": 1},
    "rewindSession": {"requestId": "undo", "seq": 9, "session": _WHOLE},
    "compactSession": {"seq": 21, "summary": _SUMMARY},
    "sessionStatus": {"session": _WHOLE, "work": _WORK, "schedules": []},
    "sessionContext": {"head": 4, "contents": [_SAID], "request": {"contents": [_SAID]}},
    "sessionAt": {"session": _WHOLE, "artifacts": [_FILE]},
    "listFiles": {"files": [_FILE]},
    "saveFile": _FILE,
    "adkVersion": {"version": "0.1.0", "language": "python", "language_version": "3.11.7"},
    "adkListApps": ["counter"],
    "adkAppInfo": _ABOUT,
    "adkGetSession": {**_ADK_SESSION, "events": [_ADK_EVENT]},
    "adkListSessions": [_ADK_SESSION],
    "adkCreateSession": _ADK_SESSION,
    "adkCreateSessionWithId": _ADK_SESSION,
    "adkRun": [_ADK_EVENT],
    "adkSaveArtifact": _ADK_FILE,
    "adkDescribeVersion": _ADK_FILE,
    "adkDescribeVersions": [_ADK_FILE],
    "adkListArtifacts": ["notes.txt"],
    "adkListVersions": [0, 1],
    "adkLoadArtifact": {"text": "ten bytes."},
    "adkLoadVersion": {"text": "ten bytes."},
    "adkTelemetry": {"telemetry": False},
    "adkSessionTrace": [],
    "adkEventGraph": {},
    "adkBuildGraph": _GRAPH,
    "adkBuildGraphImage": {},
    "adkGraph": {},
    "adkEvalSets": [],
    "adkEvalSetIds": {"evalSetIds": []},
    "adkEvalResults": [],
    "adkEvalResultIds": {"evalResultIds": []},
    "adkMetricsInfo": {"metricsInfo": []},
    "adkTests": [],
}
"""Of what is answered when all is well."""


def with_examples(operation: dict[str, Any]) -> None:
    """Give the JSON of an operation its examples."""
    name = operation["operationId"]
    if name in BODIES:
        operation["requestBody"]["content"]["application/json"]["example"] = BODIES[name]
    if name in ANSWERS:
        code = next(code for code in operation["responses"] if code.startswith("2"))
        operation["responses"][code]["content"]["application/json"]["example"] = ANSWERS[name]
