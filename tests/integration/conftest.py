"""The servers that integration tests share, and a running Perdure on each database."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from examples import counter
from gateway import closing
from perdure import Agent
from storage.sessions import SessionStore
from tests.integration.agents import AGENTS
from tests.integration.harness import PATIENCE, World, open_world


@pytest_asyncio.fixture(scope="session")
async def temporal(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TemporalServer]:
    async with TemporalServer(tmp_path_factory.mktemp("temporal")) as server:
        yield server


@pytest_asyncio.fixture(scope="session")
async def postgres() -> AsyncIterator[PostgresServer]:
    async with PostgresServer(fsync=False) as server:
        yield server


@pytest_asyncio.fixture(scope="session")
async def sqlite_store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SessionStore]:
    folder = tmp_path_factory.mktemp("sqlite")
    store = await open_sqlite(folder)
    yield store
    await store.close()


@pytest_asyncio.fixture(scope="session")
async def postgres_store(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[SessionStore]:
    url = await postgres.create_database(f"t{uuid.uuid4().hex[:8]}")
    artifacts = f"file://{tmp_path_factory.mktemp('artifacts')}"
    store = await SessionStore.open(url, artifacts, migrate=True)
    yield store
    await store.close()


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest) -> SessionStore:
    found = request.getfixturevalue(f"{request.param}_store")
    assert isinstance(found, SessionStore)
    return found


@pytest.fixture
def agents() -> list[Agent]:
    """Whom a world serves; a file that wants others has a fixture of this name."""
    return [counter.agent, *AGENTS]


@pytest_asyncio.fixture
async def world(temporal: TemporalServer, store: SessionStore, agents: list[Agent]) -> AsyncIterator[World]:
    """Perdure, once on SQLite and once on Postgres."""
    async with open_world(temporal.address, store, agents) as opened:
        yield opened


@pytest_asyncio.fixture
async def sqlite_world(
    temporal: TemporalServer, sqlite_store: SessionStore, agents: list[Agent]
) -> AsyncIterator[World]:
    """Perdure on SQLite, for what does not depend on the database."""
    async with open_world(temporal.address, sqlite_store, agents) as opened:
        yield opened


@pytest.fixture
def time_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a workflow whose session is deleted: it is not terminated because its worker stands still."""
    monkeypatch.setattr(closing.close_workflow, "__kwdefaults__", {"within": PATIENCE})


async def open_sqlite(folder: Path) -> SessionStore:
    return await SessionStore.open(
        f"sqlite:///{folder / 'perdure.db'}", f"file://{folder / 'artifacts'}", migrate=True
    )
