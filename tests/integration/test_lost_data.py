"""The database is lost, or comes back from a backup, under workflows that know more than it does."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import SessionNotFound
from perdure.testing import call, say
from perdure.types import SessionKey
from storage.schema import events, sessions, state
from tests.integration.harness import World, until


async def test_s60_a_workflow_whose_session_is_lost_says_so_and_makes_room(world: World) -> None:
    key = world.key("tester")
    world.gemini.script(say("one"))
    await world.runner.ask(key, "hello", message_id="m1")
    await world.store.delete(key)
    with pytest.raises(SessionNotFound):
        await world.runner.ask(key, "hello?", message_id="m2")

    async def closed() -> bool:
        return (await world.handle(key).describe()).close_time is not None

    await until(closed)
    world.gemini.clear()
    world.gemini.script(say("anew"))
    assert (await world.runner.ask(key, "hello?", message_id="m2")).text == "anew"
    assert [event.id for event in await world.log(key)] == ["m2:user", "m2:m1"]


@pytest.mark.parametrize("rewound", [False, True], ids=["same epoch", "older epoch"])
async def test_s60_a_session_goes_on_where_its_backup_ends(world: World, rewound: bool) -> None:
    key = world.key("tester")
    world.gemini.script(call("add", name="n"), say("one"))
    await world.runner.ask(key, "one", message_id="m1")
    backup = await _backup(world, key)
    world.gemini.script(call("add", name="n"), say("two"))
    await world.runner.ask(key, "two", message_id="m2")
    if rewound:
        await world.runner.rewind(key, "m2", request_id="r1")
    await _restore(world, key, backup)
    world.gemini.clear()
    world.gemini.script(call("add", name="n"), say("three"))
    assert (await world.runner.ask(key, "three", message_id="m3")).text == "three"
    prompt = world.gemini.model_calls()[-1].contents
    assert [part["text"] for content in prompt for part in content["parts"] if "text" in part] == [
        "one",
        "one",
        "three",
    ]
    session = await world.session(key)
    assert session.state == {"n": 2}
    ids = ["user", "m1", "t1.0", "m2"]
    assert [event.id for event in session.events] == [f"m{n}:{one}" for n in (1, 3) for one in ids]
    world.gemini.script(say("two again"))
    assert (await world.runner.ask(key, "two", message_id="m2")).text == "two again", "it was lost, and runs"


async def _backup(world: World, key: SessionKey) -> dict[str, object]:
    """The session's row; what it counts says where the log ended."""

    async def work(conn: AsyncConnection) -> dict[str, object]:
        found = await conn.execute(select(sessions).where(sessions.c.id == key.session_id))
        return dict(found.mappings().one())

    return await world.store._db.read(work)


async def _restore(world: World, key: SessionKey, backup: dict[str, object]) -> None:
    """The log, the row and the one state key as they were then."""

    async def work(conn: AsyncConnection) -> None:
        mine = events.c.session_id == key.session_id
        await conn.execute(delete(events).where(mine, events.c.seq > backup["head"]))
        await conn.execute(update(sessions).where(sessions.c.id == key.session_id).values(**backup))
        await conn.execute(update(state).where(state.c.session_id == key.session_id).values(value=1))

    await world.store._db.write(work)
