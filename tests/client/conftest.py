"""A gateway and, for each test, both faces of the client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.client.faces import Face
from tests.gateway.conftest import (
    gateway,
    postgres,
    postgres_store,
    sqlite_gateway,
    sqlite_store,
    store,
    temporal,
)
from tests.gateway.harness import Gateway

__all__ = [
    "client",
    "face",
    "gateway",
    "postgres",
    "postgres_store",
    "sqlite_gateway",
    "sqlite_store",
    "store",
    "temporal",
]


@pytest.fixture(params=["sync", "async"])
def face(request: pytest.FixtureRequest) -> Face:
    """The client that blocks, and the one that is awaited."""
    return Face(request.param)


@pytest_asyncio.fixture
async def client(face: Face, sqlite_gateway: Gateway) -> AsyncIterator[Any]:
    """A client with an administrator's token."""
    async with face.client(sqlite_gateway.url, sqlite_gateway.tokens.give()) as opened:
        yield opened
