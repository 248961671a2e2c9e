"""Where a gateway is and how it is asked: what both faces of the client send with every request."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from typing import TypedDict

import httpx2

from perdure.client.call import Call
from perdure.client.failures import Again, Reply, broken, failure_of
from perdure.errors import InvalidOption, PerdureError

__all__ = ["LIMITS", "Endpoint", "Sent", "reply_of"]

CONNECT = 10.0
"""Seconds to reach the gateway."""
SILENCE = 60.0
"""Seconds without a word after which a stream is taken for dead: a gateway says something every 15."""
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
"""Of a client's own connections: each stream holds one for as long as it is read, and may be one of many."""


class Sent(TypedDict):
    """What httpx2 is given of a request, but for its body."""

    method: str
    url: str
    params: Mapping[str, str | int]
    headers: Mapping[str, str]
    timeout: httpx2.Timeout


class Endpoint:
    """A gateway.

    Args:
        url: its address, such as ``https://agents.example.com``; with a path, if a proxy has it there.
        token: the bearer token; None where none is needed.
        timeout: seconds without a word from the gateway after which a request has failed.
        patience: seconds for which a request that failed, and may do no harm again, is tried again.

    Raises:
        InvalidOption: one of them cannot be.
    """

    def __init__(self, url: str, token: str | None, *, timeout: float, patience: float) -> None:
        self.url = _checked_url(url)
        if timeout <= 0 or patience < 0:
            raise InvalidOption(
                f"a timeout of {timeout:g} and a patience of {patience:g} seconds cannot be; "
                "give more than 0, and 0 or more"
            )
        self.patience, self._timeout = patience, timeout
        self._headers = {"user-agent": _agent()}
        if token is not None:
            if not re.fullmatch("[!-~]+", token):
                raise InvalidOption("the token is empty, or has spaces or other characters that no token has")
            self._headers["authorization"] = f"Bearer {token}"

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r})"

    def sent(self, call: Call[object], *, stream: bool = False) -> Sent:
        """A request as httpx2 takes it."""
        silence = SILENCE if stream else self._timeout + call.wait
        return Sent(
            method=call.method,
            url=self.url + call.path,
            params=call.query,
            headers={**self._headers, **call.headers},
            timeout=httpx2.Timeout(self._timeout, connect=min(CONNECT, self._timeout), read=silence),
        )

    def broken(self, error: httpx2.RequestError, call: Call[object]) -> Again:
        """What a failure of the connection is."""
        return broken(error, url=self.url, what=call.what, request_id=call.id)

    def failure(self, response: httpx2.Response, call: Call[object]) -> PerdureError | Again | None:
        """What went wrong by an answer that was read; None where nothing did."""
        return failure_of(reply_of(response), url=self.url, what=call.what, request_id=call.id)


def reply_of(response: httpx2.Response) -> Reply:
    """An answer that was read."""
    return Reply(status=response.status_code, headers=response.headers, body=response.content)


def _checked_url(url: str) -> str:
    try:
        found = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError) as error:
        raise InvalidOption(f"{url!r} is no URL; write http://127.0.0.1:8000, say") from error
    if found.userinfo:
        raise InvalidOption(f"the URL of {found.host} has a user or a password in it; give a token instead")
    if found.scheme not in ("http", "https") or not found.host or found.query or found.fragment:
        raise InvalidOption(f"{url!r} is no URL of a gateway; write http://127.0.0.1:8000, say")
    return str(found).rstrip("/")


def _agent() -> str:
    from perdure import __version__  # looked up when a client is made: it reads a file

    return f"perdure/{__version__} python/{platform.python_version()}"
