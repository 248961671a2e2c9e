"""Random sessions against the naive model of :mod:`tests.conformance.model`."""

from __future__ import annotations

import asyncio

import pytest

from storage.sessions import SessionStore
from tests.conformance.conftest import BACKENDS, NewDatabase
from tests.conformance.soak import explore

STEPS = {"memory": 6_000, "sqlite": 2_000, "postgres": 2_000}
"""Whole seeds, of :data:`~tests.conformance.soak.STEPS_A_SEED` steps each."""
FIRST_SEEDS = {"memory": 1_000_000, "sqlite": 2_000_000, "postgres": 3_000_000}


def test_s37_all_stores_together_make_ten_thousand_steps() -> None:
    assert set(STEPS) == set(BACKENDS)
    assert sum(STEPS.values()) >= 10_000


@pytest.mark.timeout(900)
def test_s37_random_sessions_agree_with_the_model(backend_name: str, new_database: NewDatabase) -> None:
    """No coroutine, because hypothesis's machines are none: they drive a loop of their own."""
    loop = asyncio.new_event_loop()
    artifacts_url = f"memory://machine-{backend_name}"

    async def new_store() -> SessionStore:
        return await SessionStore.open(await new_database(backend_name), artifacts_url)

    store = loop.run_until_complete(new_store())
    try:
        *_, made = explore(store, loop, steps=STEPS[backend_name], first=FIRST_SEEDS[backend_name])
    finally:
        loop.run_until_complete(store.close())
        loop.close()
    assert made >= STEPS[backend_name]
