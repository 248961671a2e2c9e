"""A running gateway on each database."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from examples import counter
from storage.sessions import SessionStore
from tests.gateway.harness import Gateway, open_gateway
from tests.integration.agents import AGENTS
from tests.integration.conftest import postgres, sqlite_store, store, temporal
from tests.integration.harness import open_world

__all__ = ["gateway", "postgres", "postgres_store", "sqlite_gateway", "sqlite_store", "store", "temporal"]


@pytest_asyncio.fixture(scope="session")
async def postgres_store(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[SessionStore]:
    """A store that tells those who follow, as a worker's and a gateway's do."""
    store = await SessionStore.open(
        await postgres.create_database(f"g{uuid.uuid4().hex[:8]}"),
        f"file://{tmp_path_factory.mktemp('artifacts')}",
        options={"announce": True},
        migrate=True,
    )
    yield store
    await store.close()


@pytest_asyncio.fixture
async def gateway(temporal: TemporalServer, store: SessionStore) -> AsyncIterator[Gateway]:
    """A gateway, once on SQLite and once on Postgres."""
    async with (
        open_world(temporal.address, store, [counter.agent, *AGENTS]) as world,
        open_gateway(world) as opened,
    ):
        yield opened


@pytest_asyncio.fixture
async def sqlite_gateway(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[Gateway]:
    """A gateway on SQLite, for what does not depend on the database."""
    async with (
        open_world(temporal.address, sqlite_store, [counter.agent, *AGENTS]) as world,
        open_gateway(world) as opened,
    ):
        yield opened
