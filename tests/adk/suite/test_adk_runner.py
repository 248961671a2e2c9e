"""google-adk's ``Runner`` on our services: nothing of the agent is ours, and nothing of it is lost."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest
from google.adk.agents.run_config import RunConfig
from google.adk.apps.app import EventsCompactionConfig
from google.adk.apps.llm_event_summarizer import LlmEventSummarizer
from google.adk.events import Event
from google.adk.sessions import Session
from google.genai import types

from integrations.google_adk import PerdureSessionService
from tests.adk.suite.agents import SESSION, USER, WHO, RuleModel, World
from tests.adk.suite.conftest import Database


@pytest.fixture
async def world(ours: PerdureSessionService) -> World:
    await ours.create_session(**WHO, state={"shop": "corner"})
    return World(ours)


async def reloaded(database: Database) -> Session:
    """The session as another process sees it."""
    found = await database.service().get_session(**WHO)
    assert found is not None
    return found


async def test_20_turns_with_tools_that_change_state_and_save_files(database: Database, world: World) -> None:
    given: list[Event] = []
    for number in range(20):
        given += await world.ask(f"add item{number} add more{number} draw pic{number}")
    items = [f"{kind}{number}" for number in range(20) for kind in ("item", "more")]

    session = await reloaded(database)
    drawn = {f"drawn_pic{number}": True for number in range(20)}
    assert session.state == {"shop": "corner", "items": items, "user:added": 40, **drawn}
    users = [event for event in session.events if event.author == "user"]
    assert len(users) == 20
    assert [event for event in session.events if event.author != "user"] == given
    assert len(session.events) == 80  # a message, the calls, their responses, the answer

    assert await world.service.artifacts.list_versions(**WHO, filename="list.txt") == list(range(40))
    files = await world.files()
    assert files.pop("list.txt") == ", ".join(items)
    assert files == {f"pic{number}.png": f"pic{number}" for number in range(20)}
    for event in session.events:
        for name, version in event.actions.artifact_delta.items():
            saved = await world.service.artifacts.load_artifact(**WHO, filename=name, version=version)
            assert saved is not None


async def test_the_model_is_sent_the_whole_conversation(world: World) -> None:
    for number in range(5):
        await world.ask(f"add item{number}")
    last = world.model.requests[-1]
    assert [text for text in last if text.startswith("add")] == [f"add item{n}" for n in range(5)]
    assert len(last) == 5 * 4 - 1
    session = await world.service.get_session(**WHO)
    assert session is not None
    parts = [part for event in session.events if event.content for part in event.content.parts or []]
    signatures = [part.thought_signature for part in parts if part.function_call]
    assert signatures == [b"\xff\xfe"] * 5


async def test_a_turn_goes_on_in_another_process(database: Database, world: World) -> None:
    await world.ask("add milk")
    other = World(database.service())
    await other.ask("add bread")
    assert (await reloaded(database)).state["items"] == ["milk", "bread"]
    assert "add milk" in other.model.requests[0]
    await world.ask("add eggs")
    assert (await reloaded(database)).state["items"] == ["milk", "bread", "eggs"]


async def test_s5_pieces_of_a_streamed_answer_are_not_stored(database: Database, world: World) -> None:
    given = await world.ask("hello", run_config=RunConfig.model_validate({"streaming_mode": "sse"}))
    assert [event.partial for event in given] == [True, None]
    session = await reloaded(database)
    assert len(session.events) == 2
    assert session.events[1] == given[1]


async def test_state_given_with_a_message(database: Database, world: World) -> None:
    message = types.Content(role="user", parts=[types.Part(text="hello")])
    run = world.runner.run_async(
        user_id=USER, session_id=SESSION, new_message=message, state_delta={"n": 1, "temp:x": 1}
    )
    assert len([event async for event in run]) == 1
    assert (await reloaded(database)).state == {"shop": "corner", "n": 1}


async def test_google_adks_own_compaction(database: Database, ours: PerdureSessionService) -> None:
    await ours.create_session(**WHO)
    summarizer = LlmEventSummarizer(llm=RuleModel())
    config = EventsCompactionConfig(summarizer=summarizer, compaction_interval=2, overlap_size=0)
    world = World(ours, compaction=config)
    for number in range(5):
        await world.ask(f"say number{number}")
    compactions = [e.actions.compaction for e in (await reloaded(database)).events if e.actions.compaction]
    assert len(compactions) == 2
    assert compactions[0].compacted_content.parts is not None
    # The last prompt: two summaries and the new message.
    assert [text for text in world.model.requests[-1] if "number" in text] == ["say number4"]


# Nobody can close what Runner.run opened in its loop; it is collected here, where that is expected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_synchronous_run_has_a_loop_of_its_own(tmp_path: Path) -> None:
    found = three_loops(PerdureSessionService(f"sqlite:///{tmp_path}/adk.db", f"file://{tmp_path}/artifacts"))
    assert found is not None
    assert found.state["items"] == ["milk"]
    gc.collect()


def three_loops(service: PerdureSessionService) -> Session | None:
    """A session made in one loop, used in that of ``Runner.run``, and read in another."""

    async def begin() -> None:
        await service.create_session(**WHO)
        await service.close()

    async def read() -> Session | None:
        try:
            return await service.get_session(**WHO)
        finally:
            await service.close()

    asyncio.run(begin())
    message = types.Content(role="user", parts=[types.Part(text="add milk")])
    given = World(service).runner.run(user_id=USER, session_id=SESSION, new_message=message)
    assert [event.author for event in given] == ["shopper"] * 3
    return asyncio.run(read())
