"""What processes other than workers do, gateways and scripts: killed in the midst of it, at a crash point."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.crashpoints import crash_at, note_in, noted
from perdure.errors import SessionExists
from perdure.types import Event, SessionKey
from storage.schema import artifacts, events, memories, memory_passages, memory_requests, sessions, state
from storage.sessions import SessionStore
from tests.integration.crash_scenarios import Script
from tests.integration.crashes import Stage, become, end_of, fork, starting

__all__ = ["OPERATIONS", "Undisturbed", "dies_at_every_point", "undisturbed"]


async def make(store: SessionStore, key: SessionKey) -> None:
    await store.create(key, state={"n": 1, "user:n": 1})


async def update(store: SessionStore, key: SessionKey) -> None:
    await store.update(key, request_id="u1", state={"n": 2}, metadata={"colour": "red"})


async def fork_it(store: SessionStore, key: SessionKey) -> None:
    await store.fork(key, f"{key.session_id}-fork")


async def copy_to_another_user(store: SessionStore, key: SessionKey) -> None:
    lines = [line async for line in store.export(key)]
    await store.import_session(lines, key=replace(key, user_id=f"{key.user_id}-other"))


async def stage_artifact(store: SessionStore, key: SessionKey) -> None:
    await store.stage_artifact(key, "new.txt", b"staged", "text/plain", event_id="r1:artifact")


async def delete(store: SessionStore, key: SessionKey) -> None:
    await store.delete(key)


async def remember(store: SessionStore, key: SessionKey) -> None:
    await store.remember(key)


OPERATIONS: dict[str, Callable[[SessionStore, SessionKey], Awaitable[None]]] = {
    "create": make,
    "update": update,
    "fork": fork_it,
    "import": copy_to_another_user,
    "stage": stage_artifact,
    "delete": delete,
    "remember": remember,
}
"""By name. Each is all or nothing, and done again it is done once."""


def serve(
    environment: dict[str, str], log: str, url: str, artifacts_url: str, name: str, key: SessionKey
) -> None:
    """In a forked process: do one of them."""
    become(environment, log)

    async def do() -> None:
        store = await SessionStore.open(url, artifacts_url)
        await OPERATIONS[name](store, key)
        await store.close()

    asyncio.run(do())


async def service(stage: Stage, name: str, environment: dict[str, str], key: SessionKey) -> int | None:
    """Do it in another process; its exit code."""
    log = stage.folder / f"{key.session_id}.log"
    args = (environment, str(log), stage.database_url, stage.artifacts_url, name, key)
    async with starting:
        process = fork(target=serve, args=args, daemon=True)
        process.start()
        code = await end_of(process)
    if code not in (0, -9):
        raise AssertionError(f"{name} ended with {code}: {log.read_text()}")
    return code


async def everything(store: SessionStore, user: str) -> str:
    """All rows of a user, and of those whose names begin with his, but for times and epochs."""

    async def work(conn: AsyncConnection) -> list[str]:
        found = []
        for table in (sessions, events, state, artifacts, memories, memory_passages, memory_requests):
            # A passage's number is its database's, and its words begin with a mark of the user.
            other = {"epoch", "words"} | ({"id"} if table is memory_passages else set())
            columns = [each for each in table.c if each.name not in other and not each.name.endswith("_at")]
            rows = await conn.execute(select(*columns).where(table.c.user_id.like(f"{user}%")))
            found += sorted(f"{table.name} {tuple(row)}" for row in rows)
        return found

    return "\n".join(await store._db.read(work)).replace(user, "USER")


async def begun(stage: Stage, name: str) -> SessionKey:
    """A session with a past, but for the operation that makes one."""
    mark = uuid.uuid4().hex[:10]
    script = Script(stage, mark, "crasher")
    if name != "create":
        await script.talked("m1", "m2")
        version = await stage.store.stage_artifact(
            script.key, "old.txt", b"saved", "text/plain", event_id="a1:artifact"
        )
        event = Event(
            id="a1:artifact", invocation_id="a1", author="user", artifact_delta={"old.txt": version}
        )
        await stage.store.append(script.key, event)
    return script.key


@dataclass(frozen=True, kw_only=True)
class Undisturbed:
    """What an operation changes, and the points it passes."""

    before: str
    after: str
    points: list[tuple[str, int]]


async def undisturbed(stage: Stage, name: str) -> Undisturbed:
    """Have it done by a process that lives."""
    key = await begun(stage, name)
    notes = stage.folder / f"{key.session_id}.points"
    before = await everything(stage.store, key.user_id)
    assert await service(stage, name, note_in(notes), key) == 0
    return Undisturbed(before=before, after=await everything(stage.store, key.user_id), points=noted(notes))


async def dies_at_every_point(stage: Stage, name: str) -> int:
    """Have it done by processes that die, and by another then.

    Returns:
        How many died.
    """
    usual = await undisturbed(stage, name)

    async def dies(at: tuple[str, int]) -> None:
        key = await begun(stage, name)
        flag = stage.folder / f"{key.session_id}.flag"
        assert await service(stage, name, crash_at(at[0], flag, occurrence=at[1]), key) == -9, at
        committed = at[0].endswith("after_commit")
        left = await everything(stage.store, key.user_id)
        assert left == (usual.after if committed else usual.before), at
        try:
            await OPERATIONS[name](stage.store, key)
        except SessionExists:
            assert committed, at
        assert await everything(stage.store, key.user_id) == usual.after, at

    await asyncio.gather(*map(dies, usual.points))
    return len(usual.points)
