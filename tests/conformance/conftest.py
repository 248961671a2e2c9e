"""One suite for every store: a new backend adds one entry to ``BACKENDS``, a new place for blobs one to
``FILESYSTEMS``.

Each test gets a database that is empty and migrated: a copy of one, or on PostgreSQL one
that was emptied, so that it costs milliseconds. The PostgreSQL server is real, and is
started once for the whole run.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from embedded.postgres import PostgresServer
from perdure.types import SessionKey
from storage.migrate import upgrade
from storage.sessions import SessionStore
from tests.conformance.servers import BUCKET, gcs_server, s3_server

BACKENDS = ("memory", "sqlite", "postgres")
FILESYSTEMS = ("memory", "file", "s3", "gs")
TEMPLATE = "conformance_template"
EMPTY = """
SET lock_timeout = '2s';
TRUNCATE sessions, state, events, artifacts, memories, memory_passages, memory_requests;
UPDATE epoch_floor SET value = 0;
"""

_numbers = itertools.count(1)

NewDatabase = Callable[[str], Awaitable[str]]


@dataclass
class Backend:
    """A fresh, migrated database and a place for blobs; tests that need several stores open them here."""

    name: str
    url: str
    artifacts_url: str
    stores: list[SessionStore] = field(default_factory=list)

    async def open(self, **options: Any) -> SessionStore:
        """One more store on it, as another process would have."""
        store = await SessionStore.open(self.url, self.artifacts_url, options=options)
        self.stores.append(store)
        return store


class Databases:
    """Migrated databases of one PostgreSQL server: emptied after a test, and used again."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._free: list[str] = []

    async def take(self) -> str:
        """The URL of an empty one."""
        if self._free:
            return self._free.pop()
        name = f"conformance_{next(_numbers)}"
        await self._run(self._server.url, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        return self._server.url_of(name)

    async def give_back(self, url: str) -> None:
        """Empty one; if a test that failed still holds locks in it, it is not used again."""
        try:
            await self._run(url, EMPTY)
        except asyncpg.LockNotAvailableError:
            return
        self._free.append(url)

    async def _run(self, url: str, script: str) -> None:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(script)
        finally:
            await connection.close()


@pytest.fixture(scope="session")
async def postgres() -> AsyncIterator[PostgresServer]:
    """A PostgreSQL server with one migrated database to copy."""
    settings = {"max_connections": "300", "synchronous_commit": "off"}
    async with PostgresServer(fsync=False, settings=settings) as server:
        await upgrade(await server.create_database(TEMPLATE))
        yield server


@pytest.fixture(scope="session")
def databases(postgres: PostgresServer) -> Databases:
    """Databases of that server."""
    return Databases(postgres)


@pytest.fixture(scope="session")
async def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    await upgrade(f"sqlite:///{path}")
    return path


@pytest.fixture
async def new_database(
    databases: Databases, sqlite_template: Path, tmp_path: Path
) -> AsyncIterator[NewDatabase]:
    """Make a fresh database of a kind; its URL."""
    taken: list[str] = []

    async def make(kind: str) -> str:
        if kind == "memory":
            return "sqlite://"
        if kind == "sqlite":
            copy = tmp_path / f"{next(_numbers)}.db"
            shutil.copy(sqlite_template, copy)
            return f"sqlite:///{copy}"
        taken.append(await databases.take())
        return taken[-1]

    yield make
    for url in taken:
        await databases.give_back(url)


@pytest.fixture(params=BACKENDS)
def backend_name(request: pytest.FixtureRequest) -> str:
    """Which database the test runs on."""
    name: str = request.param
    return name


@pytest.fixture
async def backend(backend_name: str, new_database: NewDatabase) -> AsyncIterator[Backend]:
    """A fresh database of each kind."""
    backend = Backend(
        name=backend_name,
        url=await new_database(backend_name),
        artifacts_url=f"memory://conformance-{next(_numbers)}",
    )
    yield backend
    for store in backend.stores:
        await store.close()


@pytest.fixture
async def store(backend: Backend) -> SessionStore:
    """A store on a fresh database of each kind."""
    return await backend.open(pool_size=5, max_overflow=20)


@pytest.fixture
def key() -> SessionKey:
    """A session that does not exist yet."""
    return SessionKey(app="counter", user_id="ada", session_id="s1")


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The URL of a bucket on an S3 server."""
    with s3_server() as variables, pytest.MonkeyPatch.context() as patched:
        for name, value in variables.items():
            patched.setenv(name, value)
        yield f"s3://{BUCKET}"


@pytest.fixture(scope="session")
def gs() -> Iterator[str]:
    """The URL of a bucket on a GCS server."""
    with gcs_server() as variables, pytest.MonkeyPatch.context() as patched:
        for name, value in variables.items():
            patched.setenv(name, value)
        yield f"gs://{BUCKET}"


@pytest.fixture(params=FILESYSTEMS)
def filesystem(request: pytest.FixtureRequest) -> str:
    """Which kind of place for blobs the test runs on."""
    name: str = request.param
    return name


@pytest.fixture
def url(request: pytest.FixtureRequest, filesystem: str, tmp_path: Path) -> str:
    """An empty place for blobs of each kind."""
    if filesystem == "memory":
        return f"memory://{tmp_path}"
    if filesystem == "file":
        return f"file://{tmp_path}/artifacts"
    return f"{request.getfixturevalue(filesystem)}/{tmp_path.parent.name}/{tmp_path.name}"
