"""Bearer tokens: whose they are, and how often they may ask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from gateway.callers import ANYONE, Caller
from gateway.rates import Rates
from perdure.errors import Unauthenticated

__all__ = ["Access", "TokenReader"]


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
    """

    def __init__(self, readers: Sequence[TokenReader] = (), *, rates: Rates | None = None) -> None:
        self._readers = tuple(readers)
        self._rates = rates

    @property
    def open(self) -> bool:
        """Whether no token is needed."""
        return not self._readers

    async def caller(self, authorization: str | None) -> Caller:
        """Who sends this ``Authorization`` header.

        Raises:
            Unauthenticated: there is no good token in it.
            RateLimited: the caller has asked too often.
        """
        caller = ANYONE if self.open else await self._read(authorization)
        if self._rates is not None:
            self._rates.take(caller.name)
        return caller

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
