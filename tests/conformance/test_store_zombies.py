"""A late write meets what has happened to its session meanwhile: refused, or nothing is left to do.

Two stores on one database, as two processes have them. Each write is tried after each thing
that can have happened, and, on PostgreSQL, also while that is under way and holds its locks.
The same with real workers, stopped and let go on, is ``tests/integration/test_zombies.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import ArtifactNotFound, PerdureError, SessionEnded, SessionNotFound, StaleEpoch
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.conformance.conftest import Backend
from tests.conformance.events import answer, asked, event, say, summary, user
from tests.conformance.watch import stored, wait_for_a_lock

KEY = SessionKey(app="counter", user_id="ada", session_id="s1")

Write = Callable[[SessionStore, int], Coroutine[Any, Any, Any]]
Happening = Callable[[SessionStore, int], Coroutine[Any, Any, Any]]


async def model(store: SessionStore, epoch: int) -> None:
    await store.append(KEY, answer("m2"), epoch=epoch, first_wins=True)


async def tool(store: SessionStore, epoch: int) -> None:
    done = event("m2:t1.0", state_delta={"n": 2}, artifact_delta={"f": 2})
    await store.append(KEY, done, epoch=epoch, first_wins=True, expect={"n": 1})


async def failure(store: SessionStore, epoch: int) -> None:
    await store.append(KEY, event("m2:end", meta={"final": True}), epoch=epoch, first_wins=True)


async def compaction(store: SessionStore, epoch: int) -> None:
    await store.append(KEY, summary("m1", 1, 3), epoch=epoch, first_wins=True)


async def next_message(store: SessionStore, epoch: int) -> None:
    await store.begin_turn(KEY, user("m3"), epoch=epoch)


async def saved_outside(store: SessionStore, epoch: int) -> None:
    await store.append(KEY, event("r1:artifact", author="user", artifact_delta={"g": 1}), first_wins=True)


async def cancel_of(store: SessionStore, epoch: int) -> None:
    await store.interrupt(KEY, "m2", epoch=epoch, reason="cancelled")


WRITES: dict[str, Write] = {
    "model": model,
    "tool": tool,
    "failure": failure,
    "compaction": compaction,
    "next message": next_message,
    "save": saved_outside,
    "cancel": cancel_of,
}


async def prepare(store: SessionStore) -> int:
    """A session with a past and a turn that runs, artifacts staged for two of the writes; its epoch."""
    await say(store, KEY, "m1", delta={"n": 1}, artifact=("f", b"1"))
    epoch = (await store.begin_turn(KEY, user("m2"), epoch=None)).epoch
    await store.append(KEY, asked("m2x"), epoch=epoch)
    assert await store.stage_artifact(KEY, "f", b"2", "text/plain", event_id="m2:t1.0") == 2
    assert await store.stage_artifact(KEY, "g", b"3", "text/plain", event_id="r1:artifact") == 1
    return epoch


async def cancel(store: SessionStore, epoch: int) -> None:
    await store.interrupt(KEY, "m2", epoch=epoch, reason="cancelled")


async def rewind(store: SessionStore, epoch: int) -> None:
    await store.rewind(KEY, before="m1", request_id="r9", interrupt="m2")


async def end(store: SessionStore, epoch: int) -> None:
    await store.end(KEY)


async def delete(store: SessionStore, epoch: int) -> None:
    await store.delete(KEY)


async def successor(store: SessionStore, epoch: int) -> None:
    """Deleted, and made anew by turns under the very same ids."""
    await store.delete(KEY)
    await say(store, KEY, "m1", delta={"n": 1}, artifact=("f", b"other"))
    await store.begin_turn(KEY, user("m2"), epoch=None)
    await say(store, KEY, "m9")


async def taken_over(store: SessionStore, epoch: int) -> None:
    """Another workflow opens the session, as after a loss of Temporal's data."""
    await store.begin_turn(KEY, user("m9"), epoch=None)


HAPPENINGS: dict[str, Happening] = {
    "cancel": cancel,
    "rewind": rewind,
    "end": end,
    "delete": delete,
    "successor": successor,
    "taken over": taken_over,
}

HARMLESS = {("cancel", "cancel"), ("cancel", "rewind")}
"""It finds that the turn is over, and is told so."""
ALLOWED = {("save", "cancel"), ("save", "rewind"), ("save", "taken over")}
"""Who saves from outside of any turn is not concerned."""


@dataclass
class Two:
    """Two processes' stores, and the epoch that the late one knows."""

    late: SessionStore
    other: SessionStore
    epoch: int


@pytest.fixture
async def two(backend: Backend) -> Two:
    late, other = await backend.open(), await backend.open()
    if backend.name == "memory":
        other = late  # a database in memory is one process's
    return Two(late, other, await prepare(other))


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("happening", HAPPENINGS)
async def test_s13_s23_after(two: Two, happening: str, write: str) -> None:
    await HAPPENINGS[happening](two.other, two.epoch)
    await late_write(two, happening, write)


@pytest.mark.parametrize("backend_name", ["postgres"])  # SQLite has one writer at a time anyhow
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("happening", [name for name in HAPPENINGS if name != "successor"])
async def test_s13_s23_while_it_waits_for(two: Two, happening: str, write: str) -> None:
    """The late write is sent while the other is about to commit."""
    about_to, go_on = asyncio.Event(), asyncio.Event()
    transaction = two.other._db.write

    async def held(work: Callable[[AsyncConnection], Awaitable[Any]], **options: Any) -> Any:
        async def then_wait(conn: AsyncConnection) -> Any:
            done = await work(conn)
            about_to.set()
            await go_on.wait()
            return done

        return await transaction(then_wait, **options)

    async def never(*_: object) -> None:
        return None

    two.other._db.write = held  # type: ignore[method-assign]
    two.other._write_at_once = never  # type: ignore[method-assign, assignment]
    happens = asyncio.create_task(HAPPENINGS[happening](two.other, two.epoch))
    await about_to.wait()
    writes = asyncio.create_task(WRITES[write](two.late, two.epoch))
    await wait_for_a_lock(two.late)
    go_on.set()
    await happens
    refused = (await asyncio.gather(writes, return_exceptions=True))[0]
    check(refused, happening, write)
    if refused is not None:
        before = await stored(two.late)
        await late_write(two, happening, write)
        assert await stored(two.late) == before


@pytest.mark.parametrize("write", WRITES)
async def test_s58_after_its_own_retry(two: Two, write: str) -> None:
    await WRITES[write](two.other, two.epoch)
    before = await stored(two.other)
    try:
        await WRITES[write](two.late, two.epoch)
    except StaleEpoch:
        assert write == "compaction"  # the summary covers what another does
    assert await stored(two.other) == before


async def test_s58_the_bytes_of_an_attempt_that_was_given_up_replace_no_others(two: Two) -> None:
    """Both attempts of a call save a file of one name; the response that counts is of the second."""

    async def refuse() -> None:
        raise StaleEpoch("given up")

    async def wanted() -> None:
        pass

    save = ("f", b"second", "text/plain")
    assert await two.other.stage_artifact(KEY, *save, event_id="m2:t1.0", confirm=wanted) == 2
    with pytest.raises(StaleEpoch):
        await two.late.stage_artifact(KEY, "f", b"first", "text/plain", event_id="m2:t1.0", confirm=refuse)
    # The same bytes are no replacement, and nobody is asked.
    assert await two.late.stage_artifact(KEY, *save, event_id="m2:t1.0", confirm=refuse) == 2
    done = event("m2:t1.0", artifact_delta={"f": 2})
    with pytest.raises(StaleEpoch):
        await two.late.append(KEY, done, epoch=two.epoch, first_wins=True, confirm=refuse)
    await two.other.append(KEY, done, epoch=two.epoch, first_wins=True, confirm=wanted)
    assert (await two.late.load_artifact(KEY, "f"))[1] == b"second"


NEW = SessionKey(app="counter", user_id="ada", session_id="new")

UNKNOWING: dict[str, Callable[[SessionStore, SessionKey, Any], Coroutine[Any, Any, Any]]] = {
    "create": lambda store, key, confirm: store.create(key, confirm=confirm),
    "first message": lambda store, key, confirm: store.begin_turn(
        key, user("m7"), epoch=None, confirm=confirm
    ),
    "cancel of a first turn": lambda store, key, confirm: store.interrupt(
        key, "m7", epoch=None, reason="cancelled", confirm=confirm
    ),
    "rewind": lambda store, key, confirm: store.rewind(KEY, before="m1", request_id="r9", confirm=confirm),
    "end": lambda store, key, confirm: store.end(KEY, confirm=confirm),
}
"""What does not know the session's epoch, and asks instead."""


@pytest.mark.parametrize("name", UNKNOWING)
async def test_s23_what_has_no_epoch_and_is_not_wanted_any_more_writes_nothing(two: Two, name: str) -> None:
    before = await stored(two.other)

    async def refuse() -> None:
        raise StaleEpoch("given up")

    with pytest.raises(StaleEpoch, match="given up"):
        await UNKNOWING[name](two.late, NEW, refuse)
    assert await stored(two.other) == before


@pytest.mark.parametrize("backend_name", ["sqlite", "postgres"])
@pytest.mark.parametrize("name", ["create", "first message", "cancel of a first turn"])
async def test_s23_a_delete_waits_for_who_is_about_to_make_the_session(two: Two, name: str) -> None:
    """Else it would find nothing, and the session would be there after it."""
    asked_now, go_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        asked_now.set()
        await go_on.wait()

    makes = asyncio.create_task(UNKNOWING[name](two.late, NEW, wait))
    await asked_now.wait()
    deletes = asyncio.create_task(two.other.delete(NEW))
    if two.other._db.sqlite:
        await asyncio.sleep(0.05)  # its busy handler shows nobody that it waits
    else:
        await wait_for_a_lock(two.late)
    go_on.set()
    await makes
    assert await deletes, "it saw the session"
    with pytest.raises(SessionNotFound):
        await two.late.get(NEW)


async def late_write(two: Two, happening: str, write: str) -> None:
    """It is refused with a typed error and leaves no trace, wherever it could do harm."""
    before = await stored(two.other)
    refused: BaseException | None = None
    try:
        await WRITES[write](two.late, two.epoch)
    except PerdureError as error:
        refused = error
    check(refused, happening, write)
    if (write, happening) not in ALLOWED:
        assert await stored(two.other) == before


def check(refused: BaseException | None, happening: str, write: str) -> None:
    if (write, happening) in HARMLESS | ALLOWED:
        assert refused is None, refused
    elif happening == "delete":
        assert isinstance(refused, SessionNotFound)
    elif happening == "end":
        assert isinstance(refused, SessionEnded | StaleEpoch), refused
    elif write == "save":
        assert isinstance(refused, ArtifactNotFound), "what was staged for it went with its session"
    else:
        assert isinstance(refused, StaleEpoch), refused
