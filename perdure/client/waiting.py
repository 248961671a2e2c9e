"""The requests about calls that wait for a person or the world."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from perdure.client.call import Call, body_of, header_of, session_path, text_of
from perdure.client.results import Page
from perdure.client.waiting_results import Settled, WaitingCall, settled_of, waiting_of
from perdure.types import Json, JsonObject, SessionKey, given

__all__ = [
    "all_waiting",
    "approve",
    "complete_task",
    "decline",
    "notify",
    "progress",
    "result",
    "task_progress",
    "waiting",
]

T = TypeVar("T")


def waiting(key: SessionKey) -> Call[list[WaitingCall]]:
    """What waits in a session."""
    return Call(
        method="GET",
        path=session_path(key, "/waiting"),
        parse=lambda reply: [waiting_of(each) for each in reply.json()["waiting"]],
    )


def all_waiting(app: str | None, user_id: str | None, cursor: str | int | None) -> Call[Page[WaitingCall]]:
    """A page of what waits across sessions."""
    app = None if app is None else text_of(app, "the app")
    whose = None if user_id is None else text_of(user_id, "the user's id")
    return Call(
        method="GET",
        path="/waiting",
        parse=lambda reply: _page_of(reply.json()),
        query=given(app=app, user=whose, cursor=cursor),
    )


def approve(
    key: SessionKey, call_id: str, arguments: JsonObject | None, by: str | None, request_id: str
) -> Call[Settled]:
    """A yes."""
    return _post(
        key, "/approve", {"callId": call_id, "arguments": arguments, "by": by}, request_id, settled_of
    )


def decline(
    key: SessionKey, call_id: str, reason: str | None, by: str | None, request_id: str
) -> Call[Settled]:
    """A no."""
    return _post(key, "/decline", {"callId": call_id, "reason": reason, "by": by}, request_id, settled_of)


def result(
    key: SessionKey, call_id: str, value: Json, error: str | None, by: str | None, request_id: str
) -> Call[Settled]:
    """The outcome of a long-running tool."""
    body = {"callId": call_id, "result": value, "error": error, "by": by}
    return _post(key, "/tool-result", body, request_id, settled_of)


def progress(
    key: SessionKey, call_id: str, text: str | None, percent: float | None, request_id: str
) -> Call[Settled]:
    """How far a long-running tool has come."""
    body = {"callId": call_id, "text": text, "percent": percent}
    return _post(key, "/tool-progress", body, request_id, settled_of)


def complete_task(
    task_token: str, value: Json, error: str | None, by: str | None, request_id: str
) -> Call[Settled]:
    """The same, by a task token."""
    body = {"taskToken": task_token, "result": value, "error": error, "by": by}
    return _post_to("/tasks/complete", body, request_id, settled_of)


def task_progress(task_token: str, text: str | None, percent: float | None, request_id: str) -> Call[Settled]:
    """How far it has come, by a task token."""
    body = {"taskToken": task_token, "text": text, "percent": percent}
    return _post_to("/tasks/progress", body, request_id, settled_of)


def notify(key: SessionKey, name: str, payload: Json, notification_id: str) -> Call[str]:
    """An event."""
    body = {"name": name, "payload": payload}
    return _post(key, "/notify", body, notification_id, lambda data: str(data["notificationId"]))


def _page_of(data: JsonObject) -> Page[WaitingCall]:
    return Page(items=[waiting_of(each) for each in data["waiting"]], next=data.get("nextCursor"))


def _post(
    key: SessionKey, what: str, body: JsonObject, request_id: str, parse: Callable[[JsonObject], T]
) -> Call[T]:
    return _post_to(session_path(key, what), body, request_id, parse)


def _post_to(path: str, body: JsonObject, request_id: str, parse: Callable[[JsonObject], T]) -> Call[T]:
    headers = {
        "idempotency-key": header_of(request_id, "the request's id"),
        "content-type": "application/json",
    }
    return Call(
        method="POST",
        path=path,
        parse=lambda reply: parse(reply.json()),
        content=body_of(body),
        headers=headers,
        id=request_id,
    )
