"""The soak's checker finds what is wrong: a story is told right once, and then wrong in each way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio

from gateway.runner import Answer
from perdure.types import Event, Session, SessionKey
from storage.sessions import SessionStore
from tests.soak.agents import bytes_of
from tests.soak.claims import claims
from tests.soak.ledger import Ledger, Sent, Steered
from tests.soak.replay import Replay

KEY = SessionKey(app="soak", user_id="alice", session_id="s0")


@dataclass
class Story:
    """A session as it is, and as its client was told."""

    ledger: Ledger
    session: Session
    log: list[Event]

    def change(self, event_id: str, **fields: Any) -> None:
        """Have an event be otherwise."""
        self.log = [replace(event, **fields) if event.id == event_id else event for event in self.log]

    def wrong(self) -> list[str]:
        """What the checker says."""
        return [*claims(self.ledger, self.log), *Replay().play(self.session, self.log)]


def content(role: str, *parts: Any) -> dict[str, Any]:
    return {"role": role, "parts": list(parts)}


async def turn(store: SessionStore, ledger: Ledger, *deeds: str) -> None:
    """A turn with a call of ``work`` that does this, or with none."""
    name = ledger.new_id("m")
    orders = [" ".join([f"{name}.0", *deeds])] if deeds else []
    text = f"work on '{orders[0]}'" if deeds else f"hello from {name}."
    sent = Sent(id=name, text=text, tool="work" if deeds else None, orders=orders, group=ledger.next_group())
    ledger.sent[name] = sent
    user = Event(
        id=f"{name}:user", invocation_id=name, author="user", content=content("user", {"text": text})
    )
    await store.begin_turn(KEY, user, epoch=None)
    step = 1
    if deeds:
        call = {"functionCall": {"name": "work", "args": {"order": orders[0]}}}
        await store.append(KEY, model(name, step, call))
        await store.append(KEY, await response(store, name, orders[0]))
        step = 2
    last = await store.append(KEY, model(name, step, {"text": f"did {name}"}))
    sent.answers.append(Answer(invocation_id=name, status="answered", seq=last.seq, text=last.text))


def model(name: str, step: int, part: dict[str, Any]) -> Event:
    said = content("model", part)
    return Event(id=f"{name}:m{step}", invocation_id=name, author="soak", content=said, meta={"step": step})


async def response(store: SessionStore, name: str, order: str) -> Event:
    event_id, n = f"{name}:t1.0", int((await store.get(KEY)).state.get("own", 0))
    data = bytes_of(order, f"{KEY}:{event_id}")
    version = await store.stage_artifact(KEY, "worked.txt", data, "text/plain", event_id=event_id)
    said = {"functionResponse": {"name": "work", "response": {"result": f"did {order}"}}}
    return Event(
        id=event_id,
        invocation_id=name,
        author="soak",
        content=content("user", said),
        state_delta={"own": n + 1},
        artifact_delta={"worked.txt": version},
        meta={"call": {"step": 1, "index": 0}},
    )


async def rewind(store: SessionStore, ledger: Ledger, before: str) -> None:
    name = ledger.new_id("r")
    done = await store.rewind(KEY, before=before, request_id=name)
    ledger.steered[name] = Steered(
        kind="rewind",
        id=name,
        before=before,
        group=ledger.next_group(),
        seq=done.event.seq,
        acknowledged=True,
    )


@pytest_asyncio.fixture
async def story() -> AsyncIterator[Story]:
    """m1 says hello, m2 and m3 work, r4 takes m3 back, m5 says hello."""
    store = await SessionStore.open("sqlite://", "memory://soak-checker", migrate=True)
    ledger = Ledger(key=KEY)
    await turn(store, ledger)
    await turn(store, ledger, "own", "file")
    await turn(store, ledger, "own", "file")
    await rewind(store, ledger, "s0-m3")
    await turn(store, ledger)
    yield Story(ledger, await store.get(KEY), await store.log(KEY))
    await store.close()


async def test_what_is_right_is_right(story: Story) -> None:
    assert story.wrong() == []


async def test_a_message_that_was_cancelled_before_its_turn_is_not_in_the_log(story: Story) -> None:
    name = story.ledger.new_id("m")
    told = Answer(invocation_id=name, status="cancelled", seq=0, text="")
    sent = Sent(id=name, text="hello", tool=None, orders=[], group=story.ledger.next_group(), answers=[told])
    story.ledger.sent[name] = sent
    assert story.wrong() == []
    sent.answers[0] = replace(told, seq=3)
    assert story.wrong() == [f"{name}: an asker was told cancelled, and the log has None"]


def drop(event_id: str) -> Callable[[Story], None]:
    def change(story: Story) -> None:
        kept = [event for event in story.log if event.id != event_id]
        story.log = [replace(event, seq=seq) for seq, event in enumerate(kept, 1)]

    return change


def double(event_id: str) -> Callable[[Story], None]:
    def change(story: Story) -> None:
        [event] = [event for event in story.log if event.id == event_id]
        story.log.append(replace(event, seq=len(story.log) + 1))

    return change


def other(event_id: str, **fields: Any) -> Callable[[Story], None]:
    return lambda story: story.change(event_id, **fields)


def told(message: str, **fields: Any) -> Callable[[Story], None]:
    """Another asker was told something else."""

    def change(story: Story) -> None:
        sent = story.ledger.sent[message]
        sent.answers.append(replace(sent.answers[0], **fields))

    return change


def forget(story: Story) -> None:
    del story.ledger.sent["s0-m5"]


def bill(name: str, **more: Any) -> Callable[[Story], None]:
    def change(story: Story) -> None:
        meta = {"spent": {"tokens": 1, "nano_usd": 0, "model_calls": 1}}
        seq = len(story.log) + 1
        story.log.append(Event(id=name, invocation_id=name, author="perdure", meta=meta, seq=seq, **more))

    return change


def refuse(story: Story) -> None:
    steered = story.ledger.steered["s0-r4"]
    steered.refused, steered.acknowledged, steered.seq = "InvocationNotFound", False, None


def unwind(story: Story) -> None:
    story.session = replace(story.session, projection=[[1, None]])


def miscount(story: Story) -> None:
    story.session = replace(story.session, state={"own": 2})


def misplace(story: Story) -> None:
    story.ledger.sent["s0-m5"].group = 0


WRONG: dict[str, tuple[Callable[[Story], None], str]] = {
    "an answer is lost": (drop("s0-m5:m1"), "is not in the log"),
    "a response is lost": (drop("s0-m2:t1.0"), "calls have the responses []"),
    "a message is lost": (drop("s0-m1:user"), "the user's event is not what was sent"),
    "a rewind is lost": (drop("s0-r4:rewind"), "acknowledged at 11, and is at []"),
    "an event is there twice": (double("s0-m1:user"), "is there 2 times"),
    "the log has a hole": (other("s0-m5:m1", seq=99), "not dense"),
    "an answer is another's": (
        other("s0-m1:m1", content=content("model", {"text": "hi"})),
        "is not in the log",
    ),
    "a turn failed": (other("s0-m1:m1", error={"type": "X", "message": "y"}), "failed"),
    "a state change is lost": (other("s0-m2:t1.0", state_delta={}), "should be"),
    "a state change is not undone right": (other("s0-m3:t1.0", state_undo={"own": 7}), "should be"),
    "a rewind went elsewhere": (
        other("s0-r4:rewind", rewind={"before": "s0-m2", "seq": 3, "projection": [[1, None]]}),
        "should be",
    ),
    "askers are told two things": (told("s0-m1", status="cancelled", seq=0, text=""), "askers were told"),
    "an asker is told of a failure": (told("s0-m1", status="failed"), "it failed"),
    "an asker is told another text": (told("s0-m1", text="did it"), "is not in the log"),
    "nobody asked": (forget, "nobody asked for"),
    "a bill is nobody's": (bill("s0-m9:m1:spent1"), "of an invocation that nobody asked for"),
    "a bill says something": (bill("s0-m1:m1:spent1", state_delta={"n": 1}), "that nobody asked for"),
    "a refused rewind happened": (refuse, "it was refused (InvocationNotFound), and happened at 11"),
    "the projection shows what was rewound": (unwind, "the projection should be"),
    "a counter is off": (miscount, "its state should be"),
    "two were done in the wrong order": (misplace, "had been acknowledged"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_is_wrong_is_found(story: Story, name: str) -> None:
    change, expected = WRONG[name]
    change(story)
    found = story.wrong()
    assert any(expected in what for what in found), found


async def test_a_summary_that_parts_a_call_from_its_response_is_found(story: Story) -> None:
    moment: Sequence[Event] = story.log[:5]
    for end, wrong in ((4, True), (5, False)):
        covered = {"start": 1, "end": end, "tail": end + 1}
        summary = Event(
            id="s0-m2:compact",
            invocation_id="s0-m2",
            author="perdure",
            content=content("user", {"text": "a summary"}),
            compaction=covered,
            seq=6,
            created_at=story.log[0].created_at,
        )
        session = replace(story.session, head=6, events=[*moment, summary], projection=[[1, None]])
        found = list(Replay().play(session, [*moment, summary]))
        assert any("parts call 0 of s0-m2:m1" in what for what in found) == wrong, found
