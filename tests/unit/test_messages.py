"""What a session accepts, and how errors cross Temporal."""

from __future__ import annotations

import pytest
from temporalio.exceptions import ActivityError, ApplicationError, RetryState

from activities.conversion import data_converter
from activities.failures import application_error, perdure_error, refusal
from activities.protocol import CallRef, ModelOutcome, ModelTask
from perdure import errors
from perdure.errors import (
    Busy,
    InvalidContent,
    InvalidMessage,
    McpUnavailable,
    ModelUnavailable,
    StaleEpoch,
    StorageUnavailable,
)
from perdure.types import SessionKey
from workflows.inbox import ROOM, Inbox
from workflows.messages import MESSAGE_BYTES, Carry, Item, Message


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"text": ""},
        {"text": "  "},
        {"text": "a", "content": {"parts": [{"text": "b"}]}},
        {"content": {"parts": []}},
        {"content": {"parts": "words"}},
        {"content": {"parts": ["words"]}},
        {"content": {"parts": {"text": "words"}}},
        {"text": "x" * (MESSAGE_BYTES + 1)},
        {"text": "é" * (MESSAGE_BYTES // 2 + 1)},
        {"text": "a", "blob": "app/user/00/00"},
        {"blob": ""},
        {"blob": "x" * 2_000},
        {"text": "a", "message_id": ""},
        {"text": "a", "message_id": "line\nbreak"},
        {"text": "a", "message_id": "i" * 129},
    ],
)
def test_a_message_that_no_turn_could_use_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidMessage):
        Message.model_validate(fields).check()


@pytest.mark.parametrize("text", ["nul\x00", "half \ud800"])
def test_s7_text_that_no_store_holds_is_refused(text: str) -> None:
    with pytest.raises(InvalidContent):
        Message(text=text).check()


def test_a_message_of_the_largest_size_is_taken() -> None:
    Message(text="x" * MESSAGE_BYTES, message_id="m" * 128).check()
    Message(content={"parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}).check()


def test_fields_left_out_are_not_sent_and_unknown_ones_are_ignored() -> None:
    converter = data_converter.payload_converter
    [payload] = converter.to_payloads([ModelTask(invocation_id="m1", step=2, epoch=3)])
    assert payload.data == b'{"invocation_id":"m1","step":2,"epoch":3}'
    [payload] = converter.to_payloads([ModelOutcome(epoch=1, seq=2, calls=[CallRef(name="f", serial=True)])])
    assert payload.data == b'{"epoch":1,"seq":2,"calls":[{"name":"f","serial":true}]}'
    payload.data = b'{"epoch":1,"seq":2,"of_tomorrow":[1]}'
    [outcome] = converter.from_payloads([payload], [ModelOutcome])
    assert outcome == ModelOutcome(epoch=1, seq=2)


def test_a_carry_holds_the_inbox_and_counts() -> None:
    carry = Carry(epoch=4, inbox=[Item(kind="turn", id="m", message=Message(text="hi"))]).plus(turns=2)
    converter = data_converter.payload_converter
    [again] = converter.from_payloads(converter.to_payloads([carry]), [Carry])
    assert again == carry
    assert again.turns == 2


@pytest.mark.parametrize("name", sorted(set(errors.__all__) - {"by_name", "code_of", "error_of"}))
def test_every_error_crosses_temporal_and_comes_back_as_itself(name: str) -> None:
    error = getattr(errors, name)("what happened")
    sent = application_error(error)
    back = perdure_error(sent)
    assert type(back) is type(error)
    assert str(back) == "what happened"
    assert sent.non_retryable is not isinstance(error, McpUnavailable | ModelUnavailable | StorageUnavailable)


def test_retry_after_becomes_the_delay_of_the_next_attempt() -> None:
    delay = application_error(ModelUnavailable("busy", retry_after=2.5)).next_retry_delay
    assert delay is not None
    assert delay.total_seconds() == 2.5


def test_a_refusal_says_what_lies_at_the_bottom() -> None:
    def failed(cause: BaseException) -> ActivityError:
        error = ActivityError(
            "activity failed",
            scheduled_event_id=1,
            started_event_id=2,
            identity="w",
            activity_type="a",
            activity_id="1",
            retry_state=RetryState.NON_RETRYABLE_FAILURE,
        )
        error.__cause__ = cause
        return error

    assert refusal(failed(application_error(StaleEpoch("over")))).type == "StaleEpoch"
    assert refusal(failed(ApplicationError("bug", type="KeyError"))).type == "KeyError"
    assert refusal(failed(ValueError("odd"))).type == "ValueError"


@pytest.mark.parametrize("part", ["a", "a/b", "ä ö", "..", "%", "a%2Fb", "user:x"])
def test_a_workflow_id_names_its_session(part: str) -> None:
    key = SessionKey(app=part, user_id=part, session_id=part)
    assert key.workflow_id.count("/") == 2
    assert SessionKey.parse(key.workflow_id) == key


@pytest.mark.parametrize("bad", ["", "a", "a/b", "a//c", "a/b/c/d", "//"])
def test_a_workflow_id_that_names_no_session(bad: str) -> None:
    with pytest.raises(InvalidMessage):
        SessionKey.parse(bad)


def test_the_inbox_has_room_for_so_many_and_no_doubles() -> None:
    inbox = Inbox()
    for n in range(ROOM):
        inbox.check_room()
        inbox.add(Item(kind="turn", id=f"m{n}", message=Message(text="hi")))
        inbox.add(Item(kind="turn", id=f"m{n}", message=Message(text="hi")))
    assert len(inbox) == ROOM
    assert inbox.bytes == 2 * ROOM
    with pytest.raises(Busy):
        inbox.check_room()
    first = inbox.take()
    assert inbox.holds(first.id), "it runs"
    inbox.refuse(first, ValueError())
    assert not inbox.holds(first.id)
