"""Every field of an event reloads as it was; and what the log says of it to those who know no google-adk."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.openapi.models import APIKey
from google.adk.auth.auth_tool import AuthConfig
from google.adk.events import Event, EventActions
from google.adk.events.event import NodeInfo
from google.adk.events.event_actions import EventCompaction
from google.adk.events.ui_widget import UiWidget
from google.adk.models.cache_metadata import CacheMetadata
from google.adk.tools.tool_confirmation import ToolConfirmation
from google.genai import types
from pydantic import BaseModel

from integrations.google_adk import PerdureSessionService
from integrations.google_adk.events import from_adk, to_adk
from perdure.errors import EventConflict, InvalidContent
from perdure.types import Event as LogEvent
from perdure.types import SessionKey
from tests.adk.suite.conftest import Database

KEY = SessionKey(app="shop", user_id="ada", session_id="s1")
BYTES = bytes(range(256))

CONTENT = types.Content(
    role="model",
    parts=[
        types.Part(text="Größe 大 🙂", thought=True, thought_signature=BYTES),
        types.Part(inline_data=types.Blob(mime_type="image/png", data=BYTES, display_name="a.png")),
        types.Part(
            function_call=types.FunctionCall(id="c1", name="f", args={"a": None, "b": [1.0, {"c": None}]}),
            thought_signature=b"\xff\xfe",
        ),
        types.Part(function_response=types.FunctionResponse(id="c1", name="f", response={"r": None})),
        types.Part(executable_code=types.ExecutableCode(code="1+1", language=types.Language.PYTHON)),
        types.Part(file_data=types.FileData(file_uri="gs://b/o", mime_type="text/plain")),
    ],
)
AUTH = AuthConfig(auth_scheme=APIKey(**{"type": "apiKey", "in": "header", "name": "k"}), credential_key="c")
VALUES: dict[str, Any] = {
    "content": CONTENT,
    "model_version": "gemini-3",
    "grounding_metadata": types.GroundingMetadata(web_search_queries=["q"]),
    "partial": False,
    "turn_complete": True,
    "turn_complete_reason": next(iter(types.TurnCompleteReason)),
    "interaction_status": next(iter(types.InteractionStatus)),
    "finish_reason": types.FinishReason.MAX_TOKENS,
    "error_code": "429",
    "error_message": "slow down",
    "interrupted": True,
    "custom_metadata": {"a": None, "b": {"c": [1]}},
    "usage_metadata": types.GenerateContentResponseUsageMetadata(
        prompt_token_count=3, total_token_count=5, cached_content_token_count=0
    ),
    "live_session_resumption_update": types.LiveServerSessionResumptionUpdate(new_handle="h", resumable=True),
    "live_session_id": "live",
    "go_away": types.LiveServerGoAway(time_left="3s"),
    "voice_activity": types.VoiceActivity(voice_activity_type=next(iter(types.VoiceActivityType))),
    "input_transcription": types.Transcription(text="in", finished=True),
    "output_transcription": types.Transcription(text="out", finished=False),
    "avg_logprobs": -0.12345678901234567,
    "logprobs_result": types.LogprobsResult(
        chosen_candidates=[types.LogprobsResultCandidate(token="a", token_id=1, log_probability=-0.5)]
    ),
    "cache_metadata": CacheMetadata(fingerprint="f", contents_count=2),
    "citation_metadata": types.CitationMetadata(citations=[types.Citation(uri="https://x.test")]),
    "interaction_id": "int",
    "environment_id": "env",
    "invocation_id": "i1",
    "author": "shopper",
    "actions": EventActions(
        skip_summarization=True,
        state_delta={"n": 1, "gone": None, "user:u": {"x": None}, "temp_x": [1.5]},
        artifact_delta={"a.txt": 0, "user:b": 3},
        transfer_to_agent="other",
        transfer_reason="why",
        escalate=True,
        requested_auth_configs={"c1": AUTH},
        requested_tool_confirmations={"c1": ToolConfirmation(hint="sure?", payload={"a": 1})},
        compaction=EventCompaction(start_timestamp=1.5, end_timestamp=2.5, compacted_content=CONTENT),
        end_of_agent=True,
        agent_state={"step": None},
        route=["a", 1, True],
        render_ui_widgets=[UiWidget(id="w", provider="mcp")],
        set_model_response={"x": 1},
    ),
    "output": {"answer": None, "n": 1},
    "node_info": NodeInfo(path="a/b@1", output_for=["a"], message_as_output=True),
    "long_running_tool_ids": {"c2", "c1"},
    "branch": "root.child",
    "isolation_scope": "c1",
    "id": "event-1",
    "timestamp": 1700000000.1234567,
}


async def through(service: PerdureSessionService, event: Event) -> Event:
    session = await service.create_session(app_name="shop", user_id="ada", session_id="s1")
    await service.append_event(session, event)
    found = await service.get_session(app_name="shop", user_id="ada", session_id="s1")
    assert found is not None
    (stored,) = found.events
    return stored


def test_the_values_cover_every_field() -> None:
    assert set(VALUES) == set(Event.model_fields)
    said = set(VALUES["actions"].model_fields_set) | {"rewind_before_invocation_id"}
    assert said == set(EventActions.model_fields)


async def test_s3_every_field_reloads(ours: PerdureSessionService) -> None:
    event = Event(**VALUES)
    stored = await through(ours, event.model_copy(deep=True))
    for name in Event.model_fields:
        assert getattr(stored, name) == getattr(event, name), name
        assert type(getattr(stored, name)) is type(getattr(event, name)), name
    assert stored == event


@pytest.mark.parametrize("name", sorted(set(VALUES) - {"id", "timestamp"}))
def test_s3_each_field_alone_reloads(name: str) -> None:
    event = Event(**{name: VALUES[name]})
    assert to_adk(from_adk(event)) == event


def test_s3_an_event_with_nothing_set_reloads() -> None:
    event = Event()
    assert to_adk(from_adk(event)) == event


@pytest.mark.parametrize("field", ["long_running_tool_ids", "custom_metadata"])
def test_s3_empty_is_not_missing(field: str) -> None:
    event = Event(**{field: type(VALUES[field])()})
    assert getattr(to_adk(from_adk(event)), field) == getattr(event, field) is not None


@pytest.mark.parametrize("moment", [0.0, 1.5, 1700000000.1234567, 4e9, 1e15, -1.0])
async def test_s3_a_timestamp_reloads_to_the_last_digit(ours: PerdureSessionService, moment: float) -> None:
    assert (await through(ours, Event(author="user", timestamp=moment))).timestamp == moment


async def test_rich_values_of_state_are_stored_as_google_adk_stores_them(ours: PerdureSessionService) -> None:
    class Note(BaseModel):
        text: str

    moment = datetime(2026, 1, 2, tzinfo=UTC)
    await ours.create_session(
        app_name="shop",
        user_id="ada",
        session_id="s0",
        state={"at": moment, "note": Note(text="x"), "t": (1,)},
    )
    found = await ours.get_session(app_name="shop", user_id="ada", session_id="s0")
    assert found is not None
    assert found.state == {"at": "2026-01-02T00:00:00Z", "note": {"text": "x"}, "t": [1]}
    delta = {"at": moment, "note": Note(text="x")}
    stored = await through(ours, Event(author="user", actions=EventActions(state_delta=delta)))
    assert stored.actions.state_delta == {"at": "2026-01-02T00:00:00Z", "note": {"text": "x"}}


async def test_a_value_that_is_no_json_is_stored_as_its_repr(ours: PerdureSessionService) -> None:
    session = await ours.create_session(app_name="shop", user_id="ada", state={"f": print, "n": 1})
    found = await ours.get_session(app_name="shop", user_id="ada", session_id=session.id)
    assert found is not None
    assert found.state == session.state == {"f": repr(print), "n": 1}


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, "\0", "\ud800"], ids=["nan", "inf", "nul", "surrogate"]
)
@pytest.mark.parametrize("field", ["state", "custom_metadata", "output"])
async def test_s7_what_no_database_holds_is_refused(
    ours: PerdureSessionService, value: object, field: str
) -> None:
    session = await ours.create_session(app_name="shop", user_id="ada", session_id="s1")
    event = Event(id="event-1", author="user", **{field: {"x": value}})
    with pytest.raises(InvalidContent, match="event-1"):
        await ours.append_event(session, event)
    assert (session.events, session.state) == ([], {})


async def test_s14_null_removes_a_key_in_every_scope(ours: PerdureSessionService) -> None:
    names = ("own", "user:u", "app:a")
    session = await ours.create_session(
        app_name="shop", user_id="ada", session_id="s1", state=dict.fromkeys(names, 1) | {"kept": 1}
    )
    delta = dict.fromkeys(names)
    await ours.append_event(session, Event(author="user", actions=EventActions(state_delta=delta)))
    found = await ours.get_session(app_name="shop", user_id="ada", session_id="s1")
    assert found is not None
    assert found.state == session.state == {"kept": 1}
    assert found.events[0].actions.state_delta == delta


async def test_s4_the_same_id_with_other_content_is_refused(ours: PerdureSessionService) -> None:
    session = await ours.create_session(app_name="shop", user_id="ada", session_id="s1")
    await ours.append_event(session, Event(id="e", author="user", message="one"))
    with pytest.raises(EventConflict):
        await ours.append_event(session, Event(id="e", author="user", message="two"))
    assert len(session.events) == 1


async def test_the_log_has_in_columns_what_others_read(database: Database) -> None:
    await through(database.service(), Event(**VALUES))
    store = await database.store()
    (row,) = await store.log(KEY)
    assert (row.id, row.invocation_id, row.author, row.branch) == ("event-1", "i1", "shopper", "root.child")
    assert row.content is not None
    assert row.content["parts"][2]["functionCall"]["args"] == {"a": None, "b": [1.0, {"c": None}]}
    assert row.usage == {"promptTokenCount": 3, "totalTokenCount": 5, "cachedContentTokenCount": 0}
    assert row.error == {"type": "429", "message": "slow down"}
    assert row.created_at is not None
    assert row.created_at.timestamp() == pytest.approx(1700000000.1234567, abs=1e-6)
    assert not {"content", "usageMetadata", "stateDelta"} & set(row.meta["adk"])


async def test_a_session_of_perdures_own_can_be_read_and_gone_on_with(database: Database) -> None:
    store = await database.store()
    text = {"role": "user", "parts": [{"text": "hello"}]}
    turn = await store.begin_turn(
        KEY, LogEvent(id="m:user", invocation_id="m", author="user", content=text), epoch=None
    )
    answer = LogEvent(
        id="m:m1",
        invocation_id="m",
        author="shopper",
        content={"role": "model", "parts": [{"text": "hi", "thoughtSignature": "//79"}]},
        state_delta={"greeted": True},
        usage={"totalTokenCount": 7},
        meta={"finish_reason": "STOP", "final": True},
    )
    await store.append(KEY, answer, epoch=turn.epoch)
    summary = {"start": 1, "end": 2, "tail": 3}
    await store.append(
        KEY, LogEvent(id="m:compact", invocation_id="m", author="perdure", content=text, compaction=summary)
    )
    service = database.service()
    session = await service.get_session(app_name="shop", user_id="ada", session_id="s1")
    assert session is not None
    assert session.state == {"greeted": True}
    assert [(event.author, event.message.parts[0].text) for event in session.events] == [
        ("user", "hello"),
        ("shopper", "hi"),
    ]
    assert session.events[1].message.parts[0].thought_signature == b"\xff\xfe\xfd"
    assert session.events[1].usage_metadata is not None
    assert session.events[1].usage_metadata.total_token_count == 7
    await service.append_event(session, Event(invocation_id="n", author="user", message="again"))
    assert [event.seq for event in await store.log(KEY)] == [1, 2, 3, 4]
