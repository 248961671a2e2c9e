"""Who follows a session hears of it: within a process on SQLite, across processes on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from perdure.types import Event, JsonObject, SessionKey
from storage import follow_store
from storage.feed import LONGEST, Answering, Partial, Subscription
from storage.sessions import SessionStore, SessionUpdate
from tests.conformance.conftest import Backend
from tests.conformance.events import event

FOR_EVER = 3600.0
TEXT = "héllo 漢字 🌍 "


async def two(backend: Backend, **options: Any) -> tuple[SessionStore, SessionStore]:
    """A store that writes and one that follows: two processes, as far as the database can tell."""
    writer = await backend.open(announce=True, **options)
    return writer, writer if backend.name == "memory" else await backend.open(announce=True, **options)


async def told(reader: Subscription, seen: int = 0) -> None:
    """Return once the reader was told that there is something to read."""
    async with asyncio.timeout(30):
        while not reader.take_change(seen):
            await reader.wait(FOR_EVER)


async def heard(reader: Subscription, enough: Callable[[list[Partial]], bool]) -> list[Partial]:
    """What the reader hears of answers, until it is enough."""
    found: list[Partial] = []
    async with asyncio.timeout(60):
        while not enough(found):
            partial = reader.partial()
            if partial is None:
                await reader.wait(FOR_EVER)
            else:
                reader.take(partial)
                found.append(partial)
    return found


def text_of(partials: Sequence[Partial]) -> str:
    """What a client has on its screen after these."""
    shown = ""
    for partial in partials:
        assert partial.offset <= len(shown), "a gap"
        shown = shown[: partial.offset] + "".join(part["text"] for part in partial.parts)
    return shown


def up_to(text: str) -> Callable[[list[Partial]], bool]:
    """Enough is what a client shows this text after."""
    return lambda found: text_of(found) == text


async def settled(writer: SessionStore, key: SessionKey, reader: Subscription) -> None:
    """Return once the reader has been told of all that was written so far, and has looked."""
    with writer.feed.preview(key, answering(epoch=0)) as preview:
        for text in ("1", "2"):
            preview.add(said(text))
            await heard(reader, lambda found: bool(found))
    reader.take_change(0)


def answering(*, attempt: int = 1, after: int = 1, epoch: int = 1, step: int = 1) -> Answering:
    return Answering(
        event_id=f"m1:m{step}", invocation_id="m1", author="bot", epoch=epoch, after=after, attempt=attempt
    )


def said(text: str, **more: Any) -> JsonObject:
    return {"role": "model", "parts": [{"text": text, **more}]}


# Changes

WRITES: dict[str, Callable[[SessionStore, SessionKey], Awaitable[object]]] = {
    "append": lambda store, key: store.append(key, event("e2")),
    "append of a summary": lambda store, key: store.append(
        key, event("c1", compaction={"start": 1, "end": 1, "tail": 1})
    ),
    "begin_turn": lambda store, key: store.begin_turn(key, event("m2:user"), epoch=None),
    "interrupt": lambda store, key: store.interrupt(key, "i1", epoch=None, reason="test"),
    "rewind": lambda store, key: store.rewind(key, before="i1", request_id="r1"),
    "update": lambda store, key: store.update(key, request_id="u1", state={"a": 1}),
    "batch": lambda store, key: store.batch_update([SessionUpdate(key=key, request_id="u1", state={"a": 1})]),
    "atomic batch": lambda store, key: store.batch_update(
        [SessionUpdate(key=key, request_id="u1", state={"a": 1})], atomic=True
    ),
    "end": lambda store, key: store.end(key),
    "delete": lambda store, key: store.delete(key),
}


@pytest.mark.parametrize("kind", WRITES)
async def test_every_write_is_told(backend: Backend, key: SessionKey, kind: str) -> None:
    writer, follower = await two(backend)
    await writer.create(key)
    await writer.append(key, event("i1:e1"))
    async with follower.feed.subscribe(key) as reader:
        await settled(writer, key, reader)
        await WRITES[kind](writer, key)
        await told(reader, 1)


async def test_a_reader_is_sent_to_the_log_when_it_begins(backend: Backend, key: SessionKey) -> None:
    _, follower = await two(backend)
    async with follower.feed.subscribe(key) as reader:
        assert reader.take_change(0)


async def test_a_reader_hears_of_its_own_session_alone(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend)
    other = SessionKey(app=key.app, user_id="bob", session_id=key.session_id)
    async with follower.feed.subscribe(key) as reader, follower.feed.subscribe(other) as others:
        assert reader.take_change(0)
        assert others.take_change(0)
        await writer.create(other)
        await told(others)
        with writer.feed.preview(other, answering()) as preview:
            preview.add(said("for bob"))
            await heard(others, up_to("for bob"))
        assert reader.partial() is None


async def test_changes_that_come_late_or_twice_send_nobody_to_the_log(
    backend: Backend, key: SessionKey
) -> None:
    _, follower = await two(backend)
    async with follower.feed.subscribe(key) as reader:
        assert reader.take_change(0)
        for seq in (7, 5, 7, 6):
            reader.note(seq)
        assert reader.take_change(6)
        assert not reader.take_change(7)
        reader.note(None)
        assert reader.take_change(7)
        assert not reader.take_change(7)


async def test_a_reader_that_is_told_nothing_looks_by_its_own_clock(
    backend: Backend, key: SessionKey
) -> None:
    _, follower = await two(backend)
    async with follower.feed.subscribe(key) as reader:
        assert reader.take_change(0)
        async with asyncio.timeout(30):
            while not reader.take_change(0):
                await reader.wait(0.001)


# Partials


async def test_s5_a_partial_is_heard_and_not_stored(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend)
    before = await writer.create(key)
    async with follower.feed.subscribe(key) as reader:
        with writer.feed.preview(key, answering()) as preview:
            preview.add(said("Hel"))
            first = await heard(reader, up_to("Hel"))
            preview.add(said("lo"))
            rest = await heard(reader, lambda found: text_of([*first, *found]) == "Hello")
    assert first[0].answering == answering()
    assert [partial.offset for partial in rest] == [3]
    assert rest[0].content == said("lo")
    assert await writer.get(key) == before
    assert await writer.log(key) == []


async def test_thoughts_are_told_from_answers_and_the_rest_is_left_out(
    backend: Backend, key: SessionKey
) -> None:
    writer, follower = await two(backend)
    async with follower.feed.subscribe(key) as reader:
        with writer.feed.preview(key, answering()) as preview:
            preview.add(
                {"parts": [{"text": "hm", "thought": True}, {"text": "so", "thoughtSignature": "xx"}]}
            )
            preview.add(
                {"parts": [{"functionCall": {"name": "f"}}, {"text": ""}, {"inlineData": {"data": "x"}}]}
            )
            preview.add({"role": "model"})
            preview.add(said("!"))
            found = await heard(reader, up_to("hmso!"))
    parts = [part for partial in found for part in partial.parts]
    assert "".join(part["text"] for part in parts if part.get("thought")) == "hm"
    assert "".join(part["text"] for part in parts if not part.get("thought")) == "so!"
    assert all(part.keys() <= {"text", "thought"} for part in parts)


async def test_what_was_said_before_the_reader_came_is_told_first(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend)
    with writer.feed.preview(key, answering()) as preview:
        preview.add(said("It was "))
        async with follower.feed.subscribe(key) as early:
            await heard(early, up_to("It was "))
            preview.add(said("a dark "))
            async with follower.feed.subscribe(key) as late:
                await heard(late, up_to("It was a dark "))
                preview.add(said("night"))
                await heard(late, lambda found: bool(found) and found[-1].parts[-1]["text"].endswith("night"))


async def test_thousands_of_chunks_arrive_whole_and_in_order(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend)
    chunks = [f"{number} {TEXT}" for number in range(3000)]
    async with follower.feed.subscribe(key) as reader:
        with writer.feed.preview(key, answering()) as preview:
            listening = asyncio.create_task(heard(reader, up_to("".join(chunks))))
            for number, chunk in enumerate(chunks):
                preview.add(said(chunk))
                if number % 50 == 0:
                    await asyncio.sleep(0)
            found = await listening
    assert {partial.answering for partial in found} == {answering()}


async def test_the_same_chunk_twice_is_not_one(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend)
    async with follower.feed.subscribe(key) as reader:
        with writer.feed.preview(key, answering()) as preview:
            preview.add(said("ha"))
            await heard(reader, up_to("ha"))
            preview.add(said("ha"))
            preview.add(said("ha"))
            await heard(reader, lambda found: "".join(p.parts[0]["text"] for p in found) == "haha")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(TEXT * 20_000, id="far more than a notification holds"),
        pytest.param("\x00\x1f\"\\\r\n\u2028' $1 %s", id="characters that mean something on the way"),
    ],
)
async def test_any_text_arrives_as_it_was(backend: Backend, key: SessionKey, text: str) -> None:
    writer, follower = await two(backend)
    async with follower.feed.subscribe(key) as reader:
        with writer.feed.preview(key, answering()) as preview:
            preview.add(said(text))
            await heard(reader, up_to(text))


async def test_halves_of_a_character_in_two_chunks_become_one(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend)
    async with follower.feed.subscribe(key) as reader:
        with writer.feed.preview(key, answering()) as preview:
            preview.add(said("\ud83c"))
            first = await heard(reader, up_to("\ud83c"))
            preview.add(said("\udf0d"))
            second = await heard(reader, lambda found: bool(found))
    assert text_of([*first, *second]).encode("utf-16", "surrogatepass").decode("utf-16") == "🌍"


async def test_a_reader_that_is_slow_gets_the_rest_in_one_piece(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend)
    async with follower.feed.subscribe(key) as slow, follower.feed.subscribe(key) as quick:
        with writer.feed.preview(key, answering()) as preview:
            for _ in range(1000):
                preview.add(said(TEXT))  # nothing here could wait for a reader
            await heard(quick, up_to(TEXT * 1000))
            found = await heard(slow, up_to(TEXT * 1000))
    assert len(found) == 1


async def test_an_answer_without_end_is_shown_up_to_a_limit(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend)
    async with follower.feed.subscribe(key) as reader:
        with writer.feed.preview(key, answering()) as preview:
            for _ in range(LONGEST // 100_000 + 5):
                preview.add(said("x" * 100_000))
            await heard(reader, up_to("x" * LONGEST))
            preview.add(said("more"))
            assert reader.partial() is None


async def test_another_attempt_begins_the_answer_again(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend)
    async with follower.feed.subscribe(key) as reader:
        with writer.feed.preview(key, answering(attempt=1)) as first:
            first.add(said("I thi"))
            before = await heard(reader, up_to("I thi"))
            with writer.feed.preview(key, answering(attempt=2)) as second:
                second.add(said("I know"))
                after = await heard(reader, lambda found: text_of([*before, *found]) == "I know")
                # An attempt that was given up talks on; nobody hears it any more.
                first.add(said("nk not"))
                second.add(said("!"))
                last = await heard(reader, lambda found: text_of([*before, *after, *found]) == "I know!")
    assert after[0].offset == 0
    assert {partial.answering.attempt for partial in [*after, *last]} == {2}


@pytest.mark.parametrize(
    "later", [{"attempt": 2}, {"after": 3, "step": 2}, {"epoch": 2}, {"epoch": 2, "after": 0, "attempt": 0}]
)
async def test_what_is_over_never_takes_the_place_of_what_came_later(
    backend: Backend, key: SessionKey, later: dict[str, int]
) -> None:
    writer, follower = await two(backend)
    async with follower.feed.subscribe(key) as reader:
        with writer.feed.preview(key, answering(**later)) as newer:
            newer.add(said("new"))
            await heard(reader, up_to("new"))
            with writer.feed.preview(key, answering()) as older:
                older.add(said("old"))
                newer.add(said("er"))
                found = await heard(reader, lambda found: bool(found))
    assert {partial.answering for partial in found} == {answering(**later)}


async def test_what_is_over_is_not_told_to_who_comes_later(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend)
    async with follower.feed.subscribe(key) as early:
        with writer.feed.preview(key, answering()) as preview:
            preview.add(said("done"))
            await heard(early, up_to("done"))
        # The next answer is told after the end of this one.
        with writer.feed.preview(key, answering(after=2, step=2)) as preview:
            preview.add(said("next"))
            await heard(early, lambda found: bool(found))
        async with follower.feed.subscribe(key) as late:
            with writer.feed.preview(key, answering(after=3, step=3)) as preview:
                preview.add(said("third"))
                found = await heard(late, lambda found: bool(found) and found[-1].answering.after == 3)
    assert {partial.answering.after for partial in found} <= {2, 3}
    assert text_of([partial for partial in found if partial.answering.after == 3]) == "third"


async def test_a_hundred_readers_of_one_session(backend: Backend, key: SessionKey) -> None:
    writer, follower = await two(backend)
    await writer.create(key)

    async def follow() -> tuple[str, list[str]]:
        async with follower.feed.subscribe(key) as reader:
            ready.release()
            partials = await heard(reader, up_to(TEXT * 20))
            heard_all.release()
            await told(reader)
            seen: list[Event] = []
            while not seen:
                seen = (await follower.news(key, after=0)).events
                if not seen:
                    await reader.wait(FOR_EVER)
            return text_of(partials), [item.id for item in seen]

    ready, heard_all = asyncio.Semaphore(0), asyncio.Semaphore(0)
    readers = [asyncio.create_task(follow()) for _ in range(100)]
    for _ in readers:
        await ready.acquire()
    with writer.feed.preview(key, answering()) as preview:
        for _ in range(20):
            preview.add(said(TEXT))
        for _ in readers:
            await heard_all.acquire()
    await writer.append(key, event("m1:m1"))
    assert await asyncio.gather(*readers) == [(TEXT * 20, ["m1:m1"])] * 100


async def test_readers_that_ask_at_once_share_a_read(
    backend: Backend, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await backend.open()
    await store.create(key)
    reads: list[int] = []
    read = follow_store._news

    async def counted(conn: Any, key: SessionKey, after: int) -> Any:
        reads.append(after)
        return await read(conn, key, after)

    monkeypatch.setattr(follow_store, "_news", counted)
    await asyncio.gather(*(store.news(key, after=0) for _ in range(100)))
    assert reads == [0]
    # One that asks later may have been told of what that read did not see.
    first = asyncio.create_task(store.news(key, after=0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await asyncio.gather(first, store.news(key, after=0))
    assert len(reads) == 3


async def test_one_reader_that_goes_does_not_take_the_read_from_the_others(
    backend: Backend, key: SessionKey
) -> None:
    store = await backend.open()
    await store.create(key)
    gone, stays = (asyncio.create_task(store.news(key, after=0)) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).session.key == key
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_news_pages_through_a_long_log(backend: Backend, key: SessionKey) -> None:
    store = await backend.open()
    await store.create(key)
    for number in range(follow_store.PAGE + 3):
        await store.append(key, event(f"e{number}"))
    first = await store.news(key, after=0)
    assert (len(first.events), first.more) == (follow_store.PAGE, True)
    rest = await store.news(key, after=first.events[-1].seq)
    assert (len(rest.events), rest.more) == (3, False)
    nothing = await store.news(key, after=rest.events[-1].seq)
    assert (nothing.events, nothing.more) == ([], False)


async def test_place_of_an_invocation(backend: Backend, key: SessionKey) -> None:
    store = await backend.open()
    assert await store.place_of(key, "i1") == 0
    await store.create(key)
    await store.append(key, event("i0:e1"))
    await store.append(key, event("i1:e2"))
    await store.append(key, event("i1:e3"))
    assert await store.place_of(key, "i1") == 1
    assert await store.place_of(key, "i9") == 3
