"""API keys: found by their token and nothing else, revoked for good, their secrets stored nowhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from perdure.errors import InvalidContent, InvalidOption
from storage.key_store import PREFIX
from storage.sessions import SessionStore
from tests.conformance.watch import query


async def test_a_key_is_found_by_its_token_alone(store: SessionStore) -> None:
    key, token = await store.create_key("ann's", apps=["counter", "a"], users=["ann"])
    assert (key.name, key.apps, key.users) == ("ann's", ["a", "counter"], ["ann"])
    assert await store.find_key(token) == key
    for wrong in (token[:-1], token[:-1] + ("x" if token[-1] != "x" else "y"), key.id, "", "perdure_", "ü"):
        assert await store.find_key(wrong) is None, wrong


async def test_its_secret_is_stored_nowhere(store: SessionStore) -> None:
    key, token = await store.create_key("k")
    rows = await query(store._db, "SELECT * FROM api_keys")
    assert key.id in repr(rows)
    # Not from the right: the secret itself may have a "_".
    assert token.removeprefix(f"{PREFIX}{key.id}_") not in repr(rows)


async def test_one_that_is_revoked_stays_so(store: SessionStore) -> None:
    key, token = await store.create_key("k")
    revoked = await store.revoke_key(key.id)
    assert revoked is not None
    assert not revoked.is_good(datetime.now(UTC))
    assert await store.revoke_key(key.id) == revoked, "twice is the same as once"
    assert await store.find_key(token) == revoked
    assert await store.revoke_key("none") is None


async def test_one_ends_at_its_time(store: SessionStore) -> None:
    end = datetime.now(UTC) + timedelta(days=1)
    key, _ = await store.create_key("k", expires_at=end)
    assert key.is_good(end - timedelta(seconds=1))
    assert not key.is_good(end)


async def test_they_are_listed_as_they_were_made(store: SessionStore) -> None:
    made = [(await store.create_key(f"k{number}"))[0] for number in range(3)]
    listed = [key for key in await store.list_keys() if key in made]
    assert listed == made


async def test_one_that_could_not_be_used_is_not_made(store: SessionStore) -> None:
    with pytest.raises(InvalidOption, match="reach no app"):
        await store.create_key("k", apps=[])
    with pytest.raises(InvalidOption, match="reach no user"):
        await store.create_key("k", users=[])
    with pytest.raises(InvalidOption, match="would have ended"):
        await store.create_key("k", expires_at=datetime.now(UTC))
    with pytest.raises(InvalidContent):
        await store.create_key("\0")
