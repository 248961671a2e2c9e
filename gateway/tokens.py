"""The two kinds of bearer tokens: API keys, which the database knows, and JWTs, which others sign."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import jwt

from gateway.callers import Caller
from gateway.problems import HttpProblem
from perdure.errors import InvalidOption, Unauthenticated
from storage.key_store import PREFIX, KeyStore

__all__ = ["ApiKeys", "JsonWebTokens"]

SHARED = {"HS256": 32, "HS384": 48, "HS512": 64}
"""Algorithms of a secret that both sides have, and the bytes that it needs."""
PUBLIC = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Algorithms whose keys a JWKS publishes. The two never mix: a public key is nobody's secret."""
SHORTEST_SECRET = min(SHARED.values())


class ApiKeys:
    """API keys from ``perdure keys create``. One that is revoked is refused from the next request on.

    Args:
        store: knows their hashes.
    """

    def __init__(self, store: KeyStore) -> None:
        self._store = store

    async def caller(self, token: str) -> Caller | None:
        """See :class:`gateway.access.TokenReader`."""
        if not token.startswith(PREFIX):
            return None
        key = await self._store.find_key(token)
        if key is None or not key.is_good(datetime.now(UTC)):
            raise Unauthenticated(
                "the API key is unknown, expired or revoked; make another: perdure keys create"
            )
        return Caller(
            name=f"{key.name} (key {key.id})",
            apps=None if key.apps is None else frozenset(key.apps),
            users=None if key.users is None else frozenset(key.users),
            expires_at=key.expires_at,
        )


class JsonWebTokens:
    """JWTs, checked against a secret or the keys that a JWKS URL publishes.

    What they say: ``sub``, the user; ``apps``, a list of apps or ``"*"``; ``admin``, true for
    one who reaches every user of these apps. ``exp`` is needed.

    Args:
        secret: for HMAC; or
        jwks_url: where the keys are.
        issuer: what ``iss`` has to be; None is anything.
        audience: what ``aud`` has to be, or to have in it; None means that a token has none.

    Raises:
        InvalidOption: both or neither of secret and URL, or a secret that can be guessed.
    """

    def __init__(
        self,
        *,
        secret: str | None = None,
        jwks_url: str | None = None,
        issuer: str | None = None,
        audience: str | None = None,
    ) -> None:
        if (secret is None) == (jwks_url is None):
            raise InvalidOption("JWTs are checked by a secret or by a JWKS URL; set one of the two")
        if secret is not None and len(secret.encode()) < SHORTEST_SECRET:
            raise InvalidOption(
                f"the secret of JWTs can be guessed; give {SHORTEST_SECRET} characters or more"
            )
        self._secret, self._issuer, self._audience = secret, issuer, audience
        self._published = None if jwks_url is None else jwt.PyJWKClient(jwks_url, timeout=10)

    async def caller(self, token: str) -> Caller | None:
        """See :class:`gateway.access.TokenReader`."""
        if token.count(".") != 2:
            return None
        key, algorithms = await self._key(token)
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=algorithms,
                issuer=self._issuer,
                audience=self._audience,
                options={"require": ["exp", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the JWT is not good: {error}; get another") from error
        return _caller_of(claims)

    async def _key(self, token: str) -> tuple[Any, tuple[str, ...]]:
        if self._published is None:
            size = len((self._secret or "").encode())
            return self._secret, tuple(name for name, needed in SHARED.items() if size >= needed)
        try:
            # In a thread, for it may have to fetch them; it asks again for an unknown key now and then.
            return await asyncio.to_thread(self._published.get_signing_key_from_jwt, token), PUBLIC
        except jwt.PyJWKClientConnectionError as error:
            raise HttpProblem(
                503,
                "signing-keys-unavailable",
                "the keys that JWTs are checked by cannot be fetched now; ask again later",
                headers={"retry-after": "5"},
            ) from error
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the JWT is not good: {error}; get another") from error


def _caller_of(claims: Mapping[str, Any]) -> Caller:
    subject, apps, admin = claims["sub"], claims.get("apps"), claims.get("admin", False)
    if apps != "*" and not (isinstance(apps, list) and all(isinstance(app, str) for app in apps)):
        raise Unauthenticated('the JWT has no apps; it takes a claim `apps`, a list of names or "*"')
    if not isinstance(admin, bool) or not subject:
        raise Unauthenticated("the JWT's claim `admin` is neither true nor false, or its `sub` is empty")
    return Caller(
        name=f"jwt {subject}",
        apps=None if apps == "*" else frozenset(apps),
        users=None if admin else frozenset({subject}),
        expires_at=_moment(float(claims["exp"])),
    )


def _moment(seconds: float) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, ValueError, OSError):  # later than any calendar goes
        return None
