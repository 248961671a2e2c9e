"""The gateway's API keys: what a token may reach, found by a hash.

A token is ``perdure_{id}_{secret}``. The secret has 256 random bits, so one round of SHA-256
is as good as any: there is nothing to guess. It is shown once, when it is made.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import InvalidOption
from storage.schema import api_keys
from storage.storable import check_id
from storage.store import Store

__all__ = ["PREFIX", "ApiKey", "KeyStore"]

PREFIX = "perdure_"
_TOKEN = re.compile(r"perdure_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKey:
    """What is known of an API key; its secret is not."""

    id: str
    name: str
    """What people call it."""
    apps: Sequence[str] | None
    """The apps it reaches; None is all."""
    users: Sequence[str] | None
    """The users it reaches in them; None is all, and makes it an administrator's."""
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def is_good(self, now: datetime) -> bool:
        """Whether it is taken at this time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class KeyStore(Store):
    """Makes, finds, lists and revokes API keys."""

    async def create_key(
        self,
        name: str,
        *,
        apps: Sequence[str] | None = None,
        users: Sequence[str] | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """Make an API key.

        Args:
            name: what people call it; need not be unique.
            apps: the apps it reaches; None is all.
            users: the users it reaches; None is all.
            expires_at: when it ends by itself, with a timezone.

        Returns:
            The key, and its token: the only time that anybody sees it.

        Raises:
            InvalidOption: a key that reaches nothing, or that has ended already.
            InvalidContent: a name that cannot be stored.
        """
        check_id(name, "the key's name")
        for kind, names in (("app", apps), ("user", users)):
            if names is not None and not names:
                raise InvalidOption(
                    f"the key {name!r} would reach no {kind}; name one, or leave it open to all"
                )
            for each in names or ():
                check_id(each, f"a {kind} of the key {name!r}")
        now = datetime.now(UTC)
        if expires_at is not None and expires_at <= now:
            raise InvalidOption(f"the key {name!r} would have ended at {expires_at}; give a time to come")
        key_id = secrets.token_hex(8)
        token = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
        key = ApiKey(
            id=key_id,
            name=name,
            apps=None if apps is None else sorted(set(apps)),
            users=None if users is None else sorted(set(users)),
            created_at=now,
            expires_at=expires_at,
            revoked_at=None,
        )
        values = {column: getattr(key, column) for column in _COLUMNS} | {"hash": _hash(token)}

        async def work(conn: AsyncConnection) -> None:
            await conn.execute(api_keys.insert().values(**values))

        await self._db.write(work)
        return key, token

    async def find_key(self, token: str) -> ApiKey | None:
        """The key behind a token, also one that has ended; None if nobody made that token."""
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        row = await self._db.read(lambda conn: _row(conn, found[1]))
        if row is None or not hmac.compare_digest(row.hash, _hash(token)):
            return None
        return _key_of(row)

    async def list_keys(self) -> list[ApiKey]:
        """All keys, oldest first, the ended ones included."""

        async def work(conn: AsyncConnection) -> Sequence[Row[Any]]:
            return (await conn.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id))).all()

        return [_key_of(row) for row in await self._db.read(work)]

    async def revoke_key(self, key_id: str) -> ApiKey | None:
        """End a key, from the next request on. Twice is the same as once.

        Returns:
            The key; None if there is none of that id.
        """
        check_id(key_id, "the key's id")
        now = datetime.now(UTC)

        async def work(conn: AsyncConnection) -> Row[Any] | None:
            unrevoked = (api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None))
            await conn.execute(api_keys.update().where(*unrevoked).values(revoked_at=now))
            return await _row(conn, key_id)

        row = await self._db.write(work)
        return None if row is None else _key_of(row)


_COLUMNS = ("id", "name", "apps", "users", "created_at", "expires_at", "revoked_at")


async def _row(conn: AsyncConnection, key_id: str) -> Row[Any] | None:
    return (await conn.execute(select(api_keys).where(api_keys.c.id == key_id))).one_or_none()


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _key_of(row: Row[Any]) -> ApiKey:
    return ApiKey(**{name: row._mapping[name] for name in _COLUMNS})
