"""What a user's memory holds, and what a search of it finds."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import InvalidOption, SessionNotFound
from perdure.types import SessionKey
from storage import memory, remembering
from storage.sessions import SessionStore
from storage.store import Confirm
from tests.conformance.conftest import Backend
from tests.conformance.events import answer, asked, content, event, say, summary, user
from tests.conformance.watch import Broken, statements, stored, wait_for_a_lock

BOB = SessionKey(app="counter", user_id="bob", session_id="s1")


async def told(
    store: SessionStore, key: SessionKey, invocation_id: str, text: str, reply: str = "ok"
) -> None:
    """One turn in which something is said."""
    await store.begin_turn(key, user(invocation_id, text), epoch=None)
    await store.append(key, answer(invocation_id, reply))


async def found(store: SessionStore, key: SessionKey, query: str, **more: Any) -> list[str]:
    """The texts that a search by the session's user gives."""
    return [each.text for each in await store.search_memory(key.app, key.user_id, query, **more)]


async def rows(store: SessionStore, table: str) -> int:
    return len((await stored(store))[table])


async def test_what_was_said_is_found_by_another_session(store: SessionStore, key: SessionKey) -> None:
    await told(store, key, "i1", "My cat is called Mia.", "A lovely name.")
    done = await store.remember(key)
    assert (done.upto, done.added, done.passages) == (2, 2, 2)
    [passage] = await store.search_memory("counter", "ada", "what is my CAT called?")
    assert (passage.session_id, passage.seq, passage.event_id) == ("s1", 1, "i1:user")
    assert (passage.invocation_id, passage.author) == ("i1", "user")
    assert passage.text == passage.excerpt == "My cat is called Mia."
    log = await store.log(key, limit=1)
    assert passage.said_at == log[0].created_at


async def test_remembering_again_adds_only_what_came_since(store: SessionStore, key: SessionKey) -> None:
    await told(store, key, "i1", "red")
    await store.remember(key)
    before = await stored(store)
    for _ in range(3):
        assert (await store.remember(key)).added == 0
    assert await stored(store) == before
    await told(store, key, "i2", "green")
    assert (await store.remember(key)).added == 2
    assert await rows(store, "memories") == 1
    assert await found(store, key, "red green") == ["green", "red"]


async def test_the_session_itself_does_not_change(store: SessionStore, key: SessionKey) -> None:
    await told(store, key, "i1", "red")
    before = await store.get(key)
    await store.remember(key)
    assert await store.get(key) == before


async def test_an_end_remembers_in_its_own_transaction_and_once(store: SessionStore, key: SessionKey) -> None:
    await told(store, key, "i1", "red")
    await store.end(key, remember=True)
    assert await found(store, key, "red") == ["red"]
    await store.forget(key)
    await store.end(key, remember=True)
    assert await found(store, key, "red") == [], "an end that is sent again brings nothing back"


async def test_an_end_that_is_not_to_remember_does_not(store: SessionStore, key: SessionKey) -> None:
    await told(store, key, "i1", "red")
    await store.end(key)
    assert await found(store, key, "red") == []
    await store.remember(key)
    assert await found(store, key, "red") == ["red"]


async def test_what_was_rewound_before_is_not_remembered(store: SessionStore, key: SessionKey) -> None:
    await told(store, key, "i1", "red")
    await told(store, key, "i2", "secret")
    await store.rewind(key, before="i2", request_id="r1")
    await told(store, key, "i3", "green")
    await store.remember(key)
    assert await found(store, key, "red secret green") == ["green", "red"]


async def test_what_is_rewound_later_is_taken_out_at_once(store: SessionStore, key: SessionKey) -> None:
    await told(store, key, "i1", "red")
    await told(store, key, "i2", "secret")
    await store.remember(key)
    await store.rewind(key, before="i2", request_id="r1")
    assert await found(store, key, "red secret") == ["red"]
    await told(store, key, "i3", "green")
    await store.remember(key)
    assert await found(store, key, "red secret green") == ["green", "red"]


async def test_a_redo_is_remembered_whole(store: SessionStore, key: SessionKey) -> None:
    """The seqs that are live again lie below what was remembered meanwhile."""
    for number, word in enumerate(("red", "secret", "blue"), 1):
        await told(store, key, f"i{number}", word)
    await store.remember(key)
    await store.rewind(key, before="i2", request_id="r1")
    await told(store, key, "i4", "green")
    await store.remember(key)
    await store.rewind(key, before="r1", request_id="r2")
    assert await found(store, key, "red secret blue green") == ["red"]
    await store.remember(key)
    assert sorted(await found(store, key, "red secret blue green")) == ["blue", "red", "secret"]
    await store.rewind(key, before="r2", request_id="r3")
    await store.remember(key)
    assert sorted(await found(store, key, "red secret blue green")) == ["green", "red"]


async def test_only_what_a_user_or_an_agent_said_is_in_it(store: SessionStore, key: SessionKey) -> None:
    await store.begin_turn(key, user("i1", "said"), epoch=None)
    thought = {"role": "model", "parts": [{"text": "said secretly", "thought": True}]}
    await store.append(key, event("i1:m0", content=thought))
    await store.append(key, asked("i1"))
    response = {"functionResponse": {"name": "increment", "response": {"result": "said by a tool"}}}
    await store.append(key, event("i1:t1.0", content={"role": "user", "parts": [response]}))
    await store.append(
        key, event("i1:odd", content={"parts": [None, 7, {"text": 8}, {"text": "said oddly"}]})
    )
    await store.append(key, event("i1:none", content={"parts": None}))
    await store.append(key, event("i1:m2", content=content("also said", "model")))
    await store.append(key, summary("i1", 1, 3))
    await store.update(key, request_id="u1", state={"said": "in state"})
    await store.remember(key)
    assert sorted(await found(store, key, "said")) == ["also said", "said", "said oddly"]


async def test_no_user_finds_what_another_said(store: SessionStore, key: SessionKey) -> None:
    for mine in (key, BOB, replace(key, app="other")):
        await told(store, mine, "i1", f"secret of {mine.app} {mine.user_id}")
        await store.remember(mine)
    assert await found(store, key, "secret") == ["secret of counter ada"]
    assert await found(store, BOB, "secret") == ["secret of counter bob"]
    nobody = replace(key, user_id="nobody")
    assert await found(store, nobody, "secret") == []


async def test_nobody_slips_into_the_memory_of_another(store: SessionStore, key: SessionKey) -> None:
    """By writing the word that marks the other's passages."""
    from storage.words import owner_word

    await told(store, BOB, "i1", f"{owner_word('counter', 'ada')} buy at my shop")
    await store.remember(BOB)
    await told(store, key, "i1", "a shop")
    await store.remember(key)
    assert await found(store, key, "shop") == ["a shop"]


async def test_rare_words_weigh_more_and_none_must_be_there(store: SessionStore, key: SessionKey) -> None:
    for number in range(5):
        await told(store, key, f"i{number}", f"the answer number {number} is the same", "ok")
    await told(store, key, "i9", "the whale is large", "ok")
    await store.remember(key)
    assert (await found(store, key, "what is the whale, then?"))[0] == "the whale is large"
    assert await found(store, key, "same", limit=2) == [f"the answer number {n} is the same" for n in (4, 3)]


async def test_what_was_not_said_is_not_found(store: SessionStore, key: SessionKey) -> None:
    await told(store, key, "i1", "red")
    await store.remember(key)
    for query in ("", "  ", "?!", "green", "re", "reds", "\0", "\ud800"):
        assert await found(store, key, query) == []


@pytest.mark.parametrize(
    ("said", "query"),
    [
        ("Zoë naïve café", "zoe"),
        ("STRASSE", "straße"),
        ("ﬁle ＦＵＬＬ", "full"),
        ("snake_case docs/waiting.md", "waiting"),
        ("it costs 12.50€", "costs 50"),
        ("私は猫が好きです", "猫"),
        ("私は白い猫が好きです", "白い猫"),
        ("ฉันชอบแมว", "แมว"),
        ("मेरी बिल्ली", "बिल्ली"),
        ("моя кошка Мурка", "КОШКА"),
        ('say "hello" OR NOT (a & b | c:*) \\', '"hello" \' & | ! ( ) : * <-> NEAR AND OR NOT \\ %'),
        ("null '; DROP TABLE memories; --", "'; DROP TABLE memories; --"),
        ("😀 emoji beside", "beside"),
        ("x" * 500, "x" * 500),
    ],
)
async def test_any_language_and_any_sign_is_safe(
    store: SessionStore, key: SessionKey, said: str, query: str
) -> None:
    await told(store, key, "i1", said, reply="-")
    await store.remember(key)
    assert await found(store, key, query) == [said]


async def test_a_long_text_is_found_in_pieces(store: SessionStore, key: SessionKey) -> None:
    sentences = [f"Sentence {number} speaks of word{number}." for number in range(500)]
    await told(store, key, "i1", " ".join(sentences))
    done = await store.remember(key)
    assert done.added > 5
    [passage] = await store.search_memory("counter", "ada", "word321")
    assert len(passage.text) <= 2_000
    assert len(passage.excerpt) <= 302
    assert "Sentence 321 speaks of word321." in passage.excerpt
    assert passage.seq == 1
    texts = await found(store, key, "sentence", limit=100)
    assert len(texts) == done.added - 1
    assert all(any(sentence in text for text in texts) for sentence in sentences)


async def test_a_query_may_be_very_long(store: SessionStore, key: SessionKey) -> None:
    await told(store, key, "i1", "red")
    await store.remember(key)
    assert await found(store, key, "red " + " ".join(f"w{n}" for n in range(20_000))) == ["red"]


async def test_a_deleted_session_stays_in_the_memory(store: SessionStore, key: SessionKey) -> None:
    await told(store, key, "i1", "red")
    await store.remember(key)
    await store.delete(key)
    assert await found(store, key, "red") == ["red"]
    with pytest.raises(SessionNotFound):
        await store.remember(key)


async def test_a_session_made_anew_replaces_what_was_remembered_of_the_old_one(
    store: SessionStore, key: SessionKey
) -> None:
    await told(store, key, "i1", "red")
    await told(store, key, "i2", "blue")
    await store.remember(key)
    await store.delete(key)
    await told(store, key, "i1", "green")
    await store.rewind(key, before="i1", request_id="r1")
    assert sorted(await found(store, key, "red blue")) == ["blue", "red"], "its rewind is none of the old"
    await told(store, key, "i3", "yellow")
    await store.remember(key)
    assert await found(store, key, "red blue green yellow") == ["yellow"]
    assert await rows(store, "memories") == 1


async def test_a_session_that_moves_house_is_remembered_once(store: SessionStore, key: SessionKey) -> None:
    """An export that is older than what was remembered goes on with other seqs."""
    await told(store, key, "i1", "red")
    lines = [line async for line in store.export(key)]
    await told(store, key, "i2", "blue")
    await store.remember(key)
    await store.delete(key)
    await store.import_session(lines)
    await told(store, key, "i3", "green")
    await store.remember(key)
    assert sorted(await found(store, key, "red blue green")) == ["green", "red"]


async def test_a_fork_is_remembered_for_itself(store: SessionStore, key: SessionKey) -> None:
    await told(store, key, "i1", "red")
    await told(store, key, "i2", "blue")
    await store.remember(key)
    fork = await store.fork(key, "fork", before="i2")
    assert await found(store, key, "red") == ["red"]
    await told(store, fork.key, "i3", "green")
    await store.remember(fork.key)
    assert await found(store, key, "green") == ["green"]
    assert await rows(store, "memories") == 2


async def test_a_session_is_forgotten(store: SessionStore, key: SessionKey) -> None:
    other = replace(key, session_id="s2")
    for mine in (key, other, BOB):
        await told(store, mine, "i1", f"red {mine.session_id}")
        await store.remember(mine)
    assert await store.forget(key) is True
    assert await store.forget(key) is False
    assert await found(store, key, "red") == ["red s2"]
    assert await found(store, BOB, "red") == ["red s1"]
    await store.remember(key)
    assert sorted(await found(store, key, "red")) == ["red s1", "red s2"]


async def test_a_retry_of_a_remember_does_not_undo_a_forget(store: SessionStore, key: SessionKey) -> None:
    """Its answer was lost; another request brings the session back."""
    await told(store, key, "i1", "red")
    await store.remember(key, request_id="r1")
    await store.forget(key)
    await told(store, key, "i2", "green")
    again = await store.remember(key, request_id="r1")
    assert (again.upto, again.added, again.passages) == (0, 0, 0)
    assert await found(store, key, "red green") == []
    assert (await store.remember(key, request_id="r2")).added == 4
    await told(store, key, "i3", "blue")
    assert (await store.remember(key, request_id="r1")).added == 2, "it is in the memory, so it goes on"
    await store.forget_user(key.app, key.user_id)
    for request_id in ("r1", "r2"):
        await store.remember(key, request_id=request_id)
    assert await found(store, key, "red green blue") == []


@pytest.mark.parametrize("backend_name", ["postgres"])
async def test_a_retry_of_a_remember_that_meets_the_forget_does_not_undo_it(
    store: SessionStore, key: SessionKey
) -> None:
    await told(store, key, "i1", "red")
    await store.remember(key, request_id="r1")
    there, go_on = asyncio.Event(), asyncio.Event()

    async def forget(conn: AsyncConnection) -> bool:
        gone = await memory.forget(conn, key, None)
        there.set()
        await go_on.wait()
        return gone

    async with asyncio.TaskGroup() as tasks:
        forgetting = tasks.create_task(store._db.write(forget, awaits=True))
        await there.wait()
        retry = tasks.create_task(store.remember(key, request_id="r1"))
        await wait_for_a_lock(store)
        go_on.set()
    assert (forgetting.result(), retry.result().passages) == (True, 0)
    assert await found(store, key, "red") == []


async def test_a_retry_of_a_remember_that_had_put_nothing_in_does_so(
    store: SessionStore, key: SessionKey
) -> None:
    await told(store, key, "i1", "red")
    await store.remember(key, request_id="r1")
    await store.forget(key)
    with pytest.raises(Broken):
        await store.remember(key, request_id="r2", confirm=_dying_at(1))
    await store.remember(key, request_id="r2")
    assert await found(store, key, "red") == ["red"]


async def test_a_forget_between_the_parts_of_a_remember_ends_that(
    store: SessionStore, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembering, "AT_ONCE", 2)
    for word in ("red", "green", "blue"):
        await told(store, key, word, word, "-")
    with pytest.raises(Broken):
        await store.remember(key, request_id="r1", confirm=_dying_at(2))
    assert await store.forget(key) is True
    await store.remember(key, request_id="r1")
    assert await found(store, key, "red green blue") == []


async def test_the_requests_of_a_deleted_session_are_those_of_no_other(
    store: SessionStore, key: SessionKey
) -> None:
    await told(store, key, "i1", "red")
    await store.remember(key, request_id="r1")
    await store.delete(key)
    await store.forget(key)
    assert await rows(store, "memory_requests") == 0
    await told(store, key, "i1", "green")
    await store.remember(key, request_id="r1")
    assert await found(store, key, "red green") == ["green"]


async def test_one_thing_that_was_said_is_forgotten_and_stays_so(
    store: SessionStore, key: SessionKey
) -> None:
    await told(store, key, "i1", "red", "green")
    await store.remember(key)
    assert await store.forget(key, seq=1) is True
    assert await store.forget(key, seq=1) is False
    await told(store, key, "i2", "blue")
    await store.remember(key)
    assert sorted(await found(store, key, "red green blue")) == ["blue", "green"]


async def test_a_user_is_forgotten(store: SessionStore, key: SessionKey) -> None:
    other = replace(key, session_id="s2")
    for mine in (key, other, BOB):
        await told(store, mine, "i1", "red")
        await store.remember(mine)
    assert await store.forget_user("counter", "ada") == 2
    assert await store.forget_user("counter", "ada") == 0
    assert await found(store, key, "red") == []
    assert await found(store, BOB, "red") == ["red"]
    assert await rows(store, "memory_passages") == 2


async def test_a_session_is_left_out(store: SessionStore, key: SessionKey) -> None:
    other = replace(key, session_id="s2")
    for mine in (key, other):
        await told(store, mine, "i1", f"red {mine.session_id}", "-")
        await store.remember(mine)
        lacking = await store.lacking_vectors(mine, "m", 10)
        await store.keep_vectors(mine, "m", [(number, [1.0]) for number, _ in lacking])
    for query in ("red", "?"):
        assert "red s1" not in await found(store, key, query, but="s1", model="m", near=[1.0])
        assert "red s2" in await found(store, key, query, but="s1", model="m", near=[1.0])


async def test_a_limit_that_makes_no_sense(store: SessionStore) -> None:
    for limit in (0, -1, 101):
        with pytest.raises(InvalidOption, match="1 to 100"):
            await store.search_memory("counter", "ada", "red", limit=limit)


async def test_vectors_find_what_words_do_not(store: SessionStore, key: SessionKey) -> None:
    for number, text in enumerate(("a cat", "a car", "a house"), 1):
        await told(store, key, f"i{number}", text, "-")
    await store.remember(key)
    lacking = [pair for pair in await store.lacking_vectors(key, "m", 10) if pair[1] != "-"]
    assert [text for _, text in lacking] == ["a cat", "a car", "a house"]
    near = {"a cat": [2.0, 0.1, 0], "a car": [0, 3.0, 0.1], "a house": [0.1, 0, 1.0]}
    await store.keep_vectors(key, "m", [(number, near[text]) for number, text in lacking])
    assert await found(store, key, "kitten", limit=2, model="m", near=[1, 0, 0]) == ["a cat", "a house"]
    both = await found(store, key, "car", model="m", near=[1, 0.2, 0])
    assert both[0] == "a car", "found both ways"
    assert await found(store, key, "kitten", model="other", near=[1, 0, 0]) == []
    assert await found(store, replace(key, user_id="bob"), "x", model="m", near=[1, 0, 0]) == []


@pytest.mark.parametrize("backend_name", ["postgres"])
async def test_pgvector_finds_the_same(backend: Backend, store: SessionStore, key: SessionKey) -> None:
    numbers = random.Random(7)
    for invocation in range(20):
        await told(store, key, f"i{invocation}", f"said {invocation}", f"answered {invocation}")
    await store.remember(key)
    fork = (await store.fork(key, "fork")).key
    await store.remember(fork)
    random_vectors: dict[str, list[float]] = defaultdict(lambda: [numbers.gauss(0, 1) for _ in range(16)])
    for mine in (key, fork):
        lacking = await store.lacking_vectors(mine, "m", 100)
        await store.keep_vectors(mine, "m", [(number, random_vectors[text]) for number, text in lacking])
    near = [[numbers.gauss(0, 1) for _ in range(16)] for _ in range(5)]

    async def all_found() -> list[list[str]]:
        return [await found(store, key, "-", limit=7, model="m", near=each) for each in near]

    plain = await all_found()
    assert all(len(set(texts)) == 7 for texts in plain), "the fork has nothing that its source has not"
    connection = await asyncpg.connect(backend.url)
    await connection.execute("CREATE EXTENSION vector")
    try:
        seen: list[str] = []
        with statements(store, seen):
            assert await all_found() == plain
        assert any("<=>" in statement for statement in seen)
    finally:
        await store.close()
        await connection.execute("DROP EXTENSION vector")
        await connection.close()


async def test_vectors_of_another_model_are_replaced(store: SessionStore, key: SessionKey) -> None:
    await told(store, key, "i1", "a cat", "a car")
    await store.remember(key)
    for model in ("one", "two"):
        lacking = await store.lacking_vectors(key, model, 10)
        assert len(lacking) == 2
        await store.keep_vectors(key, model, [(number, [1.0, 0.0]) for number, _ in lacking])
        assert await store.lacking_vectors(key, model, 10) == []
    assert len(await found(store, key, "-", model="two", near=[1, 0])) == 2
    assert await found(store, key, "-", model="one", near=[1, 0]) == []


async def test_a_vector_that_comes_late_meets_no_other_passage(store: SessionStore, key: SessionKey) -> None:
    await told(store, key, "i1", "red", "-")
    await store.remember(key)
    lacking = await store.lacking_vectors(key, "m", 10)
    await store.rewind(key, before="i1", request_id="r1")
    await told(store, key, "i2", "green", "-")
    await store.remember(key)
    await store.keep_vectors(key, "m", [(number, [1.0]) for number, _ in lacking])
    assert len(await store.lacking_vectors(key, "m", 10)) == 2


@pytest.mark.parametrize("backend_name", ["sqlite", "postgres"])
async def test_another_process_finds_it(backend: Backend, store: SessionStore, key: SessionKey) -> None:
    await say(store, key, "i1")
    await told(store, key, "i2", "red")
    await store.remember(key)
    again = await backend.open()
    assert await found(again, key, "red") == ["red"]


async def test_what_an_import_brings_back_may_be_rewound(store: SessionStore, key: SessionKey) -> None:
    """Also while the memory still has what the session of the name, deleted since, had left to it."""
    await told(store, key, "i1", "red")
    await told(store, key, "i2", "secret")
    await store.remember(key)
    lines = [line async for line in store.export(key)]
    await store.delete(key)
    await store.import_session(lines)
    assert sorted(await found(store, key, "red secret")) == ["red", "secret"]
    await store.rewind(key, before="i2", request_id="r1")
    assert await found(store, key, "red secret") == ["red"]


async def test_what_was_rewound_elsewhere_goes_with_the_import(store: SessionStore, key: SessionKey) -> None:
    away = replace(key, session_id="away")
    await told(store, key, "i1", "red")
    await told(store, key, "i2", "secret")
    await store.remember(key)
    await store.import_session([line async for line in store.export(key)], key=away)
    await store.delete(key)
    await store.rewind(away, before="i2", request_id="r1")
    await store.import_session([line async for line in store.export(away)], key=key)
    assert await found(store, key, "red secret") == ["red"]


@pytest.mark.parametrize("backend_name", ["postgres"])
async def test_a_user_is_forgotten_while_sessions_are_remembered(
    store: SessionStore, key: SessionKey
) -> None:
    """Whole sessions or none of them: what is left of no session keeps it from being remembered again."""
    other = replace(key, session_id="s2")
    await told(store, key, "i1", "red")
    await told(store, other, "i1", "green")
    await store.remember(key)
    await told(store, key, "i2", "blue")
    there, go_on = asyncio.Event(), asyncio.Event()

    async def stand_still() -> None:
        there.set()
        await go_on.wait()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.remember(key, confirm=stand_still))
        await there.wait()
        forgetting = tasks.create_task(store.forget_user(key.app, key.user_id))
        await wait_for_a_lock(store)
        await store.remember(other)
        go_on.set()
    assert forgetting.result() == 1
    await store.remember(other)
    assert await found(store, other, "red green blue") == ["green"]


async def test_a_long_session_is_remembered_part_by_part(
    store: SessionStore, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No transaction has more than a part, so an append waits for no more than that."""
    monkeypatch.setattr(remembering, "AT_ONCE", 4)
    words = [f"word{number}" for number in range(6)]
    for word in words:
        await told(store, key, word, word, "-")
    seen: list[int] = []

    async def count() -> None:
        seen.append(1)

    done = await store.remember(key, confirm=count)
    assert (done.upto, done.added, done.passages, len(seen)) == (12, 12, 12, 3)
    assert sorted(await found(store, key, " ".join(words))) == words
    assert (await store.remember(key)).added == 0


async def test_a_remember_that_dies_between_its_parts_is_finished_by_the_next(
    store: SessionStore, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remembering, "AT_ONCE", 2)
    for word in ("red", "secret", "blue"):
        await told(store, key, word, word, "-")
    with pytest.raises(Broken):
        await store.remember(key, confirm=_dying_at(2))
    assert await found(store, key, "red secret blue") == ["red"]
    await store.rewind(key, before="secret", request_id="r1")
    await told(store, key, "green", "green", "-")
    await store.remember(key)
    assert await found(store, key, "red secret blue green") == ["green", "red"]


async def test_what_is_rewound_after_it_was_read_is_not_remembered(
    store: SessionStore, key: SessionKey
) -> None:
    """Passages are made outside the session's lock; under it, it is seen whether they still are live."""
    await told(store, key, "i1", "red")
    await told(store, key, "i2", "secret")
    ready = await store._db.read(lambda conn: remembering.read_part(conn, key))
    await store.rewind(key, before="i2", request_id="r1")
    done = await store._db.write(lambda conn: remembering.add(conn, key, ready.prepared()))
    assert done.whole
    assert await found(store, key, "red secret") == ["red"]


async def test_what_was_read_of_a_session_is_not_remembered_of_its_successor(
    store: SessionStore, key: SessionKey
) -> None:
    await told(store, key, "i1", "red")
    ready = await store._db.read(lambda conn: remembering.read_part(conn, key))
    await store.delete(key)
    await told(store, key, "i1", "green")
    await store._db.write(lambda conn: remembering.add(conn, key, ready.prepared()))
    assert await found(store, key, "red green") == ["green"]


async def test_a_long_session_ends_with_its_last_part(
    store: SessionStore, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came before it is put in before, without the session's being ended."""
    monkeypatch.setattr(remembering, "AT_ONCE", 2)
    for word in ("red", "green", "blue"):
        await told(store, key, word, word, "-")
    with pytest.raises(Broken):
        await store.end(key, remember=True, confirm=_dying_at(3))
    assert sorted(await found(store, key, "red green blue")) == ["green", "red"]
    assert (await store.get(key)).ended_at is None
    await store.end(key, remember=True)
    assert sorted(await found(store, key, "red green blue")) == ["blue", "green", "red"]
    await store.forget(key)
    await store.end(key, remember=True)
    assert await found(store, key, "red green blue") == []


async def test_what_a_fork_shares_with_its_source_is_found_once(store: SessionStore, key: SessionKey) -> None:
    await told(store, key, "i1", "the red house", "red it is")
    await told(store, key, "i2", "red and blue", "-")
    await store.remember(key)
    forks = [await store.fork(key, f"fork{number}", before="i2") for number in range(3)]
    for fork in forks:
        await told(store, fork.key, "i3", "red and green", "-")
        await store.remember(fork.key)
    # Each fork's own is its own; what it has of the source is there once.
    assert sorted(await found(store, key, "red")) == [
        *["red and blue", "red and green", "red and green", "red and green"],
        *["red it is", "the red house"],
    ]
    assert len(await found(store, key, "red house", limit=6)) == 6
    assert (await found(store, key, "red house", limit=6))[0] == "the red house"
    await store.rewind(forks[2].key, before="i1", request_id="r1")
    assert (await found(store, key, "house")) == ["the red house"], "as long as one of them has it"


async def test_what_a_fork_shares_is_found_once_by_vectors_too(store: SessionStore, key: SessionKey) -> None:
    await told(store, key, "i1", "a cat", "-")
    await store.remember(key)
    fork = await store.fork(key, "fork")
    await told(store, fork.key, "i2", "a car", "-")
    await store.remember(fork.key)
    near = {"a cat": [1.0, 0.1], "a car": [0.5, 1.0], "-": [-1.0, 0.0]}

    async def give(mine: SessionKey) -> None:
        lacking = await store.lacking_vectors(mine, "m", 10)
        await store.keep_vectors(mine, "m", [(number, near[text]) for number, text in lacking])

    await give(key)
    # The words find the fork's, the vectors the source's: it is the same.
    assert await found(store, key, "cat", model="m", near=[1.0, 0.0], limit=1) == ["a cat"]
    assert (await found(store, key, "cat", model="m", near=[1.0, 0.0])).count("a cat") == 1
    await give(fork.key)
    assert await found(store, key, "kitten", model="m", near=[1.0, 0.0], limit=2) == ["a cat", "a car"]


def _dying_at(count: int) -> Confirm:
    """What lets the transaction of this number be the last one, undone."""
    left = count

    async def confirm() -> None:
        nonlocal left
        left -= 1
        if not left:
            raise Broken(f"transaction {count}")

    return confirm
