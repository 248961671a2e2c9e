"""The contract of ``BaseSessionService``, as its docs state it, held against three implementations."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from google.adk.errors.already_exists_error import AlreadyExistsError
from google.adk.errors.session_not_found_error import SessionNotFoundError
from google.adk.events import Event, EventActions
from google.adk.sessions import BaseSessionService, Session
from google.adk.sessions.base_session_service import GetSessionConfig
from pydantic import ValidationError

from tests.adk.suite.conftest import Services

APP, USER = "shop", "ada"
START = 1_700_000_000.0


@pytest.fixture
def sessions(services: Services) -> BaseSessionService:
    return services.sessions


async def created(
    sessions: BaseSessionService,
    session_id: str = "s1",
    state: dict[str, Any] | None = None,
    *,
    user: str = USER,
) -> Session:
    return await sessions.create_session(app_name=APP, user_id=user, session_id=session_id, state=state)


async def reloaded(
    sessions: BaseSessionService, name: str = "s1", user: str = USER, config: GetSessionConfig | None = None
) -> Session:
    found = await sessions.get_session(app_name=APP, user_id=user, session_id=name, config=config)
    assert found is not None
    return found


def said(text: str, delta: dict[str, Any] | None = None, *, at: float | None = None) -> Event:
    event = Event(
        invocation_id="i1", author="user", message=text, actions=EventActions(state_delta=delta or {})
    )
    event.timestamp = event.timestamp if at is None else at
    return event


def assert_same(one: Session, other: Session) -> None:
    """Equal but for the services' private marks."""
    assert one.model_dump() == other.model_dump()


async def test_a_session_is_created_with_the_id_and_the_state_given(sessions: BaseSessionService) -> None:
    before = time.time()
    session = await created(sessions, "given", {"name": "Ada", "items": [1, {"two": None}]})
    assert (session.app_name, session.user_id, session.id) == (APP, USER, "given")
    assert session.state == {"name": "Ada", "items": [1, {"two": None}]}
    assert session.events == []
    assert before - 1 <= session.last_update_time <= time.time() + 1
    assert_same(await reloaded(sessions, "given"), session)


@pytest.mark.parametrize("given", [None, "", "  "])
async def test_an_id_is_generated_where_none_is_given(
    sessions: BaseSessionService, given: str | None
) -> None:
    one = await sessions.create_session(app_name=APP, user_id=USER, session_id=given)
    two = await sessions.create_session(app_name=APP, user_id=USER)
    assert one.id.strip() == one.id != ""
    assert two.id != one.id


async def test_spaces_around_an_id_do_not_count(sessions: BaseSessionService) -> None:
    session = await created(sessions, "  s1 ")
    assert session.id == "s1"
    assert (await reloaded(sessions, " s1")).id == "s1"


async def test_s12_an_id_that_is_taken_is_refused(sessions: BaseSessionService) -> None:
    await created(sessions, state={"kept": 1})
    with pytest.raises(AlreadyExistsError, match="s1"):
        await created(sessions, state={"kept": 2})
    assert (await reloaded(sessions)).state == {"kept": 1}


async def test_what_is_not_there_is_none(sessions: BaseSessionService) -> None:
    await created(sessions)
    for app, user, name in [("other", USER, "s1"), (APP, "bob", "s1"), (APP, USER, "s2"), (APP, USER, "")]:
        assert await sessions.get_session(app_name=app, user_id=user, session_id=name) is None


async def test_s21_the_same_id_under_two_users_never_mixes(sessions: BaseSessionService) -> None:
    hers, his = await created(sessions), await created(sessions, user="bob")
    await sessions.append_event(hers, said("mine", {"secret": 1}))
    await sessions.append_event(his, said("his"))
    assert (await reloaded(sessions, user="bob")).state == {}
    assert [event.message.parts[0].text for event in (await reloaded(sessions)).events] == ["mine"]


async def test_an_append_brings_the_given_session_up_to_date(sessions: BaseSessionService) -> None:
    session = await created(sessions, state={"a": 1})
    event = said("hello", {"a": 2, "b": "x"}, at=START + 10)
    assert await sessions.append_event(session, event) is event
    assert session.events == [event]
    assert session.state == {"a": 2, "b": "x"}
    assert session.last_update_time == pytest.approx(START + 10, abs=1e-6)
    assert_same(await reloaded(sessions), session)


async def test_s5_a_partial_event_changes_nothing(sessions: BaseSessionService) -> None:
    session = await created(sessions)
    event = said("hel", {"n": 1})
    event.partial = True
    assert await sessions.append_event(session, event) is event
    assert (session.events, session.state) == ([], {})
    assert_same(await reloaded(sessions), session)


async def test_s4_the_same_event_again_happens_once(sessions: BaseSessionService) -> None:
    session = await created(sessions)
    event = said("once", {"n": 1})
    await sessions.append_event(session, event)
    await sessions.append_event(session, said("more", {"n": 2}))
    await sessions.append_event(session, event)
    assert session.state == {"n": 2}
    assert len(session.events) == len((await reloaded(sessions)).events) == 2
    assert (await reloaded(sessions)).state == {"n": 2}


async def test_an_append_to_a_deleted_session_is_refused(sessions: BaseSessionService) -> None:
    session = await created(sessions)
    await sessions.delete_session(app_name=APP, user_id=USER, session_id="s1")
    with pytest.raises(SessionNotFoundError, match="s1"):
        await sessions.append_event(session, said("late", {"n": 1}))
    assert (session.events, session.state) == ([], {})


async def test_delete_takes_one_session_and_twice_is_as_once(sessions: BaseSessionService) -> None:
    await created(sessions, state={"user:kept": 1})
    await created(sessions, "s2")
    for _ in range(2):
        await sessions.delete_session(app_name=APP, user_id=USER, session_id="s1")
    assert await sessions.get_session(app_name=APP, user_id=USER, session_id="s1") is None
    assert (await reloaded(sessions, "s2")).state == {"user:kept": 1}
    assert (await created(sessions)).events == []


async def test_s16_scopes_of_state(sessions: BaseSessionService) -> None:
    session = await created(sessions, state={"own": 1, "user:unit": "km", "app:motd": "hi"})
    await sessions.append_event(session, said("x", {"user:unit": "mi", "app:motd": "yo", "own": 2}))
    assert (await reloaded(sessions)).state == {"own": 2, "user:unit": "mi", "app:motd": "yo"}
    assert (await created(sessions, "s2")).state == {"user:unit": "mi", "app:motd": "yo"}
    assert (await created(sessions, user="bob")).state == {"app:motd": "yo"}
    other = await sessions.create_session(app_name="other", user_id=USER)
    assert other.state == {}


async def test_s15_temp_state_is_in_the_session_given_and_not_stored(
    sessions: BaseSessionService,
) -> None:
    session = await created(sessions, state={"temp:at_start": 1})
    event = said("x", {"temp:draft": "a", "kept": 1})
    await sessions.append_event(session, event)
    assert session.state == {"temp:draft": "a", "kept": 1}
    assert event.actions.state_delta == {"kept": 1}
    assert (await reloaded(sessions)).state == {"kept": 1}
    assert_same(await reloaded(sessions), session.model_copy(update={"state": {"kept": 1}}))


async def test_keys_that_begin_with_temp_and_an_underscore_are_ordinary(sessions: BaseSessionService) -> None:
    session = await created(sessions, state={"temp_unit": "C", "adk:temp_x": 1, "adk:other": 2})
    event = said("x", {"temp_unit": "F", "adk:adk:temp_x": 3})
    await sessions.append_event(session, event)
    expected = {"temp_unit": "F", "adk:temp_x": 1, "adk:other": 2, "adk:adk:temp_x": 3}
    assert session.state == expected
    found = await reloaded(sessions)
    assert_same(found, session)


async def test_the_users_state_without_a_session(sessions: BaseSessionService) -> None:
    assert await sessions.get_user_state(app_name=APP, user_id=USER) == {}
    await created(sessions, state={"own": 1, "user:unit": "km", "app:x": 1})
    await created(sessions, state={"user:unit": "mi"}, user="bob")
    assert await sessions.get_user_state(app_name=APP, user_id=USER) == {"unit": "km"}
    await sessions.delete_session(app_name=APP, user_id=USER, session_id="s1")
    assert await sessions.get_user_state(app_name=APP, user_id=USER) == {"unit": "km"}
    assert await sessions.get_user_state(app_name="other", user_id=USER) == {}
    listed = await sessions.list_sessions(app_name=APP, user_id=USER)
    assert listed.sessions == []


async def test_s1_events_of_one_timestamp_reload_in_the_order_appended(sessions: BaseSessionService) -> None:
    session = await created(sessions)
    for number in range(8):
        await sessions.append_event(session, said(str(number), at=START))
    found = await reloaded(sessions)
    assert [event.message.parts[0].text for event in found.events] == list("01234567")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GetSessionConfig(), [0, 1, 2, 3, 4]),
        (GetSessionConfig(num_recent_events=0), []),
        (GetSessionConfig(num_recent_events=2), [3, 4]),
        (GetSessionConfig(num_recent_events=99), [0, 1, 2, 3, 4]),
        (GetSessionConfig(after_timestamp=START + 2), [2, 3, 4]),
        (GetSessionConfig(after_timestamp=START + 2.5), [3, 4]),
        (GetSessionConfig(after_timestamp=START + 99), []),
        (GetSessionConfig(after_timestamp=0), [0, 1, 2, 3, 4]),
        (GetSessionConfig(after_timestamp=START + 1, num_recent_events=2), [3, 4]),
        (GetSessionConfig(after_timestamp=START + 4, num_recent_events=3), [4]),
        (GetSessionConfig(after_timestamp=START + 1, num_recent_events=0), []),
    ],
    ids=str,
)
async def test_s46_which_events_are_read(
    sessions: BaseSessionService, config: GetSessionConfig, expected: list[int]
) -> None:
    session = await created(sessions)
    for number in range(5):
        await sessions.append_event(session, said(str(number), {"n": number}, at=START + number))
    found = await reloaded(sessions, config=config)
    assert [int(event.message.parts[0].text) for event in found.events] == expected
    assert found.state == {"n": 4}
    assert found.last_update_time == pytest.approx(START + 4, abs=1e-6)


def test_a_negative_number_of_events_is_refused() -> None:
    with pytest.raises(ValidationError):
        GetSessionConfig(num_recent_events=-1)


async def test_a_session_read_in_part_can_be_appended_to(sessions: BaseSessionService) -> None:
    session = await created(sessions)
    await sessions.append_event(session, said("one"))
    part = await reloaded(sessions, config=GetSessionConfig(num_recent_events=0))
    await sessions.append_event(part, said("two"))
    assert len(part.events) == 1
    assert len((await reloaded(sessions)).events) == 2


async def test_lists_are_ordered_by_last_update_oldest_first(sessions: BaseSessionService) -> None:
    for name, at in [("s1", 300), ("s2", 100), ("s3", 200)]:
        session = await created(sessions, name, {"own": name, "user:u": 1})
        await sessions.append_event(session, said("x", at=START + at))
    listed = (await sessions.list_sessions(app_name=APP, user_id=USER)).sessions
    assert [session.id for session in listed] == ["s2", "s3", "s1"]
    assert [session.last_update_time - START for session in listed] == pytest.approx([100, 200, 300])
    assert not any(session.events for session in listed)


async def test_lists_are_of_a_user_or_of_all(sessions: BaseSessionService) -> None:
    for user, name in [(USER, "s1"), ("bob", "s1"), ("bob", "s2")]:
        await created(sessions, name, user=user)
    await sessions.create_session(app_name="other", user_id=USER)
    everyones = await sessions.list_sessions(app_name=APP)
    assert sorted((one.user_id, one.id) for one in everyones.sessions) == [
        (USER, "s1"),
        ("bob", "s1"),
        ("bob", "s2"),
    ]
    assert len((await sessions.list_sessions(app_name=APP, user_id="bob")).sessions) == 2
    assert (await sessions.list_sessions(app_name=APP, user_id="nobody")).sessions == []
    assert (await sessions.list_sessions(app_name="nothing")).sessions == []


async def test_parallel_branches_share_a_session(sessions: BaseSessionService) -> None:
    session = await created(sessions)
    await asyncio.gather(*(sessions.append_event(session, said(str(n), {f"k{n}": n})) for n in range(10)))
    found = await reloaded(sessions)
    assert found.state == session.state == {f"k{n}": n for n in range(10)}
    assert [event.id for event in found.events] == [event.id for event in session.events]


async def test_what_is_returned_is_a_copy(sessions: BaseSessionService) -> None:
    await created(sessions, state={"items": [1]})
    found = await reloaded(sessions)
    found.state["items"].append(2)
    found.events.append(said("not appended"))
    assert (await reloaded(sessions)).state == {"items": [1]}
    assert (await reloaded(sessions)).events == []


async def test_flush_is_there(sessions: BaseSessionService) -> None:
    await sessions.flush()
