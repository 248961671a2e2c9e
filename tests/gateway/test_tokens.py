"""Bearer tokens: API keys and JWTs, by secret and by published keys; how often they may ask."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.access import Access
from gateway.callers import ANYONE, Caller
from gateway.problems import HttpProblem
from gateway.rates import Rates
from gateway.serving import access_of, options_of
from gateway.tokens import ApiKeys, JsonWebTokens
from perdure.errors import Forbidden, InvalidOption, RateLimited, Unauthenticated
from perdure.settings import Settings
from storage.sessions import SessionStore

SECRET = "a secret of more than thirty-two characters"


def signed(
    key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **claims: Any
) -> str:
    given = {"sub": "ann", "apps": ["counter"], "exp": datetime.now(UTC) + timedelta(minutes=5), **claims}
    given = {name: value for name, value in given.items() if value is not None}
    return jwt.encode(given, key, algorithm=algorithm, headers=headers)


class TestApiKeys:
    async def test_one_reaches_what_it_was_made_for(self, sqlite_store: SessionStore) -> None:
        _, token = await sqlite_store.create_key("k", apps=["counter"], users=["ann"])
        caller = await Access([ApiKeys(sqlite_store)]).caller(f"Bearer {token}")
        caller.check("counter", "ann")
        for app, user in (("counter", "bob"), ("other", "ann"), ("counter", None)):
            with pytest.raises(Forbidden):
                caller.check(app, user)

    async def test_one_that_is_revoked_is_refused_at_once(self, sqlite_store: SessionStore) -> None:
        key, token = await sqlite_store.create_key("k")
        access = Access([ApiKeys(sqlite_store)])
        assert (await access.caller(f"Bearer {token}")).admin
        await sqlite_store.revoke_key(key.id)
        with pytest.raises(Unauthenticated, match="revoked"):
            await access.caller(f"Bearer {token}")

    async def test_one_that_nobody_made_is_refused(self, sqlite_store: SessionStore) -> None:
        with pytest.raises(Unauthenticated):
            await ApiKeys(sqlite_store).caller("perdure_0123456789abcdef_" + "x" * 43)
        assert await ApiKeys(sqlite_store).caller("another kind") is None


class TestJsonWebTokens:
    async def test_one_is_its_subjects(self) -> None:
        caller = await JsonWebTokens(secret=SECRET).caller(signed())
        assert caller is not None
        assert caller == Caller(name="jwt ann", apps=frozenset({"counter"}), users=frozenset({"ann"}))

    async def test_an_administrators_reaches_every_user_of_its_apps(self) -> None:
        caller = await JsonWebTokens(secret=SECRET).caller(signed(admin=True, apps="*"))
        assert caller is not None
        assert (caller.apps, caller.users) == (None, None)

    @pytest.mark.parametrize(
        "claims",
        [
            {"exp": datetime(2020, 1, 1, tzinfo=UTC)},
            {"exp": None},
            {"sub": None},
            {"sub": ""},
            {"apps": None},
            {"apps": "counter"},
            {"apps": [1]},
            {"admin": "yes"},
            {"key": SECRET + "!"},
            {
                "algorithm": "HS512",
                "key": "another secret of more than sixty-four characters, which nobody has here",
            },
            {"nbf": datetime(2100, 1, 1, tzinfo=UTC)},
            {"aud": "somebody else"},
        ],
    )
    async def test_one_that_is_not_good_is_refused(self, claims: dict[str, Any]) -> None:
        with pytest.raises(Unauthenticated):
            await JsonWebTokens(secret=SECRET).caller(signed(**claims))

    async def test_one_that_nobody_signed_is_refused(self) -> None:
        unsigned = jwt.encode({"sub": "ann", "apps": "*", "exp": time.time() + 60}, "", algorithm="none")
        with pytest.raises(Unauthenticated):
            await JsonWebTokens(secret=SECRET).caller(unsigned)
        assert await JsonWebTokens(secret=SECRET).caller("no token") is None

    async def test_issuer_and_audience_have_to_be_right(self) -> None:
        reader = JsonWebTokens(secret=SECRET, issuer="us", audience="perdure")
        assert await reader.caller(signed(iss="us", aud=["perdure", "more"])) is not None
        for token in (signed(iss="us"), signed(iss="them", aud="perdure"), signed(aud="perdure")):
            with pytest.raises(Unauthenticated):
                await reader.caller(token)

    async def test_by_published_keys(self, published: tuple[str, ec.EllipticCurvePrivateKey]) -> None:
        url, key = published
        reader = JsonWebTokens(jwks_url=url)
        caller = await reader.caller(signed(key, "ES256", {"kid": "k1"}))
        assert caller is not None
        assert caller.users == frozenset({"ann"})
        for wrong in (
            signed(key, "ES256", {"kid": "k2"}),
            signed(ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": "k1"}),
            signed(SECRET, "HS256", {"kid": "k1"}),
        ):
            with pytest.raises(Unauthenticated):
                await reader.caller(wrong)

    async def test_keys_that_cannot_be_fetched_are_nobodys_fault(self) -> None:
        reader = JsonWebTokens(jwks_url="http://127.0.0.1:9/keys")
        key = ec.generate_private_key(ec.SECP256R1())
        with pytest.raises(HttpProblem) as raised:
            await reader.caller(signed(key, "ES256", {"kid": "k1"}))
        assert (raised.value.status, raised.value.code) == (503, "signing-keys-unavailable")

    def test_what_makes_no_sense_is_refused(self) -> None:
        for given in ({}, {"secret": SECRET, "jwks_url": "http://x"}, {"secret": "short"}):
            with pytest.raises(InvalidOption):
                JsonWebTokens(**given)


@pytest.fixture
def published() -> Iterator[tuple[str, ec.EllipticCurvePrivateKey]]:
    """A server that publishes one key, and the key."""
    key = ec.generate_private_key(ec.SECP256R1())
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
    text = json.dumps({"keys": [{**public, "kid": "k1", "use": "sig", "alg": "ES256"}]}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/keys", key
    server.shutdown()
    thread.join()
    server.server_close()


class TestRates:
    def test_a_caller_may_ask_so_often_and_others_are_not_its_business(self) -> None:
        now = 0.0
        rates = Rates(2, 3, clock=lambda: now)
        for _ in range(3):
            rates.take("ann")
        with pytest.raises(RateLimited) as raised:
            rates.take("ann")
        assert raised.value.retry_after == 0.5
        rates.take("bob")
        now = 0.5
        rates.take("ann")
        with pytest.raises(RateLimited):
            rates.take("ann")
        now = 100.0
        for _ in range(3):
            rates.take("ann")
        with pytest.raises(RateLimited):
            rates.take("ann")

    def test_a_rate_that_lets_nobody_in_is_refused(self) -> None:
        for a_second, burst in ((0, 1), (-1, 1), (1, 0)):
            with pytest.raises(InvalidOption):
                Rates(a_second, burst)


class TestSettings:
    async def test_without_tokens_it_listens_to_this_machine_only(self, sqlite_store: SessionStore) -> None:
        settings = Settings(_env_file=None, gateway_auth="none")
        for host in ("127.0.0.1", "::1", "localhost", "127.1.2.3"):
            assert await access_of(settings, sqlite_store, host).caller(None) == ANYONE
        for host in ("0.0.0.0", "::", "10.0.0.1", "example.com", ""):
            with pytest.raises(InvalidOption, match="this machine only"):
                access_of(settings, sqlite_store, host)

    async def test_else_a_token_is_needed_everywhere(self, sqlite_store: SessionStore) -> None:
        for host in ("127.0.0.1", "0.0.0.0"):
            access = access_of(Settings(_env_file=None, jwt_secret=SECRET), sqlite_store, host)
            with pytest.raises(Unauthenticated):
                await access.caller(None)
            assert (await access.caller(f"Bearer {signed()}")).users == frozenset({"ann"})

    def test_at_a_loopback_address_only_its_names_are_answered(self) -> None:
        local = options_of(Settings(_env_file=None), "127.0.0.1")
        assert (set(local.hosts), local.check_origin) == ({"127.0.0.1", "localhost", "::1"}, True)
        outside = options_of(Settings(_env_file=None), "0.0.0.0")
        assert (outside.hosts, outside.check_origin) == ((), False)
