"""The requests about users' memory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from perdure.client.call import Call, app_path, body_of, session_path, step_of, text_of
from perdure.types import JsonObject, Passage, SessionKey

__all__ = ["Remembered", "forget", "forget_user", "remember", "search"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Remembered:
    """What a user's memory has of a session now."""

    upto: int
    """The seq up to which all that is live is in it."""
    passages: int
    """The pieces of text that it is in."""


def search(app: str, user_id: str, query: str, limit: int) -> Call[list[Passage]]:
    """What was said about something."""
    return Call(
        method="GET",
        path=_memory_path(app, user_id),
        parse=lambda reply: [_passage_of(each) for each in reply.json()["passages"]],
        query={"query": text_of(query, "the query"), "limit": limit},
    )


def forget_user(app: str, user_id: str) -> Call[int]:
    """All that is remembered of a user goes."""
    return Call(
        method="DELETE",
        path=_memory_path(app, user_id),
        parse=lambda reply: int(reply.json()["sessions"]),
    )


def remember(key: SessionKey, request_id: str) -> Call[Remembered]:
    """A session is put into the memory."""
    return Call(
        method="POST",
        path=session_path(key, "/remember"),
        parse=lambda reply: _remembered_of(reply.json()),
        content=body_of({"requestId": request_id}),
        headers={"content-type": "application/json"},
        id=request_id,
    )


def forget(key: SessionKey) -> Call[None]:
    """A session is taken out of it."""
    return Call(method="DELETE", path=session_path(key, "/memory"), parse=lambda _: None)


def _memory_path(app: str, user_id: str) -> str:
    return app_path(app, f"/users/{step_of(user_id, 'the user')}/memory")


def _remembered_of(data: JsonObject) -> Remembered:
    return Remembered(upto=data["upto"], passages=data["passages"])


def _passage_of(data: JsonObject) -> Passage:
    return Passage(
        session_id=data["sessionId"],
        seq=data["seq"],
        event_id=data["eventId"],
        invocation_id=data["invocationId"],
        author=data["author"],
        said_at=datetime.fromisoformat(data["saidAt"]),
        text=data["text"],
        excerpt=data["excerpt"],
    )
