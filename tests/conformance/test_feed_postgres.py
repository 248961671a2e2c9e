"""The feed over PostgreSQL's notifications: its connection, what it loses, and what goes over the wire."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.types import SessionKey
from storage import feed_postgres
from storage.feed_postgres import PostgresFeed
from storage.feed_wire import Change, Piece, Pieces, Writer, read
from storage.sessions import SessionStore
from tests.conformance.conftest import Backend
from tests.conformance.events import event
from tests.conformance.test_feed import TEXT, answering, heard, said, settled, text_of, told, two, up_to
from tests.conformance.watch import last_words, until

ANY_TEXT = st.text(st.characters(codec=None), max_size=40)


@pytest.fixture
def backend_name() -> str:
    return "postgres"


async def cut(backend: Backend) -> int:
    """Cut the connections of all feeds on this database; how many there were."""
    connection = await asyncpg.connect(backend.url)
    try:
        found = await connection.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'perdure feed' AND datname = current_database()"
        )
        return len(found)
    finally:
        await connection.close()


async def connections(backend: Backend, name: str) -> int:
    """How many connections of this name the server has."""
    connection = await asyncpg.connect(backend.url)
    try:
        return int(
            await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity "
                "WHERE application_name = $1 AND datname = current_database()",
                name,
            )
        )
    finally:
        await connection.close()


async def test_a_cut_connection_sends_every_reader_to_the_log(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend)
    await writer.create(key)
    async with follower.feed.subscribe(key) as reader:
        await settled(writer, key, reader)
        silent = await backend.open()
        await silent.append(key, event("e1"))  # nobody is told of this one
        assert await cut(backend) == 2
        await told(reader, 1)


async def test_a_connection_whose_server_has_said_its_last_words_is_replaced(
    backend: Backend, key: SessionKey
) -> None:
    """Their end has not come yet, and asyncpg is in a state of its own."""
    writer, follower = await two(backend)
    await writer.create(key)
    async with follower.feed.subscribe(key) as reader:
        await settled(writer, key, reader)
        feed = writer.feed
        assert isinstance(feed, PostgresFeed)
        async with asyncio.timeout(30):
            await feed._idle.wait()
        assert feed._link is not None
        last_words(feed._link.connection)
        await writer.append(key, event("e1"))
        await told(reader)


async def test_an_answer_goes_on_after_a_cut_where_it_was(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend)
    async with follower.feed.subscribe(key) as reader:
        with writer.feed.preview(key, answering()) as preview:
            preview.add(said("before, "))
            found = await heard(reader, up_to("before, "))
            assert await cut(backend) == 2
            preview.add(said("meanwhile, "))
            preview.add(said(TEXT * 5000))
            await heard(reader, lambda more: text_of([*found, *more]).endswith(TEXT * 5000))
            preview.add(said(" and after"))
            rest = await heard(reader, lambda more: bool(more))
    assert rest[0].offset == len("before, meanwhile, ") + len(TEXT) * 5000


async def test_changes_wait_for_a_connection(
    backend: Backend, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, follower = await two(backend)
    feed = writer.feed
    assert isinstance(feed, PostgresFeed)
    connect, tried = feed._connect, asyncio.Event()

    async def refused() -> Any:
        tried.set()
        raise ConnectionRefusedError("nobody listens there")

    monkeypatch.setattr(feed, "_connect", refused)
    await writer.create(key)
    async with follower.feed.subscribe(key) as reader:
        await settled(follower, key, reader)
        # An append neither waits for the feed's connection nor fails with it.
        assert (await writer.append(key, event("e1"))).seq == 1
        await tried.wait()
        monkeypatch.setattr(feed, "_connect", connect)
        await told(reader)


async def test_a_piece_that_is_missed_is_said_again(
    backend: Backend, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, follower = await two(backend)
    feed = follower.feed
    assert isinstance(feed, PostgresFeed)
    pieces: list[str] = []
    missed = asyncio.Event()
    hear = feed._told

    def deaf_once(connection: Any, pid: int, channel: str, payload: str) -> None:
        pieces.append(payload)
        if len(pieces) != 2:
            hear(connection, pid, channel, payload)
        else:
            missed.set()

    monkeypatch.setattr(feed, "_told", deaf_once)
    async with feed.subscribe(key) as reader:
        with writer.feed.preview(key, answering()) as preview:
            preview.add(said("one "))
            found = await heard(reader, up_to("one "))
            preview.add(said("two "))
            async with asyncio.timeout(30):
                await missed.wait()
            preview.add(said("three"))
            await heard(reader, lambda more: text_of([*found, *more]) == "one two three")


async def test_one_that_does_not_announce_hears_and_is_not_heard(backend: Backend, key: SessionKey) -> None:
    writer, _ = await two(backend)
    quiet = await backend.open()
    await quiet.create(key)
    assert await connections(backend, "perdure feed") == 0
    async with quiet.feed.subscribe(key) as reader:
        await settled(writer, key, reader)
        with quiet.feed.preview(key, answering()) as preview:
            preview.add(said("unheard"))
            await quiet.append(key, event("e1"))
            await settled(writer, key, reader)
        assert not reader.take_change(0)
        await writer.append(key, event("e2"))
        await told(reader, 1)


async def test_s52_the_feed_takes_no_connection_of_the_pool(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend, pool_size=1, max_overflow=0)
    await writer.create(key)
    async with follower.feed.subscribe(key) as reader, follower.feed.subscribe(key):
        await settled(writer, key, reader)
        await asyncio.gather(*(follower.get(key) for _ in range(5)))
        assert await connections(backend, "perdure feed") == 2
        assert await connections(backend, "perdure") == 2


async def test_what_was_written_last_is_told_before_the_store_closes(
    backend: Backend, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_postgres, "FLUSH_WITHIN", 60.0)  # it has to connect first
    follower = await backend.open()
    async with follower.feed.subscribe(key) as reader:
        assert reader.take_change(0)
        for number in range(3):
            short_lived = await SessionStore.open(
                backend.url, backend.artifacts_url, options={"announce": True}
            )
            if number == 0:
                await short_lived.create(key)
            else:
                await short_lived.append(key, event(f"e{number}"))
            await short_lived.close()
            await told(reader, number - 1)

        async def one_is_left() -> bool:
            return await connections(backend, "perdure feed") == 1

        await until(one_is_left)  # the process behind one that was closed ends a little later


async def test_what_is_just_being_told_is_told_before_the_store_closes(
    backend: Backend, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed_postgres, "FLUSH_WITHIN", 60.0)
    writer, follower = await two(backend)
    feed = writer.feed
    assert isinstance(feed, PostgresFeed)
    async with follower.feed.subscribe(key) as reader:
        await settled(writer, key, reader)
        async with asyncio.timeout(60):
            await feed._idle.wait()
        tells, go_on, fetch = asyncio.Event(), asyncio.Event(), asyncpg.Connection.fetch

        async def held(connection: Any, *arguments: Any) -> Any:
            tells.set()
            await go_on.wait()
            return await fetch(connection, *arguments)

        monkeypatch.setattr(asyncpg.Connection, "fetch", held)
        await writer.create(key)
        await tells.wait()
        closing = asyncio.create_task(writer.close())
        await asyncio.wait([closing], timeout=0.2)
        go_on.set()
        await told(reader)
        await closing


async def test_channels_are_left_with_their_last_reader(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend)
    feed = follower.feed
    assert isinstance(feed, PostgresFeed)
    other = SessionKey(app=key.app, user_id="bob", session_id="s2")
    async with feed.subscribe(other) as stays:
        async with feed.subscribe(key), feed.subscribe(key):
            pass
        await settled(writer, other, stays)

        async def left() -> bool:
            return feed._link is not None and list(feed._link.channels) == [other]

        await until(left)  # by the feed's own task, which may be a step behind what its connection hears
        # Followed again, it is heard again.
        async with feed.subscribe(key) as reader:
            await settled(writer, key, reader)


async def test_a_thousand_sessions_are_followed_on_one_connection(backend: Backend) -> None:
    writer, follower = await two(backend)
    keys = [SessionKey(app="app", user_id="u", session_id=f"s{number}") for number in range(1000)]

    async def follow(key: SessionKey) -> None:
        async with follower.feed.subscribe(key) as reader:
            followed.release()
            await heard(reader, up_to(key.session_id))

    followed = asyncio.Semaphore(0)
    readers = [asyncio.create_task(follow(key)) for key in keys]
    for _ in keys:
        await followed.acquire()
    for key in keys:
        with writer.feed.preview(key, answering()) as preview:
            preview.add(said(key.session_id))
    await asyncio.gather(*readers)
    assert await connections(backend, "perdure feed") == 2


async def test_of_two_tries_at_an_answer_the_last_is_heard(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend)
    async with follower.feed.subscribe(key) as reader:
        for again in range(20):  # the two are told together, and in an order that must not be left to chance
            with writer.feed.preview(key, answering(after=again)) as preview:
                preview.add(said("x"))
            with writer.feed.preview(key, answering(after=again)) as preview:
                preview.add(said("last"))
                await heard(reader, lambda found: found[-1:] != [] and found[-1].parts == [{"text": "last"}])


async def test_the_feed_survives_a_channel_that_others_use(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend)
    feed = follower.feed
    assert isinstance(feed, PostgresFeed)
    async with feed.subscribe(key) as reader:
        await settled(writer, key, reader)
        assert feed._link is not None
        connection = await asyncpg.connect(backend.url)
        for payload in (
            "",
            "hello",
            "lx",
            "p{}",
            "p[1",
            "f",
            "f1/2",
            "fx/0/2:p",
            "fx/2/3:y",
            "p" + "[" * 7000,
        ):
            await connection.execute("SELECT pg_notify($1, $2)", feed._link.channels[key], payload)
        await connection.close()
        await settled(writer, key, reader)


# What goes over the wire


@given(st.lists(st.tuples(ANY_TEXT, st.booleans())), st.integers(1, 900), st.booleans())
def test_a_message_comes_out_of_its_notifications_as_it_went_in(
    texts: list[tuple[str, bool]], times: int, over: bool
) -> None:
    parts = [{"text": text * times, **({"thought": True} if thought else {})} for text, thought in texts]
    piece = Piece(answering=answering(), offset=7, parts=parts, over=over)
    pieces, payloads = Pieces(), list(Writer().piece(piece))
    assert all(payload.isascii() and 0 < len(payload) < 8000 for payload in payloads)
    *before, whole = [pieces.add(payload) for payload in payloads]
    assert before == [None] * (len(payloads) - 1)
    assert whole is not None
    assert read(whole) == piece


@given(st.integers(0, 3), st.integers(1, 3))
def test_a_message_whose_beginning_or_midst_was_missed_is_left_out(missed: int, count: int) -> None:
    writer, pieces = Writer(), Pieces()
    long = Piece(answering=answering(), offset=0, parts=[{"text": "x" * 30_000}], over=False)
    payloads = list(writer.piece(long))
    assert len(payloads) == 4
    assert [pieces.add(payload) for payload in payloads[:missed] + payloads[missed + count :]][-1:] in (
        [None],
        [],
    )
    again = [pieces.add(payload) for payload in writer.piece(long)]
    assert again[-1] is not None
    assert read(again[-1]) == long


@pytest.mark.parametrize("seq", [None, 1, 2**53])
def test_a_change_goes_over_the_wire(seq: int | None) -> None:
    [payload] = Writer().change(seq)
    assert read(payload) == Change(seq)
