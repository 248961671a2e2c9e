"""A running gateway for a test: a server on a port of its own, over a running Perdure."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from fastapi import FastAPI

from activities.mcp_servers import McpServers
from embedded.temporal import TemporalServer
from examples import counter
from gateway.access import Access
from gateway.app import create_app
from gateway.callers import Caller
from gateway.listening import listening
from gateway.services import GatewayOptions
from perdure import Agent
from perdure.registry import Registry
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.integration.agents import AGENTS
from tests.integration.harness import World, open_world

__all__ = ["Gateway", "Tokens", "open_gateway", "open_gateway_of", "path_of"]


@dataclass
class Tokens:
    """Tokens that a test gives out."""

    callers: dict[str, Caller] = field(default_factory=dict[str, Caller])

    async def caller(self, token: str) -> Caller | None:
        return self.callers.get(token)

    def give(self, *, apps: set[str] | None = None, users: set[str] | None = None) -> str:
        """A new token; without users it is an administrator's, without apps too it is everybody's."""
        token = uuid.uuid4().hex
        self.callers[token] = Caller(
            name=f"token-{token[:6]}",
            apps=None if apps is None else frozenset(apps),
            users=None if users is None else frozenset(users),
        )
        return token


@dataclass
class Gateway:
    """What a test talks to."""

    url: str
    app: FastAPI
    world: World
    tokens: Tokens
    http: httpx2.AsyncClient
    """With an administrator's token of all apps."""

    def key(self, app: str = "counter", user: str | None = None) -> SessionKey:
        """A session nobody else has, of a user nobody else is."""
        return self.world.key(app, user)

    def client(self, token: str | None, **more: Any) -> httpx2.AsyncClient:
        """A client with this token, or with none; the test closes it."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        return httpx2.AsyncClient(base_url=self.url, headers=headers, timeout=60, trust_env=False, **more)

    def client_of(self, user: str, *, app: str = "counter") -> httpx2.AsyncClient:
        """A client with a token of this user's alone."""
        return self.client(self.tokens.give(apps={app}, users={user}))


def path_of(key: SessionKey, rest: str = "") -> str:
    """The path of a session, or of something below it."""
    app, user, session = key.workflow_id.split("/")
    return f"/apps/{app}/users/{user}/sessions/{session}{rest}"


@asynccontextmanager
async def open_gateway(
    world: World,
    *,
    options: GatewayOptions | None = None,
    agents: Sequence[Agent] = (counter.agent, *AGENTS),
    servers: McpServers | None = None,
) -> AsyncIterator[Gateway]:
    """A gateway over a running Perdure, which serves until the block ends."""
    tokens = Tokens()
    registry = Registry(agents)
    app = create_app(world.runner, Access([tokens]), agents=registry, options=options, servers=servers)
    async with listening(app, "127.0.0.1", 0) as port:
        url = f"http://127.0.0.1:{port}"
        headers = {"authorization": f"Bearer {tokens.give()}"}
        async with httpx2.AsyncClient(base_url=url, headers=headers, timeout=60, trust_env=False) as http:
            yield Gateway(url, app, world, tokens, http)


@asynccontextmanager
async def open_gateway_of(
    agents: Sequence[Agent], temporal: TemporalServer, store: SessionStore
) -> AsyncIterator[Gateway]:
    """A gateway, and a worker for these agents behind it."""
    async with (
        open_world(temporal.address, store, agents) as world,
        open_gateway(world, agents=agents) as opened,
    ):
        yield opened
