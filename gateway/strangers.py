"""How often an address may come without a token that is known to be good.

To look at a token costs a query, or the fetching of keys, and who guesses one has to try
often; so a try is counted before it is looked at, and given back if the token is good. A token
that was good before is not held up by what others do at its address: behind a proxy that
does not tell its clients apart, all of them have one.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

from gateway.rates import MOST_CALLERS, Rates
from perdure.errors import Unauthenticated

__all__ = ["AT_ONCE", "A_SECOND", "Strangers"]

A_SECOND = 10.0
"""Tries a second that an address has in the long run."""
AT_ONCE = 50
"""Tries that it has at once."""


class Strangers:
    """Counts the tries of each address.

    Args:
        rates: how many it has; None is :data:`A_SECOND` and :data:`AT_ONCE`.
    """

    def __init__(self, rates: Rates | None = None) -> None:
        self._rates = rates or Rates(A_SECOND, AT_ONCE, whose="without a good token the address")
        self._known: OrderedDict[bytes, None] = OrderedDict()

    @contextmanager
    def trying(self, address: str, authorization: str) -> Iterator[None]:
        """Count a try for as long as the block looks at it.

        Args:
            address: the client's.
            authorization: what it sends; only a hash of it is kept.

        Raises:
            RateLimited: the address has no try left; the block is not entered.
        """
        place, mark = _place_of(address), sha256(authorization.encode("utf-8", "replace")).digest()
        known = mark in self._known
        if not known:
            self._rates.take(place)
        try:
            yield
        except Unauthenticated:
            self._known.pop(mark, None)
            raise
        if not known:
            self._rates.give_back(place)
        self._known[mark] = None
        self._known.move_to_end(mark)
        if len(self._known) > MOST_CALLERS:
            self._known.popitem(last=False)


def _place_of(address: str) -> str:
    """What is counted as one: an IPv6 network of the size that a single customer gets, else the address."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))
