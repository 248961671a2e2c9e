"""google-adk's memory contract, on its own service and on ours; and what a rewind takes out of ours."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from google.adk.agents import LlmAgent
from google.adk.events import Event
from google.adk.memory import BaseMemoryService, InMemoryMemoryService
from google.adk.memory.memory_entry import MemoryEntry
from google.adk.models import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.sessions import BaseSessionService, InMemorySessionService, Session
from google.adk.tools.preload_memory_tool import preload_memory_tool
from google.genai import types

from integrations.google_adk import PerdureMemoryService, PerdureSessionService
from perdure.errors import InvalidOption, SessionNotFound
from tests.adk.suite.conftest import CONTRACT, NewDatabase

APP, USER = "tally", "ada"
Both = tuple[BaseSessionService, BaseMemoryService]


@pytest.fixture(params=CONTRACT)
async def both(request: pytest.FixtureRequest, new_database: NewDatabase) -> Both:
    """A session service and the memory service that goes with it."""
    if request.param == "google-adk":
        return InMemorySessionService(), InMemoryMemoryService()
    service = PerdureSessionService(store=await (await new_database(request.param)).store())
    return service, service.memory


def said(text: str, author: str = "user", invocation_id: str = "i1") -> Event:
    role = "user" if author == "user" else "model"
    content = types.Content(role=role, parts=[types.Part(text=text)])
    return Event(invocation_id=invocation_id, author=author, content=content)


async def told(sessions: BaseSessionService, *texts: str, user: str = USER) -> Session:
    """A session in which these were said, each in a turn of its own."""
    session = await sessions.create_session(app_name=APP, user_id=user)
    for number, text in enumerate(texts, 1):
        await sessions.append_event(session, said(text, invocation_id=f"i{number}"))
    return session


async def found(memory: BaseMemoryService, query: str, user: str = USER) -> list[str]:
    answer = await memory.search_memory(app_name=APP, user_id=user, query=query)
    return [text_of(entry.content) for entry in answer.memories]


def text_of(content: types.Content) -> str:
    return "".join(part.text or "" for part in content.parts or ())


async def test_what_was_said_is_found(both: Both) -> None:
    sessions, memory = both
    session = await told(sessions, "My cat is called Mia", "I live in Rome")
    await memory.add_session_to_memory(session)
    answer = await memory.search_memory(app_name=APP, user_id=USER, query="what is my CAT?")
    [entry] = [each for each in answer.memories if "cat" in text_of(each.content)]
    assert (entry.author, entry.content.role) == ("user", "user")
    assert text_of(entry.content) == "My cat is called Mia"
    assert entry.timestamp is not None
    assert await found(memory, "Rome") == ["I live in Rome"]
    assert await found(memory, "dog") == []


async def test_a_session_may_be_added_many_times(both: Both) -> None:
    sessions, memory = both
    session = await told(sessions, "red")
    await memory.add_session_to_memory(session)
    await sessions.append_event(session, said("green", invocation_id="i2"))
    for _ in range(2):
        await memory.add_session_to_memory(session)
    assert sorted(await found(memory, "red green")) == ["green", "red"]


async def test_users_are_apart(both: Both) -> None:
    sessions, memory = both
    for user in ("ada", "bob"):
        await memory.add_session_to_memory(await told(sessions, f"secret of {user}", user=user))
    assert await found(memory, "secret") == ["secret of ada"]
    assert await found(memory, "secret", "bob") == ["secret of bob"]


async def test_one_memory_is_deleted_and_stays_so(both: Both) -> None:
    sessions, memory = both
    session = await told(sessions, "red one", "red two")
    await memory.add_session_to_memory(session)
    answer = await memory.search_memory(app_name=APP, user_id=USER, query="red")
    [gone] = [entry for entry in answer.memories if text_of(entry.content) == "red one"]
    await memory.delete_memory(app_name=APP, user_id=USER, memory_id=gone.id)
    assert await found(memory, "red") == ["red two"]
    await memory.add_session_to_memory(session)
    assert await found(memory, "red") == ["red two"]


async def test_what_is_rewound_is_taken_out(ours: PerdureSessionService) -> None:
    session = await told(ours, "red", "secret")
    await ours.memory.add_session_to_memory(session)
    runner = Runner(
        app_name=APP,
        agent=LlmAgent(name="tally", model="none"),
        session_service=ours,
        artifact_service=ours.artifacts,
        memory_service=ours.memory,
    )
    await runner.rewind_async(user_id=USER, session_id=session.id, rewind_before_invocation_id="i2")
    assert await found(ours.memory, "red secret") == ["red"]
    # Also where the copy that is added is older than the rewind.
    await ours.memory.add_session_to_memory(session)
    assert await found(ours.memory, "red secret") == ["red"]


async def test_all_of_a_user_is_forgotten(ours: PerdureSessionService) -> None:
    await ours.memory.add_session_to_memory(await told(ours, "red"))
    with pytest.raises(InvalidOption, match="forget_user"):
        await ours.memory.delete_memory(app_name=APP, user_id=USER)
    assert await found(ours.memory, "red") == ["red"], "no id is no wish to forget everything"
    for _ in range(2):
        await ours.memory.forget_user(app_name=APP, user_id=USER)
    assert await found(ours.memory, "red") == []


async def test_what_it_does_not_take_is_refused(ours: PerdureSessionService) -> None:
    entry = MemoryEntry(content=types.Content(role="user", parts=[types.Part(text="red")]))
    with pytest.raises(NotImplementedError, match="add_session_to_memory"):
        await ours.memory.add_events_to_memory(app_name=APP, user_id=USER, events=[said("red")])
    with pytest.raises(NotImplementedError, match="add_session_to_memory"):
        await ours.memory.add_memory(app_name=APP, user_id=USER, memories=[entry])


async def test_google_adks_preload_memory_finds_it(ours: PerdureSessionService) -> None:
    """Before each call of the model, by what the user said."""
    await ours.memory.add_session_to_memory(await told(ours, "My cat is called Mia", "I live in Rome"))
    asked: list[LlmRequest] = []

    class Recorder(BaseLlm):
        async def generate_content_async(
            self, llm_request: LlmRequest, stream: bool = False
        ) -> AsyncGenerator[LlmResponse, None]:
            asked.append(llm_request)
            yield LlmResponse(content=types.Content(role="model", parts=[types.Part(text="Mia.")]))

    runner = Runner(
        app_name=APP,
        agent=LlmAgent(name="tally", model=Recorder(model="none"), tools=[preload_memory_tool]),
        session_service=ours,
        artifact_service=ours.artifacts,
        memory_service=ours.memory,
    )
    later = await ours.create_session(app_name=APP, user_id=USER)
    message = types.Content(role="user", parts=[types.Part(text="What is my cat called?")])
    async for _ in runner.run_async(user_id=USER, session_id=later.id, new_message=message):
        pass
    [request] = asked
    prompt = "".join(text_of(content) for content in request.contents)
    assert "user: My cat is called Mia" in prompt
    assert "Rome" not in prompt


async def test_what_is_not_there_is_said(ours: PerdureSessionService) -> None:
    elsewhere = await InMemorySessionService().create_session(app_name=APP, user_id=USER)
    with pytest.raises(SessionNotFound):
        await ours.memory.add_session_to_memory(elsewhere)
    for memory_id in ("", "x", "/1", "x/y", "x/" + "9" * 19, "x/" + "9" * 4_400):
        with pytest.raises(InvalidOption, match="is the id of no memory"):
            await ours.memory.delete_memory(app_name=APP, user_id=USER, memory_id=memory_id)


async def test_it_opens_its_own_store(new_database: NewDatabase) -> None:
    database = await new_database("sqlite")
    session = await told(database.service(), "red")
    memory = PerdureMemoryService(database.url, database.artifacts_url)
    try:
        await memory.add_session_to_memory(session)
        assert await found(memory, "red") == ["red"]
    finally:
        await memory.close()
