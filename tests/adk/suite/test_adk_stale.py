"""Sessions that somebody else changed meanwhile; and the way to the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from google.adk.errors import StaleSessionError
from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.genai import types

from integrations.google_adk import PerdureArtifactService, PerdureSessionService
from perdure.errors import InvalidOption, SessionEnded
from perdure.types import Event as LogEvent
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.adk.suite.conftest import Database

WHO: dict[str, Any] = {"app_name": "shop", "user_id": "ada", "session_id": "s1"}
KEY = SessionKey(app="shop", user_id="ada", session_id="s1")


def said(text: str, **delta: object) -> Event:
    return Event(invocation_id="i1", author="user", message=text, actions=EventActions(state_delta=delta))


async def read(service: PerdureSessionService) -> Session:
    found = await service.get_session(**WHO)
    assert found is not None
    return found


def slipping_in(monkeypatch: pytest.MonkeyPatch, method: str, act: Callable[[], Awaitable[object]]) -> None:
    """Let something happen just before the store is next asked to write."""
    original = getattr(SessionStore, method)

    async def late(self: SessionStore, *args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        await act()
        return await original(self, *args, **options)

    monkeypatch.setattr(SessionStore, method, late)


async def test_a_session_changed_by_another_process_is_refused(database: Database) -> None:
    one, two = database.service(), database.service()
    mine = await one.create_session(**WHO)
    theirs = await read(two)
    await one.append_event(mine, said("first", n=1))
    with pytest.raises(StaleSessionError, match="s1"):
        await two.append_event(theirs, said("second", n=2))
    assert (theirs.state, theirs.events) == ({}, [])
    assert (await read(two)).state == {"n": 1}
    await two.append_event(await read(two), said("second", n=2))
    with pytest.raises(StaleSessionError):
        await one.append_event(mine, said("third", n=3))
    assert (await read(one)).state == {"n": 2}


async def test_of_two_copies_one_is_refused_also_at_the_same_time(ours: PerdureSessionService) -> None:
    session = await ours.create_session(**WHO)
    for number in range(3):
        copies = [session.model_copy(deep=True) for _ in range(2)]
        appends = (ours.append_event(copy, said("x", **{f"k{number}": 1})) for copy in copies)
        done = await asyncio.gather(*appends, return_exceptions=True)
        (refused,) = [result for result in done if isinstance(result, Exception)]
        assert isinstance(refused, StaleSessionError)
        assert "modified in storage" in str(refused)
        session = await read(ours)
        assert session.model_dump() in [copy.model_dump() for copy in copies]
    assert len(session.events) == len(session.state) == 3


async def test_s10_writers_that_read_again_lose_no_key(database: Database) -> None:
    first = database.service()
    await first.create_session(**WHO)

    async def write(service: PerdureSessionService, name: str) -> None:
        for number in range(15):
            event = said("x", **{f"{name}{number}": True})
            while True:
                try:
                    await service.append_event(await read(service), event)
                    break
                except StaleSessionError:
                    continue

    await asyncio.gather(*(write(database.service(), name) for name in "abc"))
    session = await read(first)
    assert len(session.state) == len(session.events) == 45


async def test_saving_files_makes_no_session_stale(ours: PerdureSessionService) -> None:
    session = await ours.create_session(**WHO)
    for number in range(3):
        await ours.artifacts.save_artifact(**WHO, filename="a", artifact=types.Part(text="x"))
        await ours.append_event(session, said(str(number)))
    assert len((await read(ours)).events) == 3


async def test_a_change_by_an_administrator_makes_it_stale(database: Database) -> None:
    service, store = database.service(), await database.store()
    session = await service.create_session(**WHO)
    await store.update(KEY, request_id="r1", metadata={"vip": True})
    await service.append_event(session, said("fine"))
    await store.update(KEY, request_id="r2", state={"n": 1})
    with pytest.raises(StaleSessionError):
        await service.append_event(session, said("late"))
    assert (await read(service)).state == {"n": 1}


async def test_a_turn_of_perdures_own_takes_it_over(database: Database) -> None:
    service, store = database.service(), await database.store()
    session = await service.create_session(**WHO)
    message = LogEvent(id="m:user", invocation_id="m", author="user")
    await store.begin_turn(KEY, message, epoch=None)
    with pytest.raises(StaleSessionError):
        await service.append_event(session, said("late"))
    await store.end(KEY)
    with pytest.raises(SessionEnded):
        await service.append_event(await read(service), said("late"))


async def test_a_session_that_was_made_again_is_another(ours: PerdureSessionService) -> None:
    session = await ours.create_session(**WHO)
    await ours.append_event(session, said("one"))
    await ours.delete_session(**WHO)
    await ours.create_session(**WHO)
    with pytest.raises(StaleSessionError):
        await ours.append_event(session, said("two"))
    assert (await read(ours)).events == []


async def test_a_session_that_came_as_json_is_taken_if_it_is_current(ours: PerdureSessionService) -> None:
    def copied(session: Session) -> Session:
        return Session.model_validate_json(session.model_dump_json())

    created = await ours.create_session(**WHO)
    fresh = copied(created)
    await ours.append_event(fresh, said("one"))
    old = copied(fresh)
    await ours.append_event(old, said("two"))
    for outdated in (copied(fresh), copied(created)):
        with pytest.raises(StaleSessionError):
            await ours.append_event(outdated, said("three"))
    assert len((await read(ours)).events) == 2


async def test_an_append_that_was_committed_but_not_heard_of(
    ours: PerdureSessionService, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await ours.create_session(**WHO)
    append = SessionStore.append

    async def lost(self: SessionStore, *args: Any, **options: Any) -> Any:
        await append(self, *args, **options)
        raise ConnectionResetError

    event = said("once", n=1)
    with monkeypatch.context() as patch:
        patch.setattr(SessionStore, "append", lost)
        with pytest.raises(ConnectionResetError):
            await ours.append_event(session, event)
    assert (session.events, session.state) == ([], {})
    for _ in range(2):
        await ours.append_event(session, event)
    assert session.events == [event]
    assert session.model_dump() == (await read(ours)).model_dump()
    await ours.append_event(session, said("more", n=2))


async def test_a_writer_who_slips_in_between_makes_it_stale(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = database.service(), database.service()
    mine = await one.create_session(**WHO)
    theirs = await read(two)
    slipping_in(monkeypatch, "append", lambda: two.append_event(theirs, said("between", a=1)))
    with pytest.raises(StaleSessionError):
        await one.append_event(mine, said("first", b=1))
    assert (mine.events, mine.state) == ([], {})
    assert (await read(one)).state == {"a": 1}


async def test_a_file_that_slips_in_between_does_not(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = database.service(), database.service()
    mine = await one.create_session(**WHO)
    part = types.Part(text="x")
    slipping_in(
        monkeypatch, "append", lambda: two.artifacts.save_artifact(**WHO, filename="a", artifact=part)
    )
    await one.append_event(mine, said("first", b=1))
    await one.append_event(mine, said("second", c=1))
    assert (await read(one)).state == {"b": 1, "c": 1}


async def test_a_writer_who_slips_in_before_a_rewind_makes_it_stale(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = database.service(), database.service()
    mine = await one.create_session(**WHO)
    await one.append_event(mine, said("first", n=1))
    theirs = await read(two)
    slipping_in(monkeypatch, "rewind", lambda: two.append_event(theirs, said("between", n=2)))
    back = Event(invocation_id="r1", author="user", actions=EventActions(rewind_before_invocation_id="i1"))
    with pytest.raises(StaleSessionError):
        await one.append_event(mine, back)
    assert (await read(one)).state == {"n": 2}


# The way to the store


def test_a_url_or_a_store_but_one_of_them() -> None:
    for service in (PerdureSessionService, PerdureArtifactService):
        with pytest.raises(InvalidOption, match="either"):
            service()
    with pytest.raises(InvalidOption, match="pool_sizes"):
        PerdureSessionService("sqlite://", options={"pool_sizes": 1})


async def test_a_store_that_is_open_stays_open(database: Database) -> None:
    store = await database.store()
    service = PerdureSessionService(store=store)
    await service.create_session(**WHO)
    await service.artifacts.save_artifact(**WHO, filename="a", artifact=types.Part(text="x"))
    await service.close()
    assert [artifact.name for artifact in await store.list_artifacts(KEY)] == ["a"]
    await store.close()


async def test_the_store_is_made_on_first_use_and_opened_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    open_store = SessionStore.open

    async def count(*args: Any, **options: Any) -> SessionStore:
        opened.append(args)
        return await open_store(*args, **options)

    monkeypatch.setattr(SessionStore, "open", count)
    # As DatabaseSessionService has it, with the driver in it.
    url, artifacts = f"sqlite+aiosqlite:///{tmp_path}/new/adk.db", f"file://{tmp_path}/artifacts"
    async with PerdureSessionService(url, artifacts) as service:
        names = [f"s{number}" for number in range(5)]
        made = [service.create_session(app_name="a", user_id="u", session_id=name) for name in names]
        await asyncio.gather(*made)
        await service.artifacts.list_artifact_keys(app_name="a", user_id="u", session_id="s0")
        assert len(opened) == 1
        await service.close()
        assert len((await service.list_sessions(app_name="a")).sessions) == 5
    assert len(opened) == 2


async def test_what_cannot_be_opened_can_be_tried_again(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, no folder")
    service = PerdureSessionService(f"sqlite:///{tmp_path}/taken/adk.db", f"file://{tmp_path}/artifacts")
    with pytest.raises(OSError, match="taken"):
        await service.create_session(**WHO)
    (tmp_path / "taken").unlink()
    await service.create_session(**WHO)
    await service.close()


async def test_artifacts_from_a_service_of_their_own(database: Database) -> None:
    await database.service().create_session(**WHO)
    artifacts = PerdureArtifactService(database.url, database.artifacts_url)
    await artifacts.save_artifact(**WHO, filename="a", artifact=types.Part(text="x"))
    await artifacts.close()
    assert await database.service().artifacts.list_artifact_keys(**WHO) == ["a"]


async def test_in_memory(tmp_path: Path) -> None:
    async with PerdureSessionService("sqlite://", "memory://adk-in-memory") as service:
        session = await service.create_session(**WHO)
        await service.append_event(session, said("one", n=1))
        assert (await read(service)).state == {"n": 1}
