"""Every request that a client can make. Nothing in here sends one.

What changes something carries an id, chosen here where the caller gives none, so that it can be
sent again when its answer was lost. The two that cannot, ``cancel`` without an invocation and
``create`` under an id of the caller's, say so.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

from perdure.client import results
from perdure.client.call import (
    Call,
    app_path,
    artifact_name,
    artifact_path,
    body_of,
    header_of,
    session_path,
    step_of,
    text_of,
)
from perdure.client.failures import Reply
from perdure.client.results import (
    Answer,
    ArtifactInfo,
    Compacted,
    Context,
    Moment,
    Page,
    Rewind,
    SessionUpdate,
    Status,
    UpdateOutcome,
)
from perdure.types import During, Event, Json, JsonObject, Session, SessionKey, given

__all__ = ["new_id"]

T = TypeVar("T")
Cursor = str | int | None
Query = Mapping[str, str | int]

PAGE = 200
"""Sessions, or events, that are asked for at once."""
WAIT = 30
"""Seconds that one request waits for a turn, which may run for days: then the next one does."""
ALL = 2**53
"""How the wire says `all of them` where leaving it out says none."""

_JSON = {"content-type": "application/json"}
_STREAM = {"accept": "text/event-stream", "cache-control": "no-store"}


def new_id() -> str:
    """An id for a message or a request."""
    return uuid.uuid4().hex


def apps() -> Call[list[str]]:
    """The apps that are served and that the token reaches."""
    return Call(method="GET", path="/list-apps", parse=lambda reply: [str(app) for app in reply.json()])


def create(
    app: str,
    user_id: str | None,
    session_id: str | None,
    state: Mapping[str, Json] | None,
    metadata: Mapping[str, Json] | None,
) -> Call[Session]:
    """A session. Under an id of the caller's, nobody could tell it from another's when its answer is lost."""
    body = {"userId": user_id, "sessionId": session_id, "state": state, "metadata": metadata}
    key = new_id()
    return _post(
        app_path(app, "/sessions"),
        body,
        results.session_of,
        id=key,
        headers={} if session_id is not None else _keyed(key),
        repeatable=session_id is None,
    )


def listing(app: str, user_id: str | None, cursor: Cursor) -> Call[Page[Session]]:
    """A page of sessions."""
    whose = None if user_id is None else text_of(user_id, "the user's id")
    return _look(
        app_path(app, "/sessions"), results.sessions_page, given(limit=PAGE, user=whose, cursor=cursor)
    )


def find(app: str, metadata: Mapping[str, Json], user_id: str | None, cursor: Cursor) -> Call[Page[Session]]:
    """A page of the sessions whose metadata has these values."""
    body = {"metadata": metadata, "userId": user_id, "cursor": cursor, "limit": PAGE}
    return _post(app_path(app, "/sessions:find"), body, results.sessions_page)


def batch_update(
    app: str, updates: Sequence[SessionUpdate], atomic: bool, request_id: str | None
) -> Call[list[UpdateOutcome]]:
    """Changes of many sessions."""
    items = [
        given(
            userId=each.user_id,
            sessionId=each.session_id,
            stateDelta=each.state,
            metadata=each.metadata,
            expectedVersion=each.expected_version,
        )
        for each in updates
    ]
    key = request_id or new_id()
    return _post(
        app_path(app, "/sessions:batchUpdate"),
        {"updates": items, "atomic": atomic},
        partial(results.outcomes_of, app),
        id=key,
        headers=_keyed(key),
    )


def get(key: SessionKey, max_events: int | None) -> Call[Session]:
    """A session with its state and the last of its live events."""
    query = {"maxEvents": ALL if max_events is None else max_events}
    return _look(session_path(key, "/snapshot"), results.session_of, query)


def delete(key: SessionKey) -> Call[None]:
    """The end of a session, and of all that is in it."""
    return Call(method="DELETE", path=session_path(key), parse=_nothing)


def delete_user(app: str, user_id: str) -> Call[int]:
    """The end of all that an app has of a user."""
    path = app_path(app, f"/users/{step_of(user_id, 'the user')}")
    return Call(method="DELETE", path=path, parse=lambda reply: int(reply.json()["sessions"]))


def update(
    key: SessionKey,
    state: Mapping[str, Json] | None,
    metadata: Mapping[str, Json] | None,
    expected_version: int | None,
    request_id: str | None,
) -> Call[Session]:
    """A change of state or metadata. A state delta alone would be google-adk's, and get its answer."""
    body = {"stateDelta": state, "metadata": metadata, "expectedVersion": expected_version}
    return _steer(key, "", body, results.session_of, request_id, method="PATCH")


def message(
    key: SessionKey,
    text: str | None,
    content: JsonObject | None,
    message_id: str | None,
    state: Mapping[str, Json] | None,
    reopen: bool,
    during: During,
) -> Call[Answer | None]:
    """A message, waited for a while; None where its turn goes on."""
    chosen = message_id or new_id()
    how = given(reopen=reopen or None, during=None if during == "queue" else during)
    body = given(text=text, content=content, stateDelta=state, messageId=chosen, **how)
    return Call(
        method="POST",
        path=session_path(key, "/messages"),
        parse=lambda reply: None if reply.status == 202 else results.answer_of(reply.json()),
        content=body_of(body),
        headers={**_JSON, "prefer": f"wait={WAIT}"},
        id=chosen,
        wait=WAIT,
    )


def no_wait(said: Call[Answer | None]) -> Call[str]:
    """The same message, not waited for; gives its id."""
    return _as(said, {"prefer": "respond-async"}, lambda reply: str(reply.json()["invocationId"]))


def streamed(said: Call[Answer | None]) -> Call[None]:
    """The same message, whose turn is the answer."""
    return _as(said, _STREAM, _nothing)


def events(key: SessionKey, after: int, live: bool, cursor: Cursor) -> Call[Page[Event]]:
    """A page of a log."""
    query: Query = {"after": after if cursor is None else cursor, "limit": PAGE, "live": _boolean(live)}
    return _look(session_path(key, "/events"), results.events_page, query)


def follow(key: SessionKey, after: int, live: bool, last: int | None) -> Call[None]:
    """A session's stream; ``last`` is the seq of the last event that came of it, once it was opened."""
    return Call(
        method="GET",
        path=session_path(key, "/events"),
        parse=_nothing,
        query={"after": after, "live": _boolean(live)},
        headers={**_STREAM, **({} if last is None else {"last-event-id": str(last)})},
    )


def rewind(key: SessionKey, before: str, request_id: str | None) -> Call[Rewind]:
    """A rewind, or a redo."""
    return _steer(key, "/rewind", {"before": before}, results.rewind_of, request_id)


def fork(key: SessionKey, session_id: str | None, user_id: str | None, before: str | None) -> Call[Session]:
    """A copy. Sent again, the gateway knows the fork that it made by its origin."""
    body = {"sessionId": session_id, "userId": user_id, "before": before}
    chosen = new_id()
    return _post(session_path(key, "/fork"), body, results.session_of, id=chosen, headers=_keyed(chosen))


def cancel(key: SessionKey, invocation_id: str | None) -> Call[None]:
    """The end of the running turn. Without its id, a second try could end the next one."""
    path, named = session_path(key, "/cancel"), invocation_id is not None
    return _post(path, {"invocationId": invocation_id}, lambda _: None, repeatable=named)


def end(key: SessionKey, request_id: str | None) -> Call[Session]:
    """The end of a session."""
    return _steer(key, "/end", {}, results.session_of, request_id)


def compact(key: SessionKey, request_id: str | None) -> Call[Compacted]:
    """A summary of what has ended so far."""
    return _steer(key, "/compact", {}, results.compacted_of, request_id)


def status(key: SessionKey) -> Call[Status]:
    """The session, and what it is doing."""
    return _look(session_path(key, "/status"), results.status_of)


def context(key: SessionKey) -> Call[Context]:
    """What the model would get."""
    return _look(session_path(key, "/context"), results.context_of)


def at(key: SessionKey, invocation_id: str, max_events: int | None) -> Call[Moment]:
    """The session as it was."""
    step = step_of(invocation_id, "the invocation's id", slash=True)
    return _look(session_path(key, f"/at/{step}"), results.moment_of, given(maxEvents=max_events))


def artifacts(key: SessionKey, name: str | None) -> Call[list[ArtifactInfo]]:
    """The newest version of each artifact, or all versions of one."""
    query = {} if name is None else {"name": artifact_name(name)}
    return _look(session_path(key, "/files"), results.artifacts_of, query)


def save(key: SessionKey, name: str, mime_type: str, request_id: str | None) -> Call[ArtifactInfo]:
    """An upload, but for its bytes."""
    chosen = request_id or new_id()
    return Call(
        method="PUT",
        path=artifact_path(key, name),
        parse=lambda reply: results.artifact_of(reply.json()),
        headers={"content-type": header_of(mime_type, "the MIME type"), **_keyed(chosen)},
        id=chosen,
    )


def load(key: SessionKey, name: str, version: int | None, first: int, last: int | None) -> Call[None]:
    """The bytes of an artifact from ``first`` up to and with ``last``."""
    span = {} if not first and last is None else {"range": f"bytes={first}-{'' if last is None else last}"}
    return Call(
        method="GET",
        path=artifact_path(key, name),
        parse=_nothing,
        query=given(version=version),
        headers={"accept-encoding": "identity", **span},
    )


def _steer(
    key: SessionKey,
    what: str,
    body: JsonObject,
    parse: Callable[[JsonObject], T],
    request_id: str | None,
    *,
    method: str = "POST",
) -> Call[T]:
    """A request whose id is in its body."""
    chosen = request_id or new_id()
    path = session_path(key, what)
    return _post(path, {**body, "requestId": chosen}, parse, id=chosen, method=method)


def _post(
    path: str,
    body: JsonObject,
    parse: Callable[[JsonObject], T],
    *,
    id: str | None = None,  # noqa: A002 - it is the call's
    headers: Mapping[str, str] | None = None,
    repeatable: bool = True,
    method: str = "POST",
) -> Call[T]:
    return Call(
        method=method,
        path=path,
        parse=lambda reply: parse(reply.json()),
        content=body_of(body),
        headers={**_JSON, **(headers or {})},
        id=id,
        repeatable=repeatable,
    )


def _look(path: str, parse: Callable[[JsonObject], T], query: Query | None = None) -> Call[T]:
    return Call(method="GET", path=path, parse=lambda reply: parse(reply.json()), query=query or {})


def _as(said: Call[Answer | None], headers: Mapping[str, str], parse: Callable[[Reply], T]) -> Call[T]:
    headers = {**_JSON, **headers}
    return Call(
        method=said.method, path=said.path, parse=parse, content=said.content, headers=headers, id=said.id
    )


def _keyed(request_id: str) -> dict[str, str]:
    return {"idempotency-key": header_of(request_id, "the request's id")}


def _boolean(value: bool) -> str:
    return "true" if value else "false"


def _nothing(reply: Reply) -> None:
    """What an answer says that says nothing."""
