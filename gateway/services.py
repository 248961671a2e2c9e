"""What every route works with, and how it gets it: the services, the caller, the session's key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Path
from starlette.requests import HTTPConnection

from activities.mcp_servers import McpServers
from gateway.access import Access, Watch
from gateway.callers import Caller
from gateway.runner import Runner
from gateway.streaming import Streams
from perdure.registry import Registry
from perdure.types import SessionKey
from storage.sessions import SessionStore

__all__ = [
    "AppPath",
    "CallerDep",
    "GatewayOptions",
    "KeyDep",
    "Services",
    "ServicesDep",
    "SessionPath",
    "UserPath",
    "WatchDep",
    "authorize",
    "caller",
    "names_user",
    "services",
    "session_key",
    "watch",
]

C = TypeVar("C", bound=Callable[..., Any])

_NAMES_USER = "__perdure_names_user__"


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayOptions:
    """What can be set of a gateway."""

    body_limit: int = 32_000_000
    """Bytes of a request's body, uploads of artifacts aside; a message of 20 MB, in base64, fits."""
    upload_limit: int = 5_000_000_000
    """Bytes of an upload."""
    body_patience: float = 30.0
    """Seconds that a body may pause on its way in."""
    hosts: tuple[str, ...] = ()
    """Values of ``Host`` that are answered, without port; none at all is any."""
    origins: tuple[str, ...] = ()
    """Origins of pages that may ask, such as ``https://app.example.com``; ``*`` is any."""
    check_origin: bool = False
    """Refuse requests of pages of other origins altogether, where no token keeps them out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """What the routes work with."""

    runner: Runner
    access: Access
    agents: Registry
    streams: Streams = field(default_factory=Streams)
    options: GatewayOptions = field(default_factory=GatewayOptions)
    servers: McpServers = field(default_factory=McpServers)

    @property
    def store(self) -> SessionStore:
        """Where sessions are read from."""
        return self.runner.store


def services(connection: HTTPConnection) -> Services:
    """The services of the app that got this request."""
    found = connection.app.state.services
    assert isinstance(found, Services), "set by create_app"
    return found


def names_user(endpoint: C) -> C:
    """Mark an endpoint whose path names no user, and which checks the caller itself.

    One that is not marked is for administrators: so a new route that forgets the check is
    closed to users, not open.
    """
    setattr(endpoint, _NAMES_USER, True)
    return endpoint


async def authorize(connection: HTTPConnection) -> None:
    """The check that every request passes: that the token reaches what the path names.

    Raises:
        Forbidden: the path is beyond it.
    """
    found = caller(connection)
    app, user = connection.path_params.get("app"), connection.path_params.get("user")
    if getattr(connection.scope.get("endpoint"), _NAMES_USER, False):
        if app is not None and not found.reaches(app):
            found.check(app, None)
    elif app is not None:
        found.check(app, user)
    else:
        found.check_everything()


def caller(connection: HTTPConnection) -> Caller:
    """Who asks, as :class:`gateway.guards.Authenticate` found out."""
    found = connection.state.caller
    assert isinstance(found, Caller), "set for every request that is not public"
    return found


def watch(connection: HTTPConnection) -> Watch:
    """What tells a stream that its caller's token has ended: it looks with every heartbeat."""
    found = services(connection)
    return Watch(
        found.access,
        caller(connection),
        connection.headers.get("authorization"),
        every=found.streams.heartbeat,
    )


AppPath = Annotated[str, Path(description="The app: an agent's name.", examples=["counter"])]
UserPath = Annotated[str, Path(description="Whose session it is.", examples=["ann"])]
SessionPath = Annotated[str, Path(description="The session's id.", examples=["s1"])]


def session_key(app: AppPath, user: UserPath, session: SessionPath) -> SessionKey:
    """The session that the path names."""
    return SessionKey(app=app, user_id=user, session_id=session)


ServicesDep = Annotated[Services, Depends(services)]
CallerDep = Annotated[Caller, Depends(caller)]
KeyDep = Annotated[SessionKey, Depends(session_key)]
WatchDep = Annotated[Watch, Depends(watch)]
