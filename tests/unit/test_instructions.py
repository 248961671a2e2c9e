"""Instructions that name state keys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import Invalid, InvalidInstruction
from perdure.instructions import render, state_keys

STATE = {
    "name": "Ada",
    "counters": {"visits": 1, "größe": 2},
    "flag": True,
    "zero": 0,
    "empty": "",
    "user:name": "ada@example.org",
    "app:motto": "count",
    "temp:x": 1,
    "braces": "{name}",
}


@pytest.mark.parametrize(
    ("instruction", "rendered"),
    [
        ("Hello {name}.", "Hello Ada."),
        ("{counters}", '{"visits": 1, "größe": 2}'),
        ("{flag} {zero}", "true 0"),
        ("<{empty}>", "<>"),
        ("{user:name} {app:motto} {temp:x}", "ada@example.org count 1"),
        ("<{missing?}>", "<>"),
        ("{name?} { name } {name ?}", "Ada Ada Ada"),
        ("{braces}", "{name}"),
        ("nothing", "nothing"),
        ("", ""),
    ],
)
def test_keys_are_replaced(instruction: str, rendered: str) -> None:
    assert render(instruction, STATE) == rendered


@pytest.mark.parametrize(
    "text",
    [
        '{"json": 1}',
        "{{name}}",
        "{}",
        "{ }",
        "{not a key}",
        "{a-b}",
        "{a.b}",
        "{other:name}",
        "{user:}",
        "{1}",
        "{",
    ],
)
def test_other_braces_stay_as_they_are(text: str) -> None:
    assert render(text, STATE) == text


def test_a_value_may_hold_backslashes_and_group_references() -> None:
    assert render("{path}", {"path": r"C:\1\g<0>"}) == r"C:\1\g<0>"


@pytest.mark.parametrize("state", [{}, {"missing": None}])
def test_a_key_that_is_needed_and_not_set_is_a_typed_error(state: dict[str, Any]) -> None:
    with pytest.raises(InvalidInstruction, match=r"'missing', which is not set.*\{missing\?\}") as caught:
        render("Use {missing}.", state)
    assert isinstance(caught.value, Invalid)


def test_the_keys_that_an_instruction_names() -> None:
    text = '{a} {b?} { user:c } {app:d?} {temp:e} {a?} {{f}} {not a key} {} {"g": 1} {h.i} {x:y}'
    assert state_keys(text) == ("a", "b", "user:c", "app:d", "temp:e")
    assert state_keys("no keys") == ()


@given(st.text(alphabet="ab{}?: _user", max_size=40))
def test_an_instruction_says_the_same_with_no_more_than_the_keys_it_names(text: str) -> None:
    state = {"a": 1, "b": "x", "ab": None, "user:a": [2], "user": 3, "_": 4}
    named = {key: value for key, value in state.items() if key in state_keys(text)}
    assert said(text, named) == said(text, state)


def said(text: str, state: dict[str, Any]) -> str:
    try:
        return render(text, state)
    except InvalidInstruction as error:
        return f"refused: {error}"
