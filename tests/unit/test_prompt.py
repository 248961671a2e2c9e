"""The prompt: paired calls, one summary, and nothing that Gemini answers 400 to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from activities.prompt import UNANSWERED, build_prompt, contents_of, pieces_of
from perdure import Agent
from perdure.types import Event, JsonObject


def user(inv: str, text: str = "hi", seq: int = 0) -> Event:
    content = {"role": "user", "parts": [{"text": text}]}
    return Event(id=f"{inv}:user", invocation_id=inv, author="user", content=content, seq=seq)


def model(inv: str, step: int, *calls: JsonObject, text: str | None = None) -> Event:
    parts: list[JsonObject] = [{"functionCall": call} for call in calls]
    if text is not None:
        parts.append({"text": text})
    return Event(
        id=f"{inv}:m{step}",
        invocation_id=inv,
        author="agent",
        content={"role": "model", "parts": parts},
        meta={"step": step},
    )


def response(inv: str, step: int, index: int, name: str, result: object = "ok") -> Event:
    part = {"functionResponse": {"name": name, "response": {"result": result}}}
    return Event(
        id=f"{inv}:t{step}.{index}",
        invocation_id=inv,
        author="agent",
        content={"role": "user", "parts": [part]},
        meta={"call": {"step": step, "index": index}},
    )


def test_responses_follow_their_calls_in_call_order_whatever_order_they_came_in() -> None:
    contents = contents_of(
        None,
        [
            user("a"),
            model("a", 1, {"name": "one"}, {"name": "two"}),
            response("a", 1, 1, "two"),
            response("a", 1, 0, "one"),
            model("a", 2, text="done"),
        ],
    )
    assert [content["role"] for content in contents] == ["user", "model", "user", "model"]
    assert [part["functionResponse"]["name"] for part in contents[2]["parts"]] == ["one", "two"]


def test_a_message_that_joins_stands_behind_the_responses() -> None:
    joined = replace(user("b", "and this"), invocation_id="a", meta={"joined": "b"})
    said = [user("a"), model("a", 1, {"name": "one"}), response("a", 1, 0, "one"), joined]
    contents = contents_of(None, [*said, model("a", 2, text="done")])
    assert [content["role"] for content in contents] == ["user", "model", "user", "user", "model"]
    assert "functionResponse" in contents[2]["parts"][0]
    assert contents[3]["parts"] == [{"text": "and this"}]


def test_s41_a_call_that_was_never_answered_gets_a_response_that_says_so() -> None:
    contents = contents_of(None, [user("a"), model("a", 1, {"name": "lost", "id": "c7"}), user("b")])
    [part] = contents[2]["parts"]
    assert part == {"functionResponse": {"id": "c7", "name": "lost", "response": {"error": UNANSWERED}}}
    assert contents[3]["parts"] == [{"text": "hi"}]


def test_what_came_from_the_model_goes_back_exactly_as_it_came() -> None:
    strange = {"functionCall": {"name": "f", "args": {"b": 1, "a": 2}}, "thoughtSignature": "+/8="}
    event = Event(
        id="a:m1",
        invocation_id="a",
        author="agent",
        content={"role": "model", "parts": [strange, {"text": "", "somethingNew": {"x": 1}}]},
        meta={"step": 1},
    )
    assert contents_of(None, [user("a"), event, response("a", 1, 0, "f")])[1] == event.content


def test_markers_and_empty_answers_are_left_out() -> None:
    marker = Event(id="r:rewind", invocation_id="r", author="perdure", rewind={"before": "x"})
    empty = Event(id="a:m1", invocation_id="a", author="agent", content={"role": "model", "parts": []})
    assert contents_of(None, [user("a"), empty, marker]) == [user("a").content]


def test_a_summary_comes_first_as_words_of_the_user() -> None:
    summary = Event(
        id="a:compact",
        invocation_id="a",
        author="perdure",
        content={"role": "user", "parts": [{"text": "visits is 3"}]},
        compaction={"start": 1, "end": 9, "tail": 10},
    )
    prompt = build_prompt(
        Agent(name="agent", instruction="Mood: {mood?}"), {"mood": "calm"}, summary, [user("b")]
    )
    assert prompt.system == "Mood: calm"
    assert "visits is 3" in prompt.contents[0]["parts"][0]["text"]
    assert prompt.contents[1] == user("b").content
    assert prompt.chars > len(prompt.system)


def foreign(role: str, *parts: JsonObject) -> Event:
    """An event that another program wrote: it knows nothing of steps."""
    return Event(
        id=f"x{id(parts)}", invocation_id="x", author="other", content={"role": role, "parts": [*parts]}
    )


def test_s41_calls_that_another_program_wrote_are_paired_by_id_and_name() -> None:
    one = {"functionCall": {"id": "1", "name": "f"}}
    two = {"functionCall": {"id": "2", "name": "f"}}
    lost = {"functionCall": {"name": "g"}}
    answer = {"functionResponse": {"id": "2", "name": "f", "response": {"ok": 2}}}
    late = {"function_response": {"id": "1", "name": "f", "response": {"ok": 1}}}
    stray = {"functionResponse": {"id": "9", "name": "f", "response": {}}}
    events = [
        user("a"),
        foreign("model", one, two, lost),
        foreign("user", answer, stray),
        foreign("user", late),
    ]
    contents = contents_of(None, [*events, foreign("model", {"text": "done"})])
    assert [content["role"] for content in contents] == ["user", "model", "user", "model"]
    assert contents[2]["parts"] == [
        {"functionResponse": late["function_response"]},
        answer,
        {"functionResponse": {"name": "g", "response": {"error": UNANSWERED}}},
    ]


def test_an_answer_goes_to_the_last_call_of_its_name_before_it() -> None:
    called = {"functionCall": {"name": "f"}}
    answer = {"functionResponse": {"name": "f", "response": {"ok": 1}}}
    contents = contents_of(
        None, [user("a"), foreign("model", called), foreign("model", called), foreign("user", answer)]
    )
    assert [content["parts"][0] for content in contents[2::2]] == [
        {"functionResponse": {"name": "f", "response": {"error": UNANSWERED}}},
        answer,
    ]


def test_what_a_user_cannot_say_is_left_out() -> None:
    odd: list[Any] = [
        {"functionCall": {"name": "f"}},
        {"function_call": {"name": "f"}},
        {"functionResponse": {"name": "f", "response": {}}},
        {"text": ""},
        {},
        "words",
    ]
    mixed = Event(
        id="a:user",
        invocation_id="a",
        author="user",
        content={"role": "user", "parts": [*odd, {"text": "hi"}]},
    )
    alone = Event(id="b:user", invocation_id="b", author="user", content={"role": "user", "parts": odd})
    strange = Event(id="c:user", invocation_id="c", author="user", content={"role": "user", "parts": "words"})
    assert contents_of(None, [mixed, alone, strange]) == [{"role": "user", "parts": [{"text": "hi"}]}]


def test_a_conversation_that_the_agent_began_opens_with_a_word_of_the_user() -> None:
    greeting = foreign("model", {"text": "Hello!"})
    assert [content["role"] for content in contents_of(None, [greeting, user("a")])] == [
        "user",
        "model",
        "user",
    ]
    assert contents_of(None, [user("a"), greeting])[0] == user("a").content


def test_each_content_names_the_events_it_is_made_of() -> None:
    events = [
        user("a", seq=1),
        replace(model("a", 1, {"name": "f"}, {"name": "g"}, {"name": "h"}), seq=2),
        replace(response("a", 1, 2, "h"), seq=3),
        replace(response("a", 1, 0, "f"), seq=4),
    ]
    pieces = list(pieces_of(None, events))
    assert [[event.seq for event in piece.events] for piece in pieces] == [[1], [2], [4, 3]]
    assert [piece.content for piece in pieces] == contents_of(None, events)


@given(st.data())
def test_every_call_is_paired_whatever_was_lost(data: st.DataObject) -> None:
    events: list[Event] = []
    for number in range(data.draw(st.integers(1, 5))):
        inv = f"i{number}"
        events.append(user(inv))
        for step in range(1, data.draw(st.integers(1, 3)) + 1):
            names = data.draw(st.lists(st.sampled_from(["f", "g", "h"]), max_size=3))
            events.append(
                model(inv, step, *({"name": name} for name in names), text=None if names else "done")
            )
            indexes = data.draw(st.permutations(range(len(names))))
            kept = data.draw(st.integers(0, len(names)))
            events += [response(inv, step, index, names[index]) for index in indexes[:kept]]
    contents = contents_of(None, events)
    for at, content in enumerate(contents):
        calls = [part["functionCall"]["name"] for part in content["parts"] if "functionCall" in part]
        if calls:
            answers = contents[at + 1]
            assert answers["role"] == "user"
            assert [part["functionResponse"]["name"] for part in answers["parts"]] == calls
        elif any("functionResponse" in part for part in content["parts"]):
            assert any("functionCall" in part for part in contents[at - 1]["parts"])
