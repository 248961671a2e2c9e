"""State: scopes, copies, what was read and what was written."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import InvalidContent
from perdure.jsonvalues import MAX_DEPTH
from perdure.state import MISSING, State, is_temp


def test_it_reads_like_a_dict() -> None:
    state = State({"a": 1, "b": [2]})
    assert state["a"] == 1
    assert state.get("b") == [2]
    assert state.get("c") is None
    assert state.get("c", "default") == "default"
    assert "a" in state
    assert "c" not in state
    assert not state.__contains__(5)  # and no error
    assert sorted(state) == ["a", "b"]
    assert len(state) == 2
    assert state.to_dict() == {"a": 1, "b": [2]}
    assert list(state.items()) == [("a", 1), ("b", [2])]
    with pytest.raises(KeyError):
        state["c"]


def test_it_writes_like_a_dict() -> None:
    state = State({"a": 1, "b": 2, "d": 4})
    state["c"] = 3
    state.update(a=10)
    del state["b"]
    assert state.pop("d") == 4
    assert state.to_dict() == {"a": 10, "c": 3}
    assert state.delta == {"c": 3, "a": 10, "b": None, "d": None}
    with pytest.raises(KeyError):
        del state["b"]
    assert state.pop("b", "gone") == "gone"


def test_s14_null_removes_the_key() -> None:
    state = State({"a": 1, "app:a": 1, "user:a": 1})
    for key in ("a", "app:a", "user:a"):
        state[key] = None
        assert key not in state
        assert state.get(key, "default") == "default"
    assert state.delta == {"a": None, "app:a": None, "user:a": None}
    assert list(state) == []


def test_s14_a_null_in_the_stored_state_is_a_missing_key() -> None:
    state = State({"a": None})
    assert "a" not in state
    assert state.reads == {"a": MISSING}


def test_a_null_inside_a_value_is_kept() -> None:
    state = State()
    state["a"] = {"b": None, "c": [None]}
    assert state["a"] == {"b": None, "c": [None]}


@pytest.mark.parametrize("key", ["temp:x", "temp_x"])
def test_s15_temp_keys_are_visible_and_never_in_the_delta(key: str) -> None:
    state = State({"a": 1}, temp={"temp:old": "from an earlier step"})
    state[key] = 1
    assert state[key] == 1
    assert state["temp:old"] == "from an earlier step"
    assert state.delta == {}
    assert state.reads == {}
    assert state.temp == {key: 1, "temp:old": "from an earlier step"}
    del state[key]
    assert key not in state.temp
    assert is_temp(key)
    assert not is_temp("temperature")


def test_s19_a_nested_value_that_is_not_set_again_changes_nothing() -> None:
    state = State({"counters": {"visits": 1}, "names": ["a"]})
    state["counters"]["visits"] = 100
    state["names"].append("b")
    state.setdefault("names", []).append("c")
    state.setdefault("new", []).append("d")
    state.delta["new"].append("e")
    assert state["counters"] == {"visits": 1}
    assert state["names"] == ["a"]
    assert state["new"] == []
    assert state.delta == {"new": []}


def test_s19_what_was_set_does_not_change_with_the_object_it_was_set_from() -> None:
    state = State()
    value = {"visits": 1}
    state["counters"] = value
    value["visits"] = 100
    assert state.delta == {"counters": {"visits": 1}}


def test_setdefault() -> None:
    state = State({"a": 1})
    assert state.setdefault("a", 2) == 1
    assert state.setdefault("b", 2) == 2
    assert state.setdefault("c") is None
    assert state.delta == {"b": 2}


def test_s17_reads_are_the_values_as_they_were_before_the_call() -> None:
    state = State({"a": 1, "b": 2, "c": 3})
    state["a"] += 1
    state["a"] += 1
    assert "missing" not in state
    state["c"] = 30
    assert state["c"] == 30
    assert state.reads == {"a": 1, "missing": MISSING}
    assert state.reads["missing"] is MISSING


def test_s17_a_key_that_is_only_set_was_not_read() -> None:
    state = State({"a": 1})
    state["a"] = 2
    assert state.reads == {}


def test_s17_who_lists_the_keys_has_read_that_a_new_one_is_missing() -> None:
    state = State({"a": 1})
    if not any(key.startswith("job:") for key in state):
        state["job:1"] = "mine"
    assert state.reads == {"a": 1, "job:1": MISSING}


def test_showing_it_is_not_reading_it() -> None:
    state = State({"a": 1})
    state["b"] = 2
    assert repr(state) == "State({'a': 1, 'b': 2})"
    assert state.reads == {}


@pytest.mark.parametrize("key", ["", "app:", "user:", "temp:", "a\x00b", "\ud800"])
def test_keys_that_cannot_be(key: str) -> None:
    state = State()
    with pytest.raises(InvalidContent, match="state key"):
        state[key] = 1
    with pytest.raises(InvalidContent, match="state key"):
        state.get(key)
    assert state.delta == {}


def test_keys_are_strings() -> None:
    with pytest.raises(InvalidContent, match="state key 1 is a int"):
        State()[1] = 1  # type: ignore[index]  # what an untyped caller may do


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (math.nan, r"state\['k'\] is nan"),
        ([1, math.inf], r"state\['k'\]\[1\] is inf"),
        ({"a": ["x\x00y"]}, r"state\['k'\]\['a'\]\[0\] contains U\+0000"),
        ({"a\x00": 1}, r"the key 'a\\x00' of state\['k'\] contains U\+0000"),
        ("\udc80", r"lone surrogate \('\\udc80'\)"),
        ({1: 2}, r"has the key 1; keys in JSON are strings: use '1'"),
        ({"a": {1, 2}}, r"state\['k'\]\['a'\] is a set"),
        (b"x", r"is bytes, which JSON cannot hold; save them with context.save_artifact"),
        (object(), r"is a object, which JSON cannot hold"),
    ],
)
def test_s07_values_that_json_cannot_hold_are_refused_where_they_are_set(value: Any, where: str) -> None:
    state = State({"k": "before"})
    with pytest.raises(InvalidContent, match=where):
        state["k"] = value
    assert state["k"] == "before"
    assert state.delta == {}


def test_s07_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidContent, match=f"more than {MAX_DEPTH} levels"):
        State()["k"] = loop


def test_missing_is_one_object() -> None:
    assert copy.deepcopy(MISSING) is MISSING
    assert copy.copy(MISSING) is MISSING
    assert pickle.loads(pickle.dumps(MISSING)) is MISSING
    assert repr(MISSING) == "MISSING"
    assert not MISSING


KEYS = st.sampled_from(["a", "b", "app:a", "user:a", "temp:a", "temp_a"])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xy", max_size=2), inner, max_size=3),
    max_leaves=5,
)
OPERATIONS = st.lists(
    st.tuples(st.sampled_from(["get", "set", "delete", "setdefault", "list"]), KEYS, VALUES), max_size=12
)


@given(base=st.dictionaries(KEYS, VALUES), operations=OPERATIONS)
def test_s17_it_agrees_with_a_dict_and_its_delta_makes_the_new_state(
    base: dict[str, Any], operations: list[tuple[str, str, Any]]
) -> None:
    before = {key: value for key, value in base.items() if value is not None}
    state, model = State(base), copy.deepcopy(before)
    for operation, key, value in operations:
        if operation == "get":
            assert state.get(key) == model.get(key)
        elif operation == "set":
            state[key] = value
            model[key] = value
        elif operation == "setdefault":
            assert state.setdefault(key, value) == model.setdefault(key, value)
        elif operation == "list":
            assert sorted(state) == sorted(model)
        elif key in model:
            del state[key]
            del model[key]
        model = {key: value for key, value in model.items() if value is not None}

    reads = state.reads
    assert all(value == before.get(key, MISSING) for key, value in reads.items())
    stored = {key: value for key, value in before.items() if not is_temp(key)}
    for key, value in state.delta.items():
        assert not is_temp(key)
        stored.pop(key, None)
        if value is not None:
            stored[key] = value
    assert {**stored, **state.temp} == model == state.to_dict()
