"""google-adk's ``Runner.rewind_async`` on our services, where it is a rewind of the store's."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from google.adk.apps.app import EventsCompactionConfig
from google.adk.apps.llm_event_summarizer import LlmEventSummarizer
from google.adk.errors import InvocationNotFoundError, StaleSessionError
from google.adk.events import Event, EventActions
from google.adk.sessions import Session
from google.genai import types

from integrations.google_adk import PerdureSessionService
from perdure.types import SessionKey
from tests.adk.suite.agents import APP, SESSION, USER, WHO, RuleModel, World
from tests.adk.suite.conftest import Database

KEY = SessionKey(app=APP, user_id=USER, session_id=SESSION)
INITIAL: dict[str, Any] = {"shop": "corner", "items": ["salt"], "nested": {"x": None}}


@pytest.fixture
async def world(ours: PerdureSessionService) -> World:
    await ours.create_session(**WHO, state={**INITIAL, "app:motd": "hi"})
    return World(ours)


async def session_of(world: World) -> Session:
    found = await world.service.get_session(**WHO)
    assert found is not None
    return found


def texts(session: Session) -> list[str]:
    """What was said by the user, as far as it is live."""
    found = (
        event.content.parts or [] for event in session.events if event.author == "user" and event.content
    )
    return [part.text or "" for parts in found for part in parts]


async def test_s24_state_given_at_creation_survives(world: World) -> None:
    await world.turn("add milk")
    second = await world.turn("add bread")
    await world.rewind(second)
    state = (await session_of(world)).state
    assert state == {**INITIAL, "items": ["salt", "milk"], "user:added": 2, "app:motd": "hi"}


async def test_s28_before_the_first_invocation_is_the_initial_state(world: World) -> None:
    first = await world.turn("add milk draw milk")
    await world.turn("add bread")
    await world.rewind(first)
    session = await session_of(world)
    assert session.state == {**INITIAL, "user:added": 2, "app:motd": "hi"}
    assert texts(session) == []
    await world.turn("hello")
    assert world.model.requests[-1] == ["hello"]


async def test_s24_state_of_a_session_whose_files_came_first_survives(ours: PerdureSessionService) -> None:
    await ours.artifacts.save_artifact(**WHO, filename="brief", artifact=types.Part(text="brief"))
    await ours.create_session(**WHO, state=INITIAL)
    world = World(ours)
    first = await world.turn("add milk")
    await world.rewind(first)
    assert (await session_of(world)).state == {**INITIAL, "user:added": 1}
    assert await world.files() == {"brief": "brief"}


async def test_s25_keys_added_after_the_target_are_gone_not_null(world: World) -> None:
    target = await world.turn("draw milk")
    await world.rewind(target)
    assert "drawn_milk" not in (await session_of(world)).state
    (marker,) = (await session_of(world)).events
    assert marker.actions.state_delta == {"drawn_milk": None}
    assert marker.actions.rewind_before_invocation_id == target
    assert marker.author == "user"


async def test_s26_what_is_the_users_is_not_touched(world: World) -> None:
    target = await world.turn("add milk")
    artifacts = world.service.artifacts
    await artifacts.save_artifact(**WHO, filename="user:cv", artifact=types.Part(text="cv"))
    await world.rewind(target)
    assert (await session_of(world)).state["user:added"] == 1
    assert await world.files() == {"user:cv": "cv"}


async def test_s27_an_unknown_invocation_changes_nothing(world: World) -> None:
    await world.turn("add milk")
    before = await session_of(world)
    with pytest.raises(InvocationNotFoundError, match="nonsense"):
        await world.rewind("nonsense")
    assert (await session_of(world)).model_dump() == before.model_dump()


async def test_s27_an_invocation_that_was_rewound_is_refused(world: World) -> None:
    first = await world.turn("add milk")
    second = await world.turn("add bread")
    await world.rewind(first)
    third = await world.turn("add eggs")
    before = await session_of(world)
    with pytest.raises(InvocationNotFoundError):
        await world.rewind(second)
    event = Event(invocation_id="r", author="user", actions=EventActions(rewind_before_invocation_id=second))
    with pytest.raises(InvocationNotFoundError, match="rewound already"):
        await world.service.append_event(await session_of(world), event)
    assert (await session_of(world)).model_dump() == before.model_dump()
    assert texts(before) == ["add eggs"]
    await world.rewind(third)
    assert (await session_of(world)).state["items"] == ["salt"]


async def test_s32_the_model_never_sees_what_was_rewound(world: World) -> None:
    await world.turn("add milk")
    target = await world.turn("add SECRET draw SECRET")
    await world.turn("say SECRET")
    await world.rewind(target)
    await world.turn("add bread")
    for request in world.model.requests[-2:]:
        assert not [text for text in request if "SECRET" in text]
    assert "add milk" in world.model.requests[-1]


async def test_s33_files_are_what_they_were(world: World) -> None:
    await world.turn("add milk draw milk")
    target = await world.turn("add bread draw bread draw milk")
    before = await world.service.artifacts.list_versions(**WHO, filename="list.txt")
    await world.rewind(target)
    artifacts = world.service.artifacts
    assert await world.files() == {"list.txt": "salt, milk", "milk.png": "milk"}
    assert await artifacts.load_artifact(**WHO, filename="bread.png") is None
    assert await artifacts.load_artifact(**WHO, filename="list.txt", version=1) is None
    assert await artifacts.list_versions(**WHO, filename="list.txt") == [0]
    await world.turn("add eggs")
    after = await artifacts.list_versions(**WHO, filename="list.txt")
    assert after[0] == 0
    assert after[1] > max(before)
    assert (await world.files())["list.txt"] == "salt, milk, eggs"


async def test_s30_a_rewind_before_a_rewind_is_redo(world: World) -> None:
    await world.turn("add milk")
    target = await world.turn("add bread draw bread")
    before, files = await session_of(world), await world.files()
    await world.rewind(target)
    marker = (await session_of(world)).events[-1]
    await world.rewind(marker.invocation_id)
    session = await session_of(world)
    assert session.state == before.state
    assert session.events[:-1] == before.events
    assert await world.files() == files
    await world.turn("hello")
    assert "add bread draw bread" in world.model.requests[-1]


async def test_s29_the_same_rewind_sent_twice_happens_once(world: World) -> None:
    first = await world.turn("add milk")
    await world.turn("add bread")
    session = await session_of(world)
    event = Event(
        invocation_id="undo", author="user", actions=EventActions(rewind_before_invocation_id=first)
    )
    await world.service.append_event(session, event.model_copy(deep=True))
    once = await session_of(world)
    await world.service.append_event(session, event.model_copy(deep=True))
    assert (await session_of(world)).model_dump() == once.model_dump() == session.model_dump()


async def test_the_session_given_is_brought_up_to_date(world: World) -> None:
    target = await world.turn("add milk")
    session = await session_of(world)
    session.state["temp:x"] = 1
    state, events = session.state, session.events
    event = Event(
        invocation_id="undo", author="user", actions=EventActions(rewind_before_invocation_id=target)
    )
    assert await world.service.append_event(session, event) is event
    found = await session_of(world)
    assert (session.state, session.events) == ({**found.state, "temp:x": 1}, found.events)
    assert session.state is state
    assert session.events is events
    assert event == found.events[-1]
    await world.service.append_event(session, Event(author="user", message="on"))
    assert len((await session_of(world)).events) == 2


async def test_s35_a_rewind_during_a_turn_refuses_its_late_writes(world: World) -> None:
    await world.turn("add milk")
    running = asyncio.create_task(world.ask("add SECRET wait"))
    await world.gate.entered.wait()
    target = (await session_of(world)).events[-1].invocation_id
    await world.rewind(target)
    after = await session_of(world)
    world.gate.opened.set()
    with pytest.raises(StaleSessionError):
        await running
    assert (await session_of(world)).model_dump() == after.model_dump()
    assert (await session_of(world)).state["items"] == ["salt", "milk"]
    await world.turn("hello")
    assert not [text for text in world.model.requests[-1] if "SECRET" in text]


async def test_the_log_keeps_everything(database: Database, world: World) -> None:
    target = await world.turn("add milk")
    await world.rewind(target)
    store = await database.store()
    log = await store.log(KEY)
    assert [event.live for event in log] == [False] * (len(log) - 1) + [True]
    assert [event.text for event in log if event.author == "user"] == ["add milk"]
    assert log[-1].rewind is not None


async def test_a_rewind_by_perdure_is_seen(database: Database, world: World) -> None:
    await world.turn("add milk")
    target = await world.turn("add bread")
    store = await database.store()
    await store.rewind(KEY, before=target, request_id="undo")
    session = await session_of(world)
    assert session.events[-1].actions.rewind_before_invocation_id == target
    assert session.state["items"] == ["salt", "milk"]
    await world.rewind("undo")
    assert (await session_of(world)).state["items"] == ["salt", "milk", "bread"]


async def test_s31_a_rewind_into_what_google_adk_compacted(ours: PerdureSessionService) -> None:
    await ours.create_session(**WHO)
    summarizer = LlmEventSummarizer(llm=RuleModel())
    config = EventsCompactionConfig(summarizer=summarizer, compaction_interval=2, overlap_size=0)
    world = World(ours, compaction=config)
    invocations = [await world.turn(f"say number{number}") for number in range(4)]
    await world.rewind(invocations[1])
    session = await session_of(world)
    assert texts(session) == ["say number0"]
    assert not [event for event in session.events if event.actions.compaction]
    await world.turn("say number9")
    assert [text for text in world.model.requests[-1] if "number" in text] == ["say number0", "say number9"]


@pytest.mark.parametrize("seed", range(2))
async def test_s37_random_turns_rewinds_and_redos_against_snapshots(world: World, seed: int) -> None:
    chance = random.Random(seed)
    snapshots: list[tuple[str, Any]] = []  # each live invocation, and what was before it
    hidden: dict[str, list[tuple[str, Any]]] = {}  # what each rewind took away

    async def now() -> Any:
        session = await session_of(world)
        own = {name: value for name, value in session.state.items() if not name.startswith("user:")}
        return texts(session), own, await world.files()

    for number in range(16):
        if not snapshots or chance.random() < 0.6:
            before = await now()
            text = f"add item{number} draw pic{chance.randrange(3)}"
            snapshots.append((await world.turn(text), before))
            continue
        at = chance.randrange(len(snapshots))
        invocation, expected = snapshots[at]
        before, live = await now(), list(snapshots)
        await world.rewind(invocation)
        assert await now() == expected
        marker = (await session_of(world)).events[-1].invocation_id
        hidden[marker] = live
        snapshots = [*hidden.get(invocation, live[:at]), (marker, before)]
