"""What a client hears of a turn while it runs: from the model to the client, past Temporal."""

from __future__ import annotations

import asyncio

import pytest

from gateway import sse
from perdure.testing import say
from perdure.types import SessionKey
from tests.gateway.harness import Gateway, path_of
from tests.gateway.sse import Message, opened, text_of
from tests.integration.harness import kind_of, until

STORY = "Once upon a time 汉字 🌍 there was a counter that nobody had ever counted on. " * 4


def partial(message: Message) -> bool:
    return message.partial


async def history(gateway: Gateway, key: SessionKey) -> list[str]:
    """The types of the events in the history of the session's workflow.

    Without its tasks: how many there are is a matter of how quick the worker is.
    """
    found = await gateway.world.history(key)
    return [name for name in found if not name.startswith("WORKFLOW_TASK_")]


async def test_the_client_has_the_first_token_while_the_model_still_talks(gateway: Gateway) -> None:
    key, model = gateway.key(), gateway.world.gemini
    model.script(say(STORY))
    model.hang(after=1)
    async with opened(
        gateway.http, path_of(key, "/messages"), body={"text": "hi", "messageId": "m1"}
    ) as stream:
        first = await stream.until(partial)
        # The model has said no more than this, and will not until it is let go on.
        assert len(model.in_flight) == 1
        assert STORY.startswith(first.text)
        assert first.text != STORY
        assert first.data == {
            "id": "m1:m1",
            "invocationId": "m1",
            "author": "counter",
            "content": {"role": "model", "parts": [{"text": first.text}]},
            "partial": True,
            "offset": 0,
        }
        assert first.id is None
        model.release()
        rest = await stream.rest()
    assert STORY.startswith(text_of([first, *rest]))
    stored = [message for message in stream.seen if message.stored]
    assert [(message.id, message.data["seq"]) for message in stored] == [("1", 1), ("2", 2)]
    assert stored[-1].text == STORY
    assert stored[-1].data["id"] == first.data["id"]
    assert rest[-1].event == "answer"
    answer = dict(rest[-1].data)
    assert answer.pop("spent")["modelCalls"] == 1
    assert answer == {"invocationId": "m1", "status": "answered", "seq": 2, "text": STORY}


async def test_s5_tokens_are_stored_nowhere_and_make_no_history(gateway: Gateway) -> None:
    model, heard, unheard = gateway.world.gemini, gateway.key(), gateway.key()
    model.script(say("Hello there, whoever you are"), say("Hello there, whoever you are"))
    async with opened(gateway.http, path_of(heard, "/messages"), body={"text": "hi"}) as stream:
        answer = (await stream.rest())[-1]
    await gateway.http.post(path_of(unheard, "/messages"), json={"text": "hi"})
    assert await history(gateway, heard) == await history(gateway, unheard)
    for key in (heard, unheard):
        assert [kind_of(event) for event in await gateway.world.log(key)] == ["user", "model"]
    assert answer.data["text"] == "Hello there, whoever you are"


async def test_a_client_that_comes_back_mid_turn_gets_what_it_missed_then_the_rest(gateway: Gateway) -> None:
    key, model = gateway.key(), gateway.world.gemini
    model.script(say(STORY))
    model.hang(after=2)
    await gateway.world.runner.message(key, "hi", message_id="m1")
    await until(lambda: _begun(gateway, key))
    async with opened(gateway.http, path_of(key, "/events")) as stream:
        assert await stream.events(1) == [1]
        before = await stream.until(partial)
    async with opened(gateway.http, path_of(key, "/events"), last=1) as stream:
        again = await stream.until(partial)
        assert again.data["offset"] == 0
        assert again.text.startswith(before.text)
        model.release()
        assert await stream.events(1) == [2]
    assert [message.data["seq"] for message in stream.seen if message.stored] == [2]


async def test_a_message_sent_again_mid_turn_goes_on_with_its_turn(gateway: Gateway) -> None:
    key, model = gateway.key(), gateway.world.gemini
    model.script(say(STORY))
    model.hang(after=1)
    body = {"text": "hi", "messageId": "m1"}
    async with opened(gateway.http, path_of(key, "/messages"), body=body) as stream:
        await stream.until(partial)
    # It went away, and the turn did not.
    async with opened(gateway.http, path_of(key, "/messages"), body=body) as stream:
        first = await stream.until(partial)
        assert [message.data["seq"] for message in stream.seen if message.stored] == [1]
        assert first.data["offset"] == 0
        model.release()
        rest = await stream.rest()
    assert rest[-1].data["text"] == STORY
    # And once more, when it is over.
    async with opened(gateway.http, path_of(key, "/messages"), body=body) as stream:
        over = await stream.rest()
    assert [message.data["seq"] for message in over if message.stored] == [1, 2]
    assert over[-1].data == rest[-1].data
    assert len(model.model_calls()) == 1


async def test_a_turn_with_tools_is_told_step_by_step(gateway: Gateway) -> None:
    key = gateway.key()
    async with opened(gateway.http, path_of(key, "/messages"), body={"text": "increment by 2"}) as stream:
        found = await stream.rest()
    stored = [message for message in found if message.stored]
    assert [message.data["seq"] for message in stored] == [1, 2, 3, 4]
    assert found[-1].data["text"] == stored[-1].text
    # A partial comes after what was there before its model was asked, and before its own event.
    for index, message in enumerate(found):
        if message.partial:
            after = [later.data["id"] for later in found[index:] if later.stored]
            assert message.data["id"] in after
            assert message.data["id"] == after[0]


async def test_a_second_attempt_begins_the_answer_at_its_beginning(gateway: Gateway) -> None:
    key, model = gateway.key(), gateway.world.gemini
    model.script(say("abandoned " * 10), say(STORY))
    # Both before the first try: the second may come while what the first has said is still on its way here.
    model.cut(after=1)
    model.hang(after=1)
    async with opened(gateway.http, path_of(key, "/messages"), body={"text": "hi"}) as stream:
        first = await stream.until(partial)
        assert first.text.startswith("abandoned")
        second = await stream.until(partial)
        while not second.text.startswith("Once"):
            second = await stream.until(partial)
        assert second.data["offset"] == 0
        assert second.data["id"] == first.data["id"]
        model.release()
        rest = await stream.rest()
    assert rest[-1].data["text"] == STORY


async def test_a_turn_that_is_cancelled_ends_its_stream(gateway: Gateway) -> None:
    key, model = gateway.key(), gateway.world.gemini
    model.script(say(STORY))
    model.hang(after=1)
    body = {"text": "hi", "messageId": "m1"}
    async with opened(gateway.http, path_of(key, "/messages"), body=body) as stream:
        await stream.until(partial)
        await gateway.world.runner.cancel(key, "m1")
        rest = await stream.rest()
    assert rest[-1].event == "answer"
    assert rest[-1].data["status"] == "cancelled"
    model.release()


async def test_a_turn_that_fails_says_why(gateway: Gateway) -> None:
    key = gateway.key()
    gateway.world.gemini.block()
    async with opened(gateway.http, path_of(key, "/messages"), body={"text": "hi"}) as stream:
        rest = await stream.rest()
    assert rest[-1].data["status"] == "failed"
    assert rest[-1].data["failure"]["type"] == "ModelRefused"
    assert [message.data.get("errorCode") for message in rest if message.stored] == [None, "ModelRefused"]


async def test_a_message_that_is_refused_is_answered_with_a_status(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "FIRST_WITHIN", 60.0)  # later than that, its stream says so
    key = gateway.key()
    await gateway.http.post(path_of(key, "/messages"), json={"text": "hi"})
    await gateway.world.runner.end(key)
    async with opened(gateway.http, path_of(key, "/messages"), body={"text": "more"}) as stream:
        assert stream.response.status_code == 409
        assert stream.response.json()["code"] == "session-ended"
    async with opened(
        gateway.http, path_of(key, "/messages"), body={"text": "more", "reopen": True}
    ) as stream:
        assert (await stream.rest())[-1].data["status"] == "answered"
    async with opened(gateway.http, path_of(key, "/messages"), body={}) as stream:
        assert stream.response.status_code == 400


async def test_only_its_own_turn_is_told_to_who_sent_a_message(gateway: Gateway) -> None:
    key, model = gateway.key(), gateway.world.gemini
    model.script(say("the first answer"), say("the second answer"))
    model.hang(after=1)
    first = asyncio.create_task(
        gateway.http.post(path_of(key, "/messages"), json={"text": "one", "messageId": "m1"})
    )
    await model.wait_in_flight()
    async with opened(
        gateway.http, path_of(key, "/messages"), body={"text": "two", "messageId": "m2"}
    ) as stream:
        assert stream.seen == []
        model.release()
        rest = await stream.rest()
    assert {message.data["invocationId"] for message in stream.seen if message.comment is None} == {"m2"}
    assert rest[-1].data["text"] == "the second answer"
    assert (await first).json()["text"] == "the first answer"


async def _begun(gateway: Gateway, key: SessionKey) -> bool:
    return await gateway.world.store.event(key, "m1:user") is not None
