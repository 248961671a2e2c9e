"""Bearer tokens: whose they are, how often they may ask, and whether they are still good later."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

from gateway.callers import ANYONE, Caller
from gateway.problems import HttpProblem
from gateway.rates import Rates
from gateway.strangers import Strangers
from perdure.errors import StorageUnavailable, Unauthenticated

__all__ = ["Access", "Look", "TokenReader", "Watch", "unwatched"]


class TokenReader(Protocol):
    """Knows one kind of token."""

    async def caller(self, token: str) -> Caller | None:
        """Whose the token is; None if it is of another kind.

        Raises:
            Unauthenticated: it is of this kind, and is not good.
        """
        ...


class Access:
    """Tells who asks.

    Args:
        readers: the kinds of tokens that are taken, asked in this order. None at all: no token is
            needed, and whoever can reach the gateway reaches everything.
        rates: how often each caller may ask; None is as often as they like.
        strangers: how often an address may try tokens; None is as often as it likes.
    """

    def __init__(
        self,
        readers: Sequence[TokenReader] = (),
        *,
        rates: Rates | None = None,
        strangers: Strangers | None = None,
    ) -> None:
        self._readers = tuple(readers)
        self._rates = rates
        self._strangers = strangers

    @property
    def open(self) -> bool:
        """Whether no token is needed."""
        return not self._readers

    async def caller(self, authorization: str | None, address: str = "") -> Caller:
        """Who sends this ``Authorization`` header.

        Args:
            authorization: the header; None if there is none.
            address: the client's.

        Raises:
            Unauthenticated: there is no good token in it.
            RateLimited: the caller has asked too often, or the address has tried too many tokens.
        """
        if self.open:
            caller = ANYONE
        elif self._strangers is None:
            caller = await self._read(authorization)
        else:
            with self._strangers.trying(address, authorization or ""):
                caller = await self._read(authorization)
        if self._rates is not None:
            self._rates.take(caller.name)
        return caller

    async def check_again(self, caller: Caller, authorization: str | None) -> None:
        """Refuse a caller whose token has ended since it was let in.

        Raises:
            Unauthenticated: it has.
        """
        if self.open:
            return
        if caller.expires_at is not None and datetime.now(UTC) >= caller.expires_at:
            raise Unauthenticated("the token has expired; get another")
        with suppress(StorageUnavailable, HttpProblem):  # What cannot be told now is told the next time.
            await self._read(authorization)

    async def _read(self, authorization: str | None) -> Caller:
        scheme, _, token = (authorization or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("the request has no bearer token; send it as `Authorization: Bearer TOKEN`")
        for reader in self._readers:
            caller = await reader.caller(token)
            if caller is not None:
                return caller
        raise Unauthenticated("the token is of no kind that is taken here; get another")


Look = Callable[[], Awaitable[None]]
"""Raises Unauthenticated once a stream's token is no longer good."""


async def unwatched() -> None:
    """For who needs no token."""


class Watch:
    """Looks again whether a token is good, now and then, while what it asked for goes on.

    Args:
        access: knows the tokens.
        caller: who asked.
        authorization: the header of the request.
        every: seconds between two looks.
    """

    def __init__(self, access: Access, caller: Caller, authorization: str | None, *, every: float) -> None:
        self._access, self._caller, self._authorization, self._every = access, caller, authorization, every
        self._looked = time.monotonic()

    async def __call__(self) -> None:
        """Look, if it is time to.

        Raises:
            Unauthenticated: the token was revoked, or has expired.
        """
        now = time.monotonic()
        if now - self._looked >= self._every:
            self._looked = now
            await self._access.check_again(self._caller, self._authorization)
