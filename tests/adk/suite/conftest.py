"""google-adk's contract, on every service that claims to keep it.

``CONTRACT`` names also google-adk's own services in memory: a test that they pass states
google-adk's contract, not our reading of it. What only ours promise runs on ``OURS``.
"""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest
from google.adk.artifacts import BaseArtifactService, InMemoryArtifactService
from google.adk.sessions import BaseSessionService, InMemorySessionService

from integrations.google_adk import PerdureSessionService
from storage.migrate import upgrade
from storage.sessions import SessionStore

OURS = ("sqlite", "postgres")
CONTRACT = (*OURS, "google-adk")
NAME = "adk"
TABLES = ("events", "state", "artifacts", "sessions", "memories", "memory_passages", "memory_requests")

_numbers = itertools.count(1)


@dataclass
class Services:
    """A session service and the artifact service that goes with it."""

    sessions: BaseSessionService
    artifacts: BaseArtifactService


@dataclass
class Database:
    """A fresh database with a place for artifacts; each service opened on it is another process's."""

    url: str
    artifacts_url: str
    opened: list[PerdureSessionService | SessionStore] = field(default_factory=list)

    def service(self) -> PerdureSessionService:
        """One more service on it."""
        service = PerdureSessionService(
            self.url, self.artifacts_url, options={"sqlite_synchronous": "NORMAL"}
        )
        self.opened.append(service)
        return service

    async def store(self) -> SessionStore:
        """The store, as Perdure itself sees it."""
        options = {"sqlite_synchronous": "NORMAL"}
        store = await SessionStore.open(self.url, self.artifacts_url, options=options)
        self.opened.append(store)
        return store


NewDatabase = Callable[[str], Awaitable[Database]]


def pytest_configure(config: pytest.Config) -> None:
    # google-adk warns about itself: what it deprecates but still calls, what is experimental.
    config.addinivalue_line("filterwarnings", r"ignore:::google\.adk\..*")
    config.addinivalue_line("filterwarnings", r"ignore:\[EXPERIMENTAL\]:UserWarning")


@pytest.fixture(scope="session")
async def postgres_url() -> str:
    """A migrated database of the server that the tests were given."""
    server, _, first = os.environ["PERDURE_TEST_POSTGRES"].rpartition("/")
    await _execute(f"{server}/{first}", f"DROP DATABASE IF EXISTS {NAME}", f"CREATE DATABASE {NAME}")
    await upgrade(f"{server}/{NAME}")
    return f"{server}/{NAME}"


@pytest.fixture(scope="session")
async def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    await upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
async def new_database(
    sqlite_template: Path, postgres_url: str, tmp_path: Path
) -> AsyncIterator[NewDatabase]:
    """Make a fresh, migrated database of a kind; one at a time of each."""
    made: list[Database] = []

    async def make(kind: str) -> Database:
        number = next(_numbers)
        if kind == "sqlite":
            url = f"sqlite:///{shutil.copy(sqlite_template, tmp_path / f'{number}.db')}"
        else:
            url = postgres_url
            await _execute(url, *(f"DELETE FROM {table}" for table in TABLES))
        made.append(Database(url=url, artifacts_url=f"memory://adk-{number}"))
        return made[-1]

    yield make
    for database in made:
        for opened in database.opened:
            await opened.close()


@pytest.fixture(params=OURS)
async def database(request: pytest.FixtureRequest, new_database: NewDatabase) -> Database:
    """A fresh database of each kind."""
    return await new_database(request.param)


@pytest.fixture
async def ours(database: Database) -> PerdureSessionService:
    """Our services on each database."""
    return PerdureSessionService(store=await database.store())


@pytest.fixture(params=CONTRACT)
async def services(request: pytest.FixtureRequest, new_database: NewDatabase) -> Services:
    """Ours on each database, and google-adk's own."""
    if request.param == "google-adk":
        return Services(sessions=InMemorySessionService(), artifacts=InMemoryArtifactService())
    database = await new_database(request.param)
    service = PerdureSessionService(store=await database.store())
    return Services(sessions=service, artifacts=service.artifacts)


async def _execute(url: str, *statements: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
