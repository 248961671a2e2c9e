"""Sessions of an app: create, list, find, update; many at once, or one by its path."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field, StrictBool
from starlette.responses import JSONResponse, Response

from gateway import adk_sessions
from gateway.adk_models import AdkSession
from gateway.callers import Caller
from gateway.problems import problem_of
from gateway.requests import IdempotencyKey, LimitQuery, chosen_id, path_of
from gateway.services import AppPath, CallerDep, KeyDep, ServicesDep, names_user
from gateway.shapes import WHOLE, Body, Record, SessionBody, session_json
from perdure.errors import InvalidOption, SessionExists
from perdure.types import JsonObject, SessionKey
from storage.sessions import SessionPage, SessionUpdate, UpdateOutcome

__all__ = ["router"]

router = APIRouter(tags=["sessions"])

SESSIONS = "/apps/{app}/sessions"
SESSION = "/apps/{app}/users/{user}/sessions/{session}"
ID = r"^[^/\x00-\x1f\x7f]+$"

UserId = Annotated[str, Field(min_length=1, max_length=255, pattern=ID, examples=["ann"])]
SessionId = Annotated[str, Field(min_length=1, max_length=255, pattern=ID, examples=["s1"])]
Version = Annotated[
    int, Field(ge=0, le=2**53, description="Change nothing unless it is at this version."), WHOLE
]
Cursor = Annotated[str, Field(max_length=4_000, description="The `nextCursor` of the page before.")]


class CreateBody(Body):
    """A session to create."""

    user_id: UserId | None = Field(
        default=None, description="Whose it is; may be left out with a token of one user."
    )
    session_id: SessionId | None = Field(
        default=None, description="Left out: the `Idempotency-Key`, or a new id."
    )
    state: dict[str, Any] = Field(default={}, description="Its initial state, which every rewind keeps.")
    metadata: dict[str, Any] = Field(default={}, description="What to find it by; not state, not rewound.")


class FindBody(Body):
    """What sessions to find."""

    metadata: dict[str, Any] = Field(description='What each has, key by key; 1 is not "1".')
    user_id: UserId | None = Field(default=None, description="Only this user's.")
    limit: Annotated[int, Field(ge=1, le=1000), WHOLE] = 50
    cursor: Cursor | None = None


class PatchBody(Body):
    """A change of state or metadata from outside a turn."""

    state_delta: dict[str, Any] = Field(
        default={}, description="Keys to set; null removes one. It becomes an event."
    )
    metadata: dict[str, Any] = Field(default={}, description="Merged in, key by key; null removes one.")
    expected_version: Version | None = None
    request_id: Annotated[str, Field(min_length=1, max_length=128)] | None = Field(
        default=None, description="Same as the header `Idempotency-Key`."
    )


class ItemBody(PatchBody):
    """One change of a batch."""

    user_id: UserId
    session_id: SessionId


class BatchBody(Body):
    """Changes of several sessions, at most one a session."""

    updates: Annotated[list[ItemBody], Field(max_length=1000)]
    atomic: StrictBool = Field(default=False, description="All of them in one transaction, or none.")


class SessionPageBody(Record):
    """A page of sessions, the one changed last first, without state and events."""

    sessions: list[SessionBody]
    next_cursor: str | None = Field(default=None, description="None after the last page.")


class OutcomeBody(Record):
    """What became of one change: the session after it, or the problem."""

    user_id: str
    session_id: str
    session: SessionBody | None = None
    problem: dict[str, Any] | None = None


class OutcomesBody(Record):
    """What became of a batch, in its order."""

    outcomes: list[OutcomeBody]


@router.get(
    SESSIONS,
    operation_id="listSessions",
    summary="List sessions of an app or of a user, the one changed last first",
    response_model=SessionPageBody,
)
@names_user
async def list_sessions(
    app: AppPath,
    services: ServicesDep,
    caller: CallerDep,
    user: Annotated[str | None, Query(description="Only this user's.", min_length=1, max_length=255)] = None,
    limit: LimitQuery = 50,
    cursor: Annotated[str | None, Query(description="The `nextCursor` of the page before.")] = None,
) -> Response:
    """Sessions without state and events. A token of one user lists that user's."""
    whose = _whose(caller, app, user)
    return _page(await services.store.list_sessions(app, whose, limit=limit, cursor=cursor))


@router.post(
    SESSIONS,
    operation_id="createSession",
    summary="Create a session",
    status_code=201,
    response_model=SessionBody,
    responses={200: {"model": SessionBody, "description": "It was created before, under the same key."}},
)
@names_user
async def create_session(
    app: AppPath,
    services: ServicesDep,
    caller: CallerDep,
    body: CreateBody,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Needed only to give it state or metadata before its first message."""
    user = _whose(caller, app, body.user_id)
    if user is None:
        raise InvalidOption("the request names no user; give userId")
    caller.check_state(app, body.state)
    services.agents.get(app)
    named = body.session_id is not None
    key = SessionKey(app=app, user_id=user, session_id=body.session_id or chosen_id(idempotency_key, None))
    _refuse_slash(key)
    try:
        session = await services.store.create(key, state=body.state, metadata=body.metadata)
    except SessionExists:
        if named or idempotency_key is None:
            raise
        return JSONResponse(session_json(await services.store.get(key, max_events=0)))
    return JSONResponse(session_json(session), status_code=201, headers={"location": path_of(key)})


@router.post(
    SESSIONS + ":find",
    operation_id="findSessions",
    summary="Find sessions by their metadata",
    response_model=SessionPageBody,
)
@names_user
async def find_sessions(app: AppPath, services: ServicesDep, caller: CallerDep, body: FindBody) -> Response:
    """Those whose metadata has all the given values, the one changed last first."""
    whose = _whose(caller, app, body.user_id)
    page = await services.store.find_sessions(
        app, body.metadata, user_id=whose, limit=body.limit, cursor=body.cursor
    )
    return _page(page)


@router.post(
    SESSIONS + ":batchUpdate",
    operation_id="batchUpdateSessions",
    summary="Change state or metadata of several sessions",
    response_model=OutcomesBody,
)
@names_user
async def batch_update(
    app: AppPath,
    services: ServicesDep,
    caller: CallerDep,
    body: BatchBody,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Each change happens whole or not at all; with ``atomic``, all of them do, or the request is refused."""
    prefix = chosen_id(idempotency_key, None)
    updates = []
    for number, item in enumerate(body.updates):
        caller.check(app, item.user_id)
        caller.check_state(app, item.state_delta)
        key = SessionKey(app=app, user_id=item.user_id, session_id=item.session_id)
        updates.append(_update(key, item, item.request_id or f"{prefix}:{number}"))
    outcomes = await services.store.batch_update(updates, atomic=body.atomic)
    return JSONResponse({"outcomes": [_outcome(outcome) for outcome in outcomes]})


@router.patch(
    SESSION,
    operation_id="updateSession",
    summary="Change state or metadata, at an expected version if one is given",
    response_model=SessionBody | AdkSession,
)
async def update_session(
    key: KeyDep,
    services: ServicesDep,
    caller: CallerDep,
    body: PatchBody,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The change of state is an event, so it can be rewound; metadata is not rewound.

    A ``stateDelta`` alone is what google-adk's clients send, and gets google-adk's answer.
    """
    caller.check_state(key.app, body.state_delta)
    update = _update(key, body, chosen_id(idempotency_key, body.request_id))
    session = await services.store.update(
        key,
        request_id=update.request_id,
        state=update.state,
        metadata=update.metadata,
        expected_version=update.expected_version,
    )
    if body.model_fields_set == {"state_delta"}:
        return JSONResponse(await adk_sessions.read(services.store, key))
    return JSONResponse(session_json(session))


def _update(key: SessionKey, body: PatchBody, request_id: str) -> SessionUpdate:
    return SessionUpdate(
        key=key,
        request_id=request_id,
        state=body.state_delta,
        metadata=body.metadata,
        expected_version=body.expected_version,
    )


def _whose(caller: Caller, app: str, user: str | None) -> str | None:
    """The user that is meant: the caller's only one, where none is named. Checked."""
    if user is None and caller.users is not None and len(caller.users) == 1:
        [user] = caller.users
    caller.check(app, user)
    return user


def _refuse_slash(key: SessionKey) -> None:
    if "/" in key.session_id:
        raise InvalidOption("a session's id has a slash in it, and no path could name it; leave it out")


def _page(page: SessionPage) -> Response:
    told: JsonObject = {"sessions": [session_json(session, state=False) for session in page.sessions]}
    if page.next_cursor is not None:
        told["nextCursor"] = page.next_cursor
    return JSONResponse(told)


def _outcome(outcome: UpdateOutcome) -> JsonObject:
    told: JsonObject = {"userId": outcome.key.user_id, "sessionId": outcome.key.session_id}
    if outcome.session is not None:
        told["session"] = session_json(outcome.session)
    if outcome.error is not None:
        told["problem"], _ = problem_of(outcome.error, path_of(outcome.key))
    return told
