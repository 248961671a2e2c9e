"""Requests without a good token, by address: they are slowed down, and nobody else is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx2
import pytest

from gateway.access import Access
from gateway.app import create_app
from gateway.rates import Rates
from gateway.serving import access_of
from gateway.strangers import AT_ONCE, Strangers
from gateway.tokens import ApiKeys
from perdure.errors import RateLimited, StorageUnavailable, Unauthenticated
from perdure.registry import Registry
from perdure.settings import Settings
from storage.key_store import ApiKey
from storage.sessions import SessionStore
from tests.gateway.harness import Tokens
from tests.gateway.test_sessions_routes import is_problem


class Counted:
    """A database of keys that counts what it is asked."""

    def __init__(self, *good: str) -> None:
        self.good = set(good)
        self.asked: list[str] = []
        self.away = False

    async def find_key(self, token: str) -> ApiKey | None:
        self.asked.append(token)
        if self.away:
            raise StorageUnavailable("away")
        if token not in self.good:
            return None
        return ApiKey(
            id="k",
            name="k",
            apps=None,
            users=None,
            created_at=datetime.now(UTC),
            expires_at=None,
            revoked_at=None,
        )


class Gate:
    """Access with three tries a client, on a clock that the test turns."""

    def __init__(self, *good: str) -> None:
        self.now = 0.0
        self.keys = Counted(*good)
        rates = Rates(1, 3, whose="without a good token the address", clock=lambda: self.now)
        self.access = Access([ApiKeys(self.keys)], strangers=Strangers(rates))  # type: ignore[arg-type]  # as much of it as is asked

    async def tries(self, token: str | None, address: str = "10.0.0.1") -> str:
        return await outcome(self.access, token, address)


async def outcome(access: Access, token: str | None, address: str) -> str:
    """What comes of a try: ``good``, ``bad`` or ``later``."""
    try:
        await access.caller(token and f"Bearer {token}", address)
    except Unauthenticated:
        return "bad"
    except RateLimited:
        return "later"
    return "good"


async def test_tokens_that_are_tried_are_not_looked_up_for_ever() -> None:
    gate = Gate()
    assert [await gate.tries(f"perdure_{number}") for number in range(6)] == ["bad"] * 3 + ["later"] * 3
    assert len(gate.keys.asked) == 3, "each costs the database a query"
    gate.now = 2.0
    assert [await gate.tries(f"perdure_{number}") for number in range(6)] == ["bad"] * 2 + ["later"] * 4


async def test_requests_without_a_token_count_too() -> None:
    gate = Gate()
    assert [await gate.tries(token) for token in (None, "", "x", None)] == ["bad", "bad", "bad", "later"]


async def test_another_address_is_not_held_up() -> None:
    gate = Gate("perdure_good")
    for _ in range(4):
        await gate.tries("perdure_bad", "10.0.0.1")
    assert await gate.tries("perdure_bad", "10.0.0.2") == "bad"
    assert await gate.tries("perdure_good", "10.0.0.1") == "later", "nobody knows yet that it is good"
    assert await gate.tries("perdure_good", "10.0.0.2") == "good"


async def test_a_token_that_was_good_is_not_held_up_by_others_at_its_address() -> None:
    gate = Gate("perdure_good")
    assert await gate.tries("perdure_good") == "good"
    for _ in range(9):
        await gate.tries("perdure_bad")
    assert [await gate.tries("perdure_good") for _ in range(9)] == ["good"] * 9


async def test_good_tokens_use_up_no_tries() -> None:
    tokens = [f"perdure_{number}" for number in range(9)]
    gate = Gate(*tokens)
    assert [await gate.tries(token) for token in tokens] == ["good"] * 9
    assert [await gate.tries("perdure_bad") for _ in range(4)] == ["bad"] * 3 + ["later"]


async def test_one_that_is_revoked_is_a_strangers_again() -> None:
    gate = Gate("perdure_good")
    assert await gate.tries("perdure_good") == "good"
    gate.keys.good.clear()
    said = [await gate.tries("perdure_good") for _ in range(6)]
    assert said == ["bad"] * 4 + ["later"] * 2, (
        "the first of them was let in to be looked at, as one that is known"
    )


async def test_a_database_that_is_away_makes_no_stranger_of_a_client() -> None:
    gate = Gate("perdure_good")
    assert await gate.tries("perdure_good") == "good"
    gate.keys.away = True
    for _ in range(9):
        with pytest.raises(StorageUnavailable):
            await gate.tries("perdure_good")
    gate.keys.away = False
    assert await gate.tries("perdure_good") == "good"


@pytest.mark.parametrize(
    ("one", "another", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("", "", True),
    ],
)
async def test_what_is_one_client(one: str, another: str, same: bool) -> None:
    gate = Gate()
    for _ in range(3):
        assert await gate.tries("perdure_bad", one) == "bad"
    assert await gate.tries("perdure_bad", another) == ("later" if same else "bad")


async def test_over_http_it_is_a_429_that_says_when_to_come_back() -> None:
    tokens = Tokens()
    strangers = Strangers(Rates(0.001, 2, whose="without a good token the address"))
    app = create_app(None, Access([tokens], strangers=strangers), agents=Registry())  # type: ignore[arg-type]  # no route needs it
    transport = httpx2.ASGITransport(app=app, client=("192.0.2.7", 1))
    good = {"authorization": f"Bearer {tokens.give()}"}
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
        assert (await http.get("/list-apps", headers=good)).status_code == 200
        answers = [await http.get("/list-apps") for _ in range(3)]
        assert (await http.get("/list-apps", headers=good)).status_code == 200
        assert (await http.get("/openapi.json")).status_code == 200
    assert [answer.status_code for answer in answers] == [401, 401, 429]
    problem = is_problem(answers[2], 429, "rate-limited")
    assert "192.0.2.7" in problem["detail"]
    assert problem["retryAfter"] > 900


async def test_a_gateway_with_tokens_has_it(sqlite_store: SessionStore) -> None:
    access = access_of(Settings(_env_file=None), sqlite_store, "127.0.0.1")
    said = [await outcome(access, "perdure_x", "10.0.0.1") for _ in range(3 * AT_ONCE)]
    assert said[:AT_ONCE] == ["bad"] * AT_ONCE
    assert "later" in said
    _, token = await sqlite_store.create_key("k", expires_at=datetime.now(UTC) + timedelta(hours=1))
    assert (await access.caller(f"Bearer {token}", "10.0.0.2")).expires_at is not None
