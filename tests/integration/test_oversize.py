"""What is too large for a prompt: results, pasted books, pictures, through the real client."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from activities.oversize import READ_ARTIFACT, begin_turn
from embedded.temporal import TemporalServer
from perdure import Agent, Limits, tool
from perdure.errors import EventConflict, InvalidMessage, InvocationRewound
from perdure.settings import Settings
from perdure.testing import Request, call, say
from perdure.types import Event, JsonObject, SessionKey
from storage.blob_keys import is_message, prefix_of
from storage.sessions import SessionStore
from tests.integration.harness import World, open_world

PNG = Random(7).randbytes(300_000)
BOOK = "".join(f"Chapter {n}: the whale was seen {n} times.\n" for n in range(30_000))


@tool
def dump(size: int) -> str:
    """Return a long text.

    Args:
        size: how many characters.
    """
    return "".join(f"row {n}\n" for n in range(size // 6))[:size]


@tool
def look() -> dict[str, object]:
    """Return a picture."""
    return {"caption": "a cat", "image": picture(PNG)}


@tool
def explode_at_length() -> str:
    """Raise a very long error."""
    raise RuntimeError("because " * 50_000)


AGENTS = [
    Agent("reader", instruction="Read.", tools=[dump, look, explode_at_length]),
    Agent("plain", instruction="Listen."),
    Agent("tight", instruction="Look.", limits=Limits(media_chars=900_000)),
]


def picture(data: bytes, **fields: object) -> JsonObject:
    return {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(data).decode()}, **fields}


@pytest_asyncio.fixture
async def world(temporal: TemporalServer, store: SessionStore) -> AsyncIterator[World]:
    async with open_world(temporal.address, store, AGENTS) as opened:
        yield opened


@pytest_asyncio.fixture
async def forgetful_world(temporal: TemporalServer, store: SessionStore) -> AsyncIterator[World]:
    """Its worker remembers no media."""
    settings = Settings(_env_file=None, media_cache=0)
    async with open_world(temporal.address, store, AGENTS, settings=settings) as opened:
        yield opened


def asked(world: World) -> list[Request]:
    return world.gemini.model_calls()


def size_of(value: object) -> int:
    return len(json.dumps(value))


def told(request: Request) -> list[JsonObject]:
    """The responses of the last content."""
    return [part["functionResponse"]["response"] for part in request.contents[-1]["parts"]]


async def history(world: World, key: SessionKey) -> bytes:
    found = await world.handle(key).fetch_history()
    return b"".join(event.SerializeToString() for event in found.events)


async def largest_event(world: World, key: SessionKey) -> int:
    """Characters of the largest content in the log."""
    return max(size_of(event.content) for event in await world.log(key))


async def waiting(world: World, key: SessionKey) -> list[str]:
    """The messages of the user that nobody has taken."""
    blobs = world.store._blobs
    return [blob for blob in await blobs.keys(prefix_of(key)) if is_message(blob)]


async def names(world: World, key: SessionKey) -> list[str]:
    return [row.name for row in await world.store.list_artifacts(key)]


async def test_a_result_of_2_mb_is_read_piece_by_piece(world: World) -> None:
    key = world.key("reader")
    text = dump(2_000_000)
    name = "results/m1-1.0.txt"
    world.gemini.script(
        call("dump", size=2_000_000),
        [call(READ_ARTIFACT, name=name, start=1_000_000, length=50), call(READ_ARTIFACT, name="nothing")],
        say("it says row"),
    )
    answer = await world.runner.ask(key, "dump it", message_id="m1")
    assert answer.text == "it says row"
    first, second, third = asked(world)
    assert READ_ARTIFACT in first.tools
    [result] = told(second)
    assert (result["artifact"], result["version"], result["characters"]) == (name, 1, 2_000_000)
    assert text.startswith(result["head"])
    assert text.endswith(result["tail"])
    assert size_of(second.body) < size_of(first.body) + 10_000
    read, missing = told(third)
    assert read["text"] == text[1_000_000:1_000_050]
    assert (read["characters"], read["next_start"]) == (2_000_000, 1_000_050)
    assert name in missing["error"]
    assert third.contents[: len(second.contents)] == second.contents
    assert (await world.store.load_artifact(key, name))[1] == text.encode()
    assert await largest_event(world, key) < 10_000
    seen = await history(world, key)
    assert b"row 1" not in seen
    assert len(seen) < 20_000


async def test_what_the_tool_reads_is_never_put_away_again(world: World) -> None:
    key = world.key("reader")
    name = "results/m1-1.0.txt"
    world.gemini.script(call("dump", size=100_000), call(READ_ARTIFACT, name=name), say("done"))
    await world.runner.ask(key, "dump it", message_id="m1")
    [page] = told(asked(world)[-1])
    assert page["text"] == dump(100_000)[:32_000]
    assert page["next_start"] == 32_000
    assert await names(world, key) == [name]


async def test_a_picture_in_a_result_and_an_error_that_goes_on_and_on(world: World) -> None:
    key = world.key("reader")
    world.gemini.script([call("look"), call("explode_at_length")], say("seen"))
    await world.runner.ask(key, "look", message_id="m1")
    seen, failed = told(asked(world)[-1])
    assert seen["caption"] == "a cat"
    assert seen["image"]["bytes"] == len(PNG)
    assert (await world.store.load_artifact(key, seen["image"]["artifact"]))[1] == PNG
    assert failed["error"].startswith("RuntimeError: because because")
    assert failed["artifact"] == "results/m1-1.1.txt"
    assert max(size_of([event.content, event.error]) for event in await world.log(key)) < 10_000


async def test_a_book_in_a_message(world: World) -> None:
    key = world.key("plain")
    assert len(BOOK) > 1_000_000
    world.gemini.script(say("hello"), say("a book"), say("what of it?"))
    await world.runner.ask(key, "hi", message_id="m0")
    answer = await world.runner.ask(key, BOOK, message_id="m1")
    assert await waiting(world, key) == [], "what was taken is not kept twice"
    again = await world.runner.ask(key, BOOK, message_id="m1")
    assert await waiting(world, key) == []
    assert (again.text, again.seq) == (answer.text, answer.seq)
    with pytest.raises(EventConflict):
        await world.runner.ask(key, BOOK + "The end.", message_id="m1")
    with pytest.raises(EventConflict):
        await world.runner.ask(key, "something short", message_id="m1")
    await world.runner.ask(key, "well?", message_id="m2")
    before, first, second = asked(world)
    assert before.tools == [], "an agent without tools is sent none until there is something to read"
    assert first.tools == second.tools == [READ_ARTIFACT]
    text = first.last_user_text
    assert text.startswith("[")
    assert BOOK[:2_000] in text
    assert text.endswith(BOOK[-1_000:])
    assert f'{READ_ARTIFACT}(name="messages/m1-0.txt", version=1, start=2000)' in text
    assert size_of(first.body) < 10_000
    assert second.contents[: len(first.contents)] == first.contents
    assert (await world.store.load_artifact(key, "messages/m1-0.txt"))[1] == BOOK.encode()
    assert await largest_event(world, key) < 10_000
    assert b"whale" not in await history(world, key)


async def test_a_first_message_that_is_a_book_and_one_without_a_waiting_caller(world: World) -> None:
    key = world.key("plain")
    world.gemini.script(say("one"), say("two"))
    assert (await world.runner.ask(key, BOOK)).text == "one"
    message_id = await world.runner.message(key, content={"parts": [{"text": BOOK}, {"text": "Sum it up."}]})
    assert (
        await world.runner.ask(
            key, content={"parts": [{"text": BOOK}, {"text": "Sum it up."}]}, message_id=message_id
        )
    ).text == "two"
    assert asked(world)[-1].last_user_text.endswith("Sum it up.")


async def test_a_message_that_nobody_takes_and_one_that_is_gone(world: World) -> None:
    key = world.key("plain")
    with pytest.raises(InvalidMessage, match="20000000"):
        await world.runner.ask(key, "x" * 20_000_001)
    world.gemini.script(say("hello"))
    await world.runner.ask(key, "hi")
    for blob in ("no/such/blob", "../../etc/passwd", "x" * 2_000):
        with pytest.raises(Exception, match="update") as refused:
            await world.handle(key).execute_update("ask", {"blob": blob})
        assert "InvalidMessage" in repr(refused.value.__cause__)
    other = SessionKey(app="plain", user_id="somebody-else", session_id="s")
    theirs = await world.store.leave_message(other, "m1", {"parts": [{"text": "secret"}]})
    with pytest.raises(Exception, match="update"):
        await world.handle(key).execute_update("ask", {"blob": theirs, "message_id": "m1"})
    lost = await world.store.leave_message(key, "m2", {"parts": [{"text": "lost"}]})
    await world.store.forget_message(key, lost)
    with pytest.raises(Exception, match="update") as refused:
        await world.handle(key).execute_update("ask", {"blob": lost, "message_id": "m2"})
    assert "send it again" in repr(refused.value.__cause__)
    assert "secret" not in json.dumps([event.content for event in await world.log(key)])
    world.gemini.script(say("still here"))
    assert (await world.runner.ask(key, "are you there?")).text == "still here"


async def test_a_picture_is_seen_in_every_prompt_and_is_in_no_event(world: World) -> None:
    key = world.key("plain")
    shown = picture(PNG, thoughtSignature="c2ln", mediaResolution={"level": "MEDIA_RESOLUTION_HIGH"})
    content = {"role": "user", "parts": [{"text": "What is this?"}, shown]}
    world.gemini.script(say("noise"), say("certain"))
    await world.runner.ask(key, content=content, message_id="m1")
    await world.runner.ask(key, "are you sure?", message_id="m2")
    first, second = asked(world)
    assert json.dumps(first.contents) == json.dumps([content])
    assert json.dumps(second.contents[0]) == json.dumps(content)
    assert second.tools == [], "a picture is nothing to read"
    assert (await world.store.load_artifact(key, "messages/m1-1.png"))[1] == PNG
    assert await largest_event(world, key) < 2_000
    data = shown["inlineData"]["data"].encode()
    assert data[:200] not in await history(world, key)
    again = await world.runner.ask(key, content=content, message_id="m1")
    assert again.text == "noise"
    assert len(asked(world)) == 2


async def test_a_file_that_is_text_is_read_and_one_that_is_nothing_is_named(world: World) -> None:
    key = world.key("plain")

    def file(mime_type: str, data: bytes) -> JsonObject:
        return {"inlineData": {"mimeType": mime_type, "data": base64.b64encode(data).decode()}}

    short = file("text/csv", BOOK[:100_000].encode())
    parts = [short, file("text/csv", BOOK.encode()), file("application/zip", PNG)]
    world.gemini.script(say("thanks"))
    await world.runner.ask(key, content={"parts": parts}, message_id="m1")
    [request] = asked(world)
    sent = request.contents[0]["parts"]
    assert sent[0] == short
    assert BOOK[:2_000] in sent[1]["text"]
    assert "application/zip" in sent[2]["text"]
    assert await names(world, key) == ["messages/m1-0.csv", "messages/m1-1.csv", "messages/m1-2.zip"]
    assert request.tools == [READ_ARTIFACT]


async def test_a_picture_by_the_model_goes_back_exactly_as_it_came(world: World) -> None:
    key = world.key("plain")
    parts = [say("Here:"), picture(PNG, thoughtSignature="c2lnbmF0dXJl"), say("Like it?")]
    world.gemini.script(parts, say("I am glad"))
    await world.runner.ask(key, "draw", message_id="m1")
    await world.runner.ask(key, "yes", message_id="m2")
    first, second = asked(world)
    assert second.contents[1]["parts"] == first.answer
    assert json.dumps(second.contents[1]["parts"][1]) == json.dumps(parts[1])
    assert await names(world, key) == ["answers/m1-1.1.png"]
    assert await largest_event(world, key) < 2_000


async def test_pictures_above_the_limit_of_a_prompt_are_named_and_a_missing_one_is(
    forgetful_world: World,
) -> None:
    world = forgetful_world
    key = world.key("tight")
    for n in range(3):
        world.gemini.script(say(f"picture {n}"))
        await world.runner.ask(key, content={"parts": [picture(PNG + bytes([n]))]}, message_id=f"m{n}")
    kinds = [
        [
            "text" if "text" in part else "inlineData"
            for content in request.contents
            for part in content["parts"]
            if content["role"] == "user"
        ]
        for request in asked(world)
    ]
    assert kinds == [["inlineData"], ["inlineData", "inlineData"], ["text", "text", "inlineData"]]
    row, _ = await world.store.load_artifact(key, "messages/m2-0.png")
    assert await world.store._blobs.remove(row.blob)
    world.gemini.script(say("a pity"))
    answer = await world.runner.ask(key, "and now?")
    assert (answer.status, answer.text) == ("answered", "a pity")
    assert "gone" in asked(world)[-1].contents[4]["parts"][0]["text"]


async def test_s33_a_rewind_takes_it_back_and_a_fork_keeps_it(world: World) -> None:
    key = world.key("plain")
    world.gemini.script(say("hello"), say("noise"), say("what picture?"), say("the same"))
    await world.runner.ask(key, "hi", message_id="m0")
    content = {"role": "user", "parts": [picture(PNG), {"text": BOOK}]}
    await world.runner.ask(key, content=content, message_id="m1")
    fork = (await world.store.fork(key, f"{key.session_id}-fork")).key
    await world.runner.rewind(key, "m1")
    assert await names(world, key) == []
    await world.runner.ask(key, "do you see it?")
    after = asked(world)[-1]
    assert "inlineData" not in json.dumps(after.body)
    assert "messages/" not in json.dumps(after.body)
    assert after.tools == []
    assert await names(world, fork) == ["messages/m1-0.png", "messages/m1-1.txt"]
    await world.runner.ask(fork, "and you?")
    forked = asked(world)[-1]
    assert forked.contents[2]["parts"][0] == picture(PNG)
    assert forked.tools == [READ_ARTIFACT]
    with pytest.raises(InvocationRewound):
        await world.runner.ask(key, content=content, message_id="m1")


@pytest.mark.parametrize("mend", ["rewind", "compact"])
async def test_a_prompt_that_is_too_long_for_the_model_ends_the_turn_and_not_the_session(
    world: World, mend: str
) -> None:
    key = world.key("reader")
    world.gemini.script(say("hello"))
    await world.runner.ask(key, "hi", message_id="m0")
    said = "The input token count (1234567) exceeds the maximum number of tokens allowed (1048576)."
    world.gemini.fail(400, said)
    answer = await world.runner.ask(key, "too much", message_id="m1")
    assert answer.status == "failed"
    assert answer.failure is not None
    assert answer.failure.type == "PromptTooLong"
    assert "1048576" in answer.failure.message
    assert "rewind" in answer.failure.message
    assert len(asked(world)) == 2, "it is not tried again"
    if mend == "rewind":
        await world.runner.rewind(key, "m1")
    else:
        world.gemini.script(say("They greeted."), kind="summarise")
        await world.runner.compact(key)
    world.gemini.script(say("back again"))
    assert (await world.runner.ask(key, "are you there?")).text == "back again"
    assert "too much" not in asked(world)[-1].text


# A message in many parts


def words(part: JsonObject) -> str:
    return str(part["text"])


async def test_a_book_in_ten_parts_is_put_away_like_one_in_one(world: World) -> None:
    key = world.key("plain")
    chapters = [f"{n} " + "the whale. " * 17_000 for n in range(10)]
    assert all(len(chapter) < Limits().message_chars for chapter in chapters)
    content = {"role": "user", "parts": [{"text": text} for text in [*chapters, "What is it about?"]]}
    world.gemini.script(say("a whale"))
    await world.runner.ask(key, content=content, message_id="m1")
    [request] = asked(world)
    assert size_of(request.contents) < Limits().message_chars + 10 * 4_000
    said = request.contents[0]["parts"]
    assert [part.get("text") in chapters for part in said] == [False] * 9 + [True, False]
    assert words(said[-1]) == "What is it about?"
    assert READ_ARTIFACT in request.tools
    for number, chapter in enumerate(chapters[:9]):
        assert words(said[number]).startswith("[This text has 187,002 characters")
        assert f"]\n{chapter[:2_000]}\n[" in words(said[number])
        assert (await world.store.load_artifact(key, f"messages/m1-{number}.txt"))[1] == chapter.encode()


async def test_the_longest_go_first_and_short_ones_stay(store: SessionStore) -> None:
    key = SessionKey(app="limits", user_id="u", session_id="many-parts")
    texts = ["a" * 3_000, "b" * 9_000, "c" * 5_000, "d" * 7_000, "e" * 3_000]
    attached = base64.b64encode(b"f" * 8_000).decode()
    parts: list[JsonObject] = [{"text": text} for text in texts]
    parts.append({"inlineData": {"mimeType": "text/plain", "data": attached}})
    event = Event(id="m1:user", invocation_id="m1", author="user", content={"role": "user", "parts": parts})
    await begin_turn(store, key, event, Limits(message_chars=10_000), epoch=None, reopen=False)
    stored = await store.event(key, "m1:user")
    assert stored is not None
    assert stored.content is not None
    kept = [part == parts[index] for index, part in enumerate(stored.content["parts"])]
    assert kept == [True, False, False, False, True, False], "what is left is within the limit"
    assert "first 2,000 and its last 1,000 characters" in words(stored.content["parts"][2])
    again = await begin_turn(store, key, event, Limits(message_chars=10_000), epoch=None, reopen=False)
    assert again.done is None
    few = Event(
        id="m2:user",
        invocation_id="m2",
        author="user",
        content={"role": "user", "parts": [{"text": "a" * 3_000}] * 50},
    )
    await begin_turn(store, key, few, Limits(message_chars=10_000), epoch=None, reopen=False)
    found = await store.event(key, "m2:user")
    assert found is not None
    assert found.content == few.content, "of a short text as much would stay as goes"


# The bytes of media


@pytest.mark.parametrize(("megabytes", "reads"), [(64, 1), (0, 4)], ids=["cached", "uncached"])
async def test_a_picture_is_read_once_by_a_worker_that_remembers_it(
    temporal: TemporalServer,
    store: SessionStore,
    monkeypatch: pytest.MonkeyPatch,
    megabytes: int,
    reads: int,
) -> None:
    settings = Settings(_env_file=None, media_cache=megabytes)
    chunks, taken = store._blobs.chunks, 0

    def counted(*args: Any) -> AsyncIterator[bytes]:
        async def read() -> AsyncIterator[bytes]:
            nonlocal taken
            taken += 1
            async for chunk in chunks(*args):
                yield chunk

        return read()

    monkeypatch.setattr(store._blobs, "chunks", counted)
    async with open_world(temporal.address, store, AGENTS, settings=settings) as world:
        key = world.key("reader")
        world.gemini.script(call("dump", size=10), call("dump", size=10), say("a cat"), say("still"))
        await world.runner.ask(key, content={"role": "user", "parts": [picture(PNG)]}, message_id="m1")
        await world.runner.ask(key, "and now?", message_id="m2")
        assert [request.contents[0]["parts"] for request in asked(world)] == [[picture(PNG)]] * 4
        assert taken == reads
        await world.runner.rewind(key, "m1")
        await world.runner.ask(key, "do you see it?")
        assert "inlineData" not in json.dumps(asked(world)[-1].body)


# A message that is sent again under other limits


def message(key: SessionKey, text: str) -> Event:
    content = {"role": "user", "parts": [{"text": text}]}
    return Event(id="m1:user", invocation_id="m1", author="user", content=content)


async def test_s58_a_message_that_was_put_away_and_not_appended_has_one_version(
    store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = SessionKey(app="limits", user_id="u", session_id="crashed")
    event = message(key, "a long text " * 1_000)
    limits = Limits(message_chars=1_000)

    async def dies(*args: object, **kwargs: object) -> None:
        raise ConnectionError("the database is away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "begin_turn", dies)
        with pytest.raises(ConnectionError):
            await begin_turn(store, key, event, limits, epoch=None, reopen=False)
    assert await store.list_artifacts(key) == [], "nothing is listed before it is in the log"
    begun = await begin_turn(store, key, event, limits, epoch=None, reopen=False)
    assert (begun.seq, begun.done) == (1, None)
    [row] = await store.artifact_versions(key, "messages/m1-0.txt")
    assert row.version == 1


async def test_s58_a_message_that_was_taken_by_an_attempt_that_died_is_not_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = world.key("plain")
    forget = world.store.forget_message
    tries = 0

    async def dies_once(key: SessionKey, blob: str) -> None:
        nonlocal tries
        tries += 1
        await forget(key, blob)
        if tries == 1:
            raise ConnectionError("the worker died here")

    world.gemini.script(say("a book"))
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "forget_message", dies_once)
        assert (await world.runner.ask(key, BOOK, message_id="m1")).text == "a book"
    assert tries == 3, "the attempt that died, the next one, and the one who asked"
    assert len(asked(world)) == 1
    assert await world.kinds(key) == ["user", "model"]


async def test_a_message_that_waits_long_is_not_taken_for_an_orphan(store: SessionStore) -> None:
    key = SessionKey(app="limits", user_id="waits", session_id="s")
    content = {"parts": [{"text": BOOK}]}
    blob = await store.leave_message(key, "m1", content)
    await store.collect_blobs(older_than=timedelta(0))
    left = await store.fetch_message(key, "m1", blob)
    assert left is not None
    assert (left.content, left.state) == (content, {})
    with pytest.raises(InvalidMessage):
        await store.fetch_message(key, "m2", blob)


@pytest.mark.parametrize("limits", [(1_000, 200_000), (200_000, 1_000), (1_000, 1_000), (1_000, 5_000)])
async def test_s63_the_limits_may_change_between_a_message_and_its_repetition(
    store: SessionStore, limits: tuple[int, int]
) -> None:
    key = SessionKey(app="limits", user_id="u", session_id=f"{limits[0]}-{limits[1]}")
    text = "a long text " * 1_000
    before, after = (Limits(message_chars=chars) for chars in limits)
    begun = await begin_turn(store, key, message(key, text), before, epoch=None, reopen=False)
    again = await begin_turn(store, key, message(key, text), after, epoch=begun.epoch, reopen=False)
    assert again == begun
    for other in (text + "!", "short"):
        with pytest.raises(EventConflict):
            await begin_turn(store, key, message(key, other), after, epoch=begun.epoch, reopen=False)
    versions = await store.artifact_versions(key, "messages/m1-0.txt")
    assert [row.version for row in versions] == ([1] if limits[0] == 1_000 else [])
    assert len(await store.log(key)) == 1
