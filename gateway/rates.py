"""How often a caller may ask: a token bucket each, in the memory of this process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from perdure.errors import InvalidOption, RateLimited

__all__ = ["Rates"]

MOST_CALLERS = 10_000
"""Buckets that are kept; the one not used for longest, which is most likely full, goes first."""


class Rates:
    """Lets each caller ask so often.

    Args:
        a_second: requests a second in the long run.
        burst: requests at once, after a rest.
        whose: what is counted, for the words of the refusal.
        clock: seconds that only grow.

    Raises:
        InvalidOption: a rate or burst that lets nobody in.
    """

    def __init__(
        self,
        a_second: float,
        burst: int,
        *,
        whose: str = "the token",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if a_second <= 0 or burst < 1:
            raise InvalidOption(f"a rate of {a_second:g} a second with a burst of {burst} lets nobody in")
        self._a_second, self._burst, self._whose, self._clock = a_second, burst, whose, clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: str) -> None:
        """Count one request.

        Raises:
            RateLimited: the caller has none left.
        """
        now = self._clock()
        left, since = self._buckets.pop(caller, (float(self._burst), now))
        left = min(float(self._burst), left + (now - since) * self._a_second)
        taken = left >= 1
        self._buckets[caller] = (left - 1 if taken else left, now)
        if len(self._buckets) > MOST_CALLERS:
            self._buckets.popitem(last=False)
        if not taken:
            raise RateLimited(
                f"{self._whose} {caller} may ask {self._a_second:g} times a second; slow down",
                retry_after=(1 - left) / self._a_second,
            )

    def give_back(self, caller: str) -> None:
        """Have a request not count that was counted."""
        if caller in self._buckets:
            left, since = self._buckets[caller]
            self._buckets[caller] = min(float(self._burst), left + 1), since
