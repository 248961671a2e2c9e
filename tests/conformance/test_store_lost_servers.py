"""Pooled connections to a PostgreSQL that is the primary no more are given up together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import StaleEpoch, StorageUnavailable
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.conformance.conftest import NewDatabase
from tests.conformance.events import event, user
from tests.conformance.watch import last_words, wait_for_a_lock

CONNECTIONS = 3

WRITES: dict[str, Callable[[SessionStore, SessionKey], Awaitable[Any]]] = {
    "append": lambda store, key: store.append(key, event("i1:x", state_delta={"n": 1})),
    "begin a turn": lambda store, key: store.begin_turn(key, user("i1"), epoch=None),
    "update": lambda store, key: store.update(key, request_id="u1", state={"n": 1}),
}


@pytest.mark.parametrize("name", WRITES)
async def test_after_a_fail_over_one_write_is_refused_and_not_one_a_connection(
    new_database: NewDatabase, key: SessionKey, name: str
) -> None:
    options = {"pool_size": CONNECTIONS, "max_overflow": 0}
    store = await SessionStore.open(await new_database("postgres"), "memory://x", options=options)
    await store.create(key)
    await each_becomes_read_only(store)
    with pytest.raises(StorageUnavailable, match="read-only"):
        await WRITES[name](store, key)
    await WRITES[name](store, key)
    assert (await store.get(key)).head == 1
    await store.close()


@pytest.mark.parametrize("name", ["append", "begin a turn"])
async def test_a_connection_that_was_lost_is_replaced(
    new_database: NewDatabase, key: SessionKey, name: str
) -> None:
    url = await new_database("postgres")
    store = await SessionStore.open(url, "memory://x", options={"pool_size": 1, "max_overflow": 0})
    await store.create(key)
    kill = """
        CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$;
        CREATE TRIGGER die BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION die()
    """
    await scripted(store, kill)
    with pytest.raises(StorageUnavailable):
        await WRITES[name](store, key)
    await scripted(store, "DROP FUNCTION die CASCADE")
    assert (await store.get(key)).head == 0
    await WRITES[name](store, key)
    assert (await store.get(key)).head == 1
    await store.close()


async def test_a_cancelled_append_leaves_the_pool_whole(new_database: NewDatabase, key: SessionKey) -> None:
    url = await new_database("postgres")
    store = await SessionStore.open(url, "memory://x", options={"pool_size": 1, "max_overflow": 0})
    keeper = await SessionStore.open(url, "memory://x", options={"pool_size": 2})
    await store.create(key)
    held, waited = asyncio.Event(), asyncio.Event()

    async def hold(conn: AsyncConnection) -> None:
        await conn.exec_driver_sql("SELECT 1 FROM sessions FOR UPDATE")
        held.set()
        await waited.wait()

    holding = asyncio.create_task(keeper._db.write(hold))
    await held.wait()
    late = asyncio.ensure_future(WRITES["append"](store, key))
    await wait_for_a_lock(keeper)
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    waited.set()
    await holding
    assert (await store.get(key)).head == 0, "the server was told to stop"
    await WRITES["append"](store, key)
    assert (await store.get(key)).state == {"n": 1}
    await store.close()
    await keeper.close()


@pytest.mark.parametrize("epoch", [-1, 1, 2**63, 2**70])
async def test_s13_an_epoch_that_never_was_is_stale(store: SessionStore, key: SessionKey, epoch: int) -> None:
    await store.create(key)
    with pytest.raises(StaleEpoch):
        await store.append(key, event("i1:x"), epoch=epoch)
    with pytest.raises(StaleEpoch):
        await store.begin_turn(key, user("i1"), epoch=epoch)
    assert (await store.get(key)).head == 0


async def each_becomes_read_only(store: SessionStore) -> None:
    """As connections are whose server was the primary."""
    together = asyncio.Barrier(CONNECTIONS)

    async def work(conn: AsyncConnection) -> None:
        await conn.exec_driver_sql("SET default_transaction_read_only = on")
        await together.wait()

    await asyncio.gather(*(store._db.write(work) for _ in range(CONNECTIONS)))


async def scripted(store: SessionStore, script: str) -> None:
    async def work(conn: AsyncConnection) -> None:
        await (await conn.get_raw_connection()).driver_connection.execute(script)  # type: ignore[union-attr]

    await store._db.write(work)


@pytest.mark.parametrize("name", [*WRITES, "get"])
async def test_a_server_that_dies_between_two_statements_is_an_outage(
    new_database: NewDatabase, key: SessionKey, name: str
) -> None:
    """Its last words have come, and the end of the connection has not: the driver is in between."""
    calls: dict[str, Callable[[SessionStore, SessionKey], Awaitable[Any]]] = {
        **WRITES,
        "get": lambda store, key: store.get(key),
    }
    url = await new_database("postgres")
    store = await SessionStore.open(url, "memory://x", options={"pool_size": 1, "max_overflow": 0})
    await store.create(key)
    async with store._db._committing.connect() as connection:
        last_words((await connection.get_raw_connection()).driver_connection)
    with pytest.raises(StorageUnavailable, match="does not answer"):
        await calls[name](store, key)
    await calls[name](store, key)
    assert (await store.get(key)).head == (0 if name == "get" else 1)
    await store.close()
