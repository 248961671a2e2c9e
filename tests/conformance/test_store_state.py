"""State: its scopes, removal, what is never stored, and conflicts over it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from perdure.errors import EventConflict, InvalidContent, StateConflict
from perdure.state import MISSING
from perdure.types import JsonObject, SessionKey
from storage.sessions import SessionStore
from tests.conformance.events import event


async def test_s14_null_removes_the_key_in_all_scopes(store: SessionStore, key: SessionKey) -> None:
    values = {"n": 1, "user:n": 2, "app:n": 3}
    await store.create(key, state=values)
    await store.append(key, event("i1:x", state_delta=dict.fromkeys(values)))
    state = (await store.get(key)).state
    assert state == {}
    assert state.get("n", 7) == 7
    await store.append(key, event("i2:x", state_delta=dict.fromkeys(values)))
    assert (await store.get(key)).state == {}


async def test_s14_null_inside_a_value_stays(store: SessionStore, key: SessionKey) -> None:
    await store.create(key)
    await store.append(key, event("i1:x", state_delta={"n": {"a": None, "b": [None]}}))
    assert (await store.get(key)).state == {"n": {"a": None, "b": [None]}}


async def test_s14_values_that_look_false_stay(store: SessionStore, key: SessionKey) -> None:
    values = {"zero": 0, "no": False, "text": "", "list": [], "dict": {}, "float": 0.0}
    await store.create(key, state={"given": 0})
    await store.append(key, event("i1:x", state_delta=values))
    assert (await store.get(key)).state == {"given": 0, **values}


async def test_s15_temp_keys_are_never_stored(store: SessionStore, key: SessionKey) -> None:
    session = await store.create(key, state={"temp:a": 1, "temp_b": 2, "kept": 3})
    assert session.state == {"kept": 3}
    delta = {"temp:a": 1, "temp_b": 2, "temperature": 4}
    stored = await store.append(key, event("i1:x", state_delta=delta))
    assert stored.state_delta == {"temperature": 4}
    assert (await store.get(key)).state == {"kept": 3, "temperature": 4}
    assert (await store.get(key)).events[0].state_delta == {"temperature": 4}


async def test_s16_scopes_are_seen_where_they_belong(store: SessionStore, key: SessionKey) -> None:
    same_user = replace(key, session_id="s2")
    same_app = replace(key, user_id="bob")
    other_app = replace(key, app="other")
    for each in (key, same_user, same_app, other_app):
        await store.create(each)
    await store.append(key, event("i1:x", state_delta={"n": 1, "user:n": 2, "app:n": 3}))
    assert (await store.get(key)).state == {"n": 1, "user:n": 2, "app:n": 3}
    assert (await store.get(same_user)).state == {"user:n": 2, "app:n": 3}
    assert (await store.get(same_app)).state == {"app:n": 3}
    assert (await store.get(other_app)).state == {}


async def test_s16_a_new_session_sees_and_may_set_shared_keys(store: SessionStore, key: SessionKey) -> None:
    await store.create(key, state={"user:n": 2, "app:n": 3})
    second = await store.create(replace(key, session_id="s2"), state={"app:n": 4})
    assert second.state == {"user:n": 2, "app:n": 4}
    assert (await store.get(key)).state == {"user:n": 2, "app:n": 4}


async def test_s17_every_delta_is_recorded_with_what_was_before(store: SessionStore, key: SessionKey) -> None:
    await store.create(key, state={"n": 1})
    first = await store.append(key, event("i1:t1.0", state_delta={"n": 2, "m": 1, "app:a": 9}))
    second = await store.append(key, event("i1:t1.1", state_delta={"n": None}))
    assert first.state_undo == {"n": 1, "m": None}
    assert second.state_undo == {"n": 2}
    assert [item.state_delta for item in await store.log(key)] == [first.state_delta, second.state_delta]


@pytest.mark.parametrize("name", ["n", "user:n", "app:n"])
async def test_s17_a_write_based_on_an_old_read_is_refused(
    store: SessionStore, key: SessionKey, name: str
) -> None:
    await store.create(key, state={name: 1})
    late = event("i1:t1.1", state_delta={name: 2})
    await store.append(key, event("i1:t1.0", state_delta={name: 2}), expect={name: 1})
    with pytest.raises(StateConflict, match=f"'{name}'"):
        await store.append(key, late, expect={name: 1})
    session = await store.get(key)
    assert (session.state, session.head, session.version) == ({name: 2}, 1, 2)
    with pytest.raises(StateConflict):
        await store.append(key, late, expect={name: MISSING})
    await store.append(key, event("i1:t1.1", state_delta={name: 3}), expect={name: 2})
    assert (await store.get(key)).state == {name: 3}


@pytest.mark.parametrize("name", ["n", "user:n", "app:n"])
async def test_s17_a_key_expected_to_be_missing(store: SessionStore, key: SessionKey, name: str) -> None:
    await store.create(key)
    with pytest.raises(StateConflict):
        await store.append(key, event("i1:x", state_delta={name: 2}), expect={name: 1})
    await store.append(key, event("i1:x", state_delta={name: 2}), expect={name: MISSING})
    assert (await store.get(key)).state == {name: 2}
    with pytest.raises(StateConflict):
        await store.append(key, event("i2:x", state_delta={name: None}), expect={name: MISSING})
    await store.append(key, event("i2:x", state_delta={name: None}), expect={name: 2})
    await store.append(key, event("i3:x", state_delta={name: None}), expect={name: MISSING})
    assert (await store.get(key)).state == {}


async def test_s17_only_keys_of_the_delta_are_compared(store: SessionStore, key: SessionKey) -> None:
    await store.create(key, state={"read": 1})
    await store.append(key, event("i1:x", state_delta={"n": 1}), expect={"read": 5, "app:read": 6})


async def test_s17_equal_means_the_same_json(store: SessionStore, key: SessionKey) -> None:
    await store.create(key, state={"n": {"b": 1, "a": 2}})
    with pytest.raises(StateConflict):
        await store.append(key, event("i1:x", state_delta={"n": 0}), expect={"n": {"b": True, "a": 2}})
    await store.append(key, event("i1:x", state_delta={"n": 0}), expect={"n": {"a": 2, "b": 1}})


@pytest.mark.parametrize("name", ["n", "app:n"])
async def test_s17_a_retry_of_what_was_committed_is_no_conflict(
    store: SessionStore, key: SessionKey, name: str
) -> None:
    await store.create(key, state={name: 1})
    change = event("i1:x", state_delta={name: 2})
    stored = await store.append(key, change, expect={name: 1})
    assert await store.append(key, change, expect={name: 1}) == stored
    assert await store.append(key, change, expect={name: 1}, first_wins=True) == stored
    with pytest.raises(EventConflict):
        await store.append(key, replace(change, author="x"), expect={name: 1})
    assert (await store.get(key)).version == 2


async def test_s18_a_call_that_is_refused_keeps_its_siblings(store: SessionStore, key: SessionKey) -> None:
    """Each response is an append of its own: one that fails takes nothing of the others with it."""
    await store.create(key, state={"n": 1})
    await store.append(key, event("i1:m1", content=calls("a", "b", "c")))
    first = event("i1:t1.0", content=response("a", {"result": 1}), state_delta={"n": 2})
    last = event("i1:t1.2", content=response("c", {"result": 3}), state_delta={"m": 1, "user:m": 1})
    await store.append(key, first, expect={"n": 1})
    with pytest.raises(StateConflict):
        await store.append(key, event("i1:t1.1", state_delta={"n": 9, "app:lost": 1}), expect={"n": 1})
    failed = event("i1:t1.1", content=response("b", {"error": "it changed"}))
    await store.append(key, last)
    await store.append(key, failed)
    context = await store.context(key)
    assert context.session.state == {"n": 2, "m": 1, "user:m": 1}
    assert [item.content for item in context.events[1:]] == [first.content, last.content, failed.content]


async def test_s19_a_nested_value_that_is_not_set_again_changes_nothing(
    store: SessionStore, key: SessionKey
) -> None:
    given: dict[str, Any] = {"list": [1], "app:dict": {"a": {"b": 1}}}
    expected = deepcopy(given)
    created = await store.create(key, state=given)
    change = event("i1:x", state_delta={"list": [1, 2]}, content={"role": "model", "parts": []})
    stored = await store.append(key, change)
    expected["list"] = [1, 2]
    given["list"].append("given")
    for item in (change, stored, (await store.log(key))[0]):
        item.state_delta["list"].append("of the event")
        assert item.content is not None
        item.content["parts"].append({"text": "of the event"})
    seen = [created, await store.get(key), (await store.context(key)).session]
    for session in seen:
        session.state["list"].append("read")
        session.state["app:dict"]["a"]["b"] = 100
    assert (await store.get(key)).state == expected
    await store.append(key, event("i2:x", state_delta={"other": 1}))
    found = await store.get(key)
    assert found.state == {**expected, "other": 1}
    assert (found.events[0].state_delta, found.events[0].state_undo) == ({"list": [1, 2]}, {"list": [1]})
    assert found.events[0].content == {"role": "model", "parts": []}


def calls(*ids: str) -> JsonObject:
    """What a model says that wants several calls at once."""
    wanted = [{"functionCall": {"id": each, "name": "increment", "args": {}}} for each in ids]
    return {"role": "model", "parts": wanted}


def response(call_id: str, said: JsonObject) -> JsonObject:
    """The answer to one of them."""
    given = {"id": call_id, "name": "increment", "response": said}
    return {"role": "user", "parts": [{"functionResponse": given}]}


@pytest.mark.parametrize("name", ["", "app:", "user:", "a\0", "\ud800", "k" * 1801])
async def test_an_unusable_state_key_is_refused(store: SessionStore, key: SessionKey, name: str) -> None:
    with pytest.raises(InvalidContent):
        await store.create(key, state={name: 1})
    await store.create(key)
    with pytest.raises(InvalidContent):
        await store.append(key, event("i1:x", state_delta={name: 1}))
    assert (await store.get(key)).version == 1


@pytest.mark.parametrize(
    "value", [1, 1.0, 10**30, 1e300, True, "1", "1.0", "", [], {}, "null", " ", 0.1, -0.0, "é" * 5000]
)
async def test_s3_a_state_value_keeps_its_type(store: SessionStore, key: SessionKey, value: Any) -> None:
    await store.create(key, state={"given": value})
    await store.append(key, event("i1:x", state_delta={"set": value, "app:set": value}))
    state = (await store.get(key)).state
    assert [repr(state[name]) for name in ("given", "set", "app:set")] == [repr(value)] * 3


async def test_a_delta_of_thousands_of_keys(store: SessionStore, key: SessionKey) -> None:
    many = {f"key{n}": n for n in range(2500)}
    await store.create(key)
    await store.append(key, event("i1:x", state_delta=many))
    assert (await store.get(key)).state == many
    await store.append(key, event("i2:x", state_delta={**dict.fromkeys(many), "left": 1}))
    assert (await store.get(key)).state == {"left": 1}
    done = await store.rewind(key, before="i2", request_id="r1")
    assert (await store.get(key)).state == many
    assert len(done.event.state_delta) == 2501
