"""The sessions of agents that were asked: whose they are, how they are rewound, and what they took."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.asking import AskingActivities, rewind_children
from activities.asking_tasks import CountTask
from perdure.agenttool import REQUEST, child_session_id
from perdure.errors import StaleEpoch
from perdure.types import SessionKey, Spent
from storage.sessions import SessionStore
from storage.store import Store
from tests.conformance.events import answer, asked, content, event, say, user

CALL = "m1:t1.0"


async def ask(store: SessionStore, key: SessionKey, call_id: str = CALL, **metadata: Any) -> SessionKey:
    """The session of an agent that a call has asked, and that has answered."""
    child = replace(key, session_id=child_session_id(key.session_id, "scout", call_id))
    about = {"parent": key.session_id, "call": call_id, "agent": "scout", **metadata}
    await store.create(child, metadata=about)
    await say(store, child, REQUEST, delta={"own": 1})
    return child


async def begin(store: SessionStore, key: SessionKey, invocation_id: str = "m1") -> None:
    """A turn that has asked for a call."""
    await store.begin_turn(key, user(invocation_id), epoch=None)
    await store.append(key, asked(invocation_id))


async def is_rewound(store: SessionStore, child: SessionKey) -> bool:
    session = await store.get(child)
    texts = [said.text for said in session.events if said.invocation_id == REQUEST]
    assert (texts, session.state) in ((["hello", "", "done"], {"own": 1}), ([], {}))
    assert ("rewound" in session.metadata) == (texts == [])
    return texts == []


@pytest.mark.parametrize("session_id", ["s1", "a_b", "50%", "a\\b", "A", "x~y", "m~ü", "s" * 100])
async def test_s21_the_children_of_a_session_are_its_own(store: SessionStore, session_id: str) -> None:
    key = SessionKey(app="counter", user_id="ada", session_id=session_id)
    others = [
        replace(key, app="other"),
        replace(key, user_id="bob"),
        *[replace(key, session_id=near) for near in ("axb", "50x", "50%%", "a", "ab", "s1~x", "s10")],
    ]
    for each in others:
        await ask(store, each)
    assert await store.children(key) == []
    child = await ask(store, key)
    second = await ask(store, key, "m1:t1.1")
    grandchild = await ask(store, child)
    await store.create(replace(key, session_id=f"{session_id}~no child"))
    await store.create(replace(key, session_id=f"{session_id}~scout~0123456789abc"))
    found = await store.children(key)
    assert {each.key for each in found} == {child, second, grandchild}
    assert [each.key for each in await store.children(child)] == [grandchild]
    assert [each.metadata["call"] for each in found if each.key == second] == ["m1:t1.1"]


async def test_children_are_rewound_and_redone_with_the_call(store: SessionStore, key: SessionKey) -> None:
    await begin(store, key)
    child = await ask(store, key)
    below = await ask(store, child, f"{REQUEST}:t1.0")
    await store.append(child, asked(REQUEST), first_wins=True)
    for request_id, before, rewound in (("r1", "m1", True), ("r2", "r1", False), ("r3", "m1", True)):
        await store.rewind(key, before=before, request_id=request_id)
        for _ in range(2):
            await rewind_children(store, key, request_id)
            assert [await is_rewound(store, each) for each in (child, below)] == [rewound, rewound]


async def three_levels(store: SessionStore, key: SessionKey) -> list[SessionKey]:
    """A session, an agent that it has asked, and one that this has asked."""
    await begin(store, key)
    child = replace(key, session_id=child_session_id(key.session_id, "scout", CALL))
    about = {"parent": key.session_id, "call": CALL, "agent": "scout"}
    await store.create(child, metadata=about)
    await store.begin_turn(child, user(REQUEST), epoch=None)
    await store.append(child, asked(REQUEST))
    below = await ask(store, child, f"{REQUEST}:t1.0")
    await store.append(child, event(f"{REQUEST}:m2", content=content("done", "model")))
    return [child, below]


async def live(store: SessionStore, keys: list[SessionKey]) -> list[bool]:
    """Of which the agent's turn is live, by the log; the metadata says the same."""
    told = []
    for each in keys:
        session = await store.get(each)
        there = any(said.invocation_id == REQUEST for said in session.events)
        assert there == ("rewound" not in session.metadata)
        told.append(there)
    return told


class Died(Exception):
    """The process is gone."""


def dying(monkeypatch: pytest.MonkeyPatch, at: int, *, after: bool) -> list[str]:
    """Let write number ``at``, from 1, be the last: what comes of it is done, or is not."""
    write, names = Store._write, list[str]()

    async def watched(store: Store, name: str, *args: Any, **options: Any) -> Any:
        names.append(name)
        if len(names) == at and not after:
            raise Died
        done = await write(store, name, *args, **options)
        if len(names) == at:
            raise Died
        return done

    monkeypatch.setattr(Store, "_write", watched)
    return names


async def test_s34_a_rewind_that_dies_among_the_children_is_finished_by_another(
    store: SessionStore, key: SessionKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = await three_levels(store, key)
    rewinds = 0
    for at in range(1, 5):
        for after in (False, True):
            for expected in (False, True):
                before = "m1" if not expected else f"r{rewinds}"
                rewinds += 1
                await store.rewind(key, before=before, request_id=f"r{rewinds}")
                with monkeypatch.context() as patch:
                    names = dying(patch, at, after=after)
                    with pytest.raises(Died):
                        await rewind_children(store, key, f"r{rewinds}")
                assert len(names) == at
                await rewind_children(store, key, f"r{rewinds}")
                assert await live(store, keys) == [expected, expected], (at, after, names)


async def test_an_attempt_that_comes_late_rewinds_no_child(store: SessionStore, key: SessionKey) -> None:
    keys = await three_levels(store, key)

    async def refuse() -> None:
        raise StaleEpoch("it came too late")

    await store.rewind(key, before="m1", request_id="r1")
    with pytest.raises(StaleEpoch):
        await rewind_children(store, key, "r1", confirm=refuse)
    assert await live(store, keys) == [True, True]


@pytest.mark.parametrize(
    "metadata",
    [
        {"call": "nonsense"},
        {"call": "m1:t"},
        {"call": "m1:tx.y"},
        {"call": 5},
        {"call": {"a": [1]}},
        {"call": None},
        {"call": "m1:t9.0"},
        {"call": "m1:t" + "9" * 5_000 + ".0"},
        {"rewound": "no rewind"},
        {"rewound": ["x"]},
        {"rewound": "x" * 2_000},
        {"parent": 7},
    ],
    ids=str,
)
async def test_what_was_forged_does_not_keep_a_session_from_its_rewind(
    store: SessionStore, key: SessionKey, metadata: dict[str, Any]
) -> None:
    await begin(store, key)
    await ask(store, key, "m1:t1.1", **metadata)
    child = await ask(store, key)
    await store.rewind(key, before="m1", request_id="r1")
    await rewind_children(store, key, "r1")
    assert await is_rewound(store, child)


async def test_children_that_a_user_has_steered_are_left_alone(store: SessionStore, key: SessionKey) -> None:
    await begin(store, key)
    steer: dict[str, Callable[[SessionKey], Awaitable[object]]] = {
        "m1:t1.1": store.end,
        "m1:t1.2": lambda child: store.rewind(child, before=REQUEST, request_id="mine"),
        "m1:t1.3": lambda child: store.rewind(child, before=REQUEST, request_id="r1"),
    }
    for call_id, how in steer.items():
        child = await ask(store, key, call_id)
        await say(store, child, "more")
        await how(child)
    other = await ask(store, key, "m1:t1.4")
    await say(store, other, "more")
    await store.rewind(other, before="more", request_id="r1")
    await store.rewind(key, before="m1", request_id="r1")
    await rewind_children(store, key, "r1")
    await rewind_children(store, key, "r1")
    assert [said.id for said in (await store.get(other)).events if said.id == f"{REQUEST}:m1"]


async def test_what_a_child_took_is_counted_once(store: SessionStore, key: SessionKey) -> None:
    await begin(store, key)
    child = await ask(store, key)
    took = event("more:m1", content=content("x", "model"), usage={"totalTokenCount": 7})
    await store.append(child, took)
    count = counting(store, key)
    task = CountTask(session=child.session_id, call_id=CALL)
    for _ in range(2):
        await count(task)
        assert (await store.get(key)).spent == Spent(tokens=7, model_calls=1)
    await store.rewind(key, before="m1", request_id="r1")
    await rewind_children(store, key, "r1")
    await count(task)
    await store.rewind(key, before="r1", request_id="r2")
    await count(task)
    assert (await store.get(key)).spent == Spent(tokens=7, model_calls=1), "nor by a rewind or a redo"


async def test_what_its_response_has_counted_is_not_counted_again(
    store: SessionStore, key: SessionKey
) -> None:
    await begin(store, key)
    child = await ask(store, key)
    await store.append(child, event("more:m1", usage={"totalTokenCount": 7}, content=content("x", "model")))
    spent = {"tokens": 7, "nano_usd": 0, "model_calls": 1}
    await store.append(key, event(CALL, meta={"call": {"step": 1, "index": 0}, "spent": spent}))
    await store.append(key, answer("m1"), first_wins=True)
    await counting(store, key)(CountTask(session=child.session_id, call_id=CALL))
    assert (await store.get(key)).spent == Spent(tokens=7, model_calls=1)


async def test_what_is_gone_or_ended_is_not_counted(store: SessionStore, key: SessionKey) -> None:
    await begin(store, key)
    child = await ask(store, key)
    await store.append(child, event("more:m1", usage={"totalTokenCount": 7}, content=content("x", "model")))
    count = counting(store, key)
    await count(CountTask(session="nobody", call_id=CALL))
    await store.end(key)
    await count(CountTask(session=child.session_id, call_id=CALL))
    await store.delete(key)
    await count(CountTask(session=child.session_id, call_id=CALL))
    assert [each.key for each in await store.children(key)] == [child]


def counting(store: SessionStore, key: SessionKey) -> Callable[[CountTask], Awaitable[None]]:
    """The activity, in the workflow of a session."""
    environment = ActivityEnvironment()
    environment.info = replace(environment.info, workflow_id=key.workflow_id)
    activities = AskingActivities(store)

    async def count(task: CountTask) -> None:
        await environment.run(activities.count_child, task)

    return count
