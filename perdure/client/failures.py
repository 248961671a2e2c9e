"""What can go wrong between a client and a gateway, sorted once: what is raised, and what is tried again.

A problem of the gateway (RFC 9457) becomes the class of :mod:`perdure.errors` that it names.
A connection that fails, and a proxy that finds no gateway, is :class:`GatewayUnavailable`.

Tried again is only what can do no harm: a request that names itself by an id, so that it happens
once, or one that was never sent or certainly not done. And only where another try may end
differently: after a broken connection, a proxy's 502, 503 or 504, and a 429 or 503 of the
gateway, which say by ``Retry-After`` when to come back.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

import httpx2

from perdure import errors
from perdure.client.results import problem_of
from perdure.errors import GatewayUnavailable, InvalidOption, PerdureError
from perdure.types import Json, JsonObject

__all__ = ["Again", "Attempts", "Reply", "broken", "failure_of"]

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
"""Seconds between tries: doubled each time, and a part of it by chance, so that not all come at once."""
HELD = 5.0
"""Seconds after which a stream that breaks counts as one that worked."""

_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
_HOPELESS = (httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)
_AWAY = frozenset({502, 503, 504})
_BY_STATUS: Mapping[int, type[PerdureError]] = {
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    416: InvalidOption,
    422: errors.InvalidRequest,
    429: errors.RateLimited,
    502: GatewayUnavailable,
    503: GatewayUnavailable,
    504: GatewayUnavailable,
}
"""For answers whose code is not known here, or that are no problems at all: a proxy's, say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer that was read to its end."""

    status: int
    headers: Mapping[str, str]
    """Their names in lower case."""
    body: bytes

    def json(self) -> Json:
        """The body.

        Raises:
            GatewayUnavailable: it is no JSON.
        """
        try:
            return json.loads(self.body) if self.body else None
        except ValueError as error:
            raise GatewayUnavailable(
                f"what answers there with status {self.status} is no gateway: it sends no JSON; check the URL"
            ) from error


class Again(Exception):
    """What happened may not happen at another try.

    Args:
        error: what is raised if there is none.
        after: seconds that the gateway asks to wait before it.
        undone: certainly nothing was done, so that it may be tried again whatever it was.
    """

    def __init__(self, error: PerdureError, *, after: float = 0.0, undone: bool = False) -> None:
        super().__init__(str(error))
        self.error, self.after, self.undone = error, after, undone


class Attempts:
    """How often one thing is tried.

    Args:
        patience: seconds from the first failure to the last try.
        repeatable: whether it may be done twice; what was not done may be tried again in any case.
    """

    def __init__(self, patience: float, *, repeatable: bool = True) -> None:
        self._patience, self._repeatable = patience, repeatable
        self._failures = 0
        self._began = self._opened = 0.0

    def opened(self) -> None:
        """A stream has begun."""
        self._opened = time.monotonic()

    def moved(self) -> None:
        """There was something new, so it works: what fails from here on begins anew."""
        self._failures = 0

    def pause(self, again: Again) -> float:
        """Seconds to wait before the next try.

        Raises:
            PerdureError: there is none.
        """
        now = time.monotonic()
        if self._opened and now - self._opened > HELD:
            self._failures = 0
        self._opened = 0.0
        if not self._failures:
            self._began = now
        longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 10))
        pause = max(again.after, longest * random.uniform(0.5, 1))
        self._failures += 1
        may = again.undone or self._repeatable
        if not may or now + pause - self._began > self._patience:
            raise again.error from again.error.__cause__
        return pause


def broken(error: httpx2.RequestError, *, url: str, what: str, request_id: str | None) -> Again:
    """What a failure of the connection is.

    Args:
        error: the failure.
        url: the gateway's.
        what: the request: its method and path.
        request_id: under which it happens once; None where it has none, and needs none.

    Raises:
        InvalidOption: it would fail the same way every time.
    """
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if isinstance(error, _HOPELESS):  # without its words, which may quote a header
        raise InvalidOption(
            f"{what} cannot be sent to {url} ({type(error).__name__}); check the URL"
        ) from error
    if isinstance(error, httpx2.PoolTimeout):
        told = f"all connections of the http client are taken, by streams say; {what} was not sent to {url}"
    elif isinstance(error, _NOT_SENT):
        told = f"no gateway answers at {url} ({reason}); check the URL and that one runs there"
    else:
        under = f", under the id {request_id}: then it happens once" if request_id else ""
        told = f"the connection to {url} broke at {what} ({reason}); do the same again{under}"
    made = GatewayUnavailable(told, request_id=request_id)
    made.__cause__ = error
    return Again(made, undone=isinstance(error, _NOT_SENT))


def failure_of(reply: Reply, *, url: str, what: str, request_id: str | None) -> PerdureError | Again | None:
    """What an answer says went wrong; None where nothing did. The arguments are those of :func:`broken`."""
    if reply.status < 300:
        return None
    problem = _problem(reply)
    if problem is None:
        kind = _BY_STATUS.get(reply.status, PerdureError)
        told = f"{url} answered {what} with status {reply.status}, and not as a gateway does; check the URL"
        error = kind(told)
    else:
        error = problem_of(problem)
        if type(error) is PerdureError:  # a code that this release does not know
            error = _BY_STATUS.get(reply.status, PerdureError)(problem["detail"])
    if isinstance(error, GatewayUnavailable):
        error.request_id = request_id
    after = _seconds(reply.headers.get("retry-after"))
    if reply.status == 429 and after is not None:
        return Again(error, after=after, undone=True)
    if reply.status in _AWAY and (problem is None or (reply.status == 503 and after is not None)):
        return Again(error, after=after or 0.0)
    return error


def _problem(reply: Reply) -> JsonObject | None:
    """The problem in an answer, if it is one."""
    try:
        found = json.loads(reply.body)
    except ValueError:
        return None
    is_one = isinstance(found, dict) and isinstance(found.get("code"), str)
    return found if is_one and isinstance(found.get("detail"), str) else None


def _seconds(header: str | None) -> float | None:
    return float(header) if header is not None and header.isdecimal() and len(header) < 9 else None
