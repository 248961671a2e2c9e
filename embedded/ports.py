"""Free TCP ports on the loopback.

They come from below the range that the system hands out for outgoing connections (32768
and up on Linux, 49152 and up on macOS). A port of that range could be taken by somebody's
outgoing connection while a killed server is being started again on it.
"""

from __future__ import annotations

import random
import socket

from embedded.errors import DidNotStart

__all__ = ["HOST", "free_port", "is_free"]

HOST = "127.0.0.1"
_LOWEST, _HIGHEST = 20_000, 32_000
_ATTEMPTS = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections still linger in TIME_WAIT is free to listen on.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_port(preferred: int | None = None) -> int:
    """A free loopback port: the preferred one if it is free, else any.

    Raises:
        DidNotStart: no free port was found.
    """
    if preferred and is_free(preferred):
        return preferred
    for _ in range(_ATTEMPTS):
        port = random.randint(_LOWEST, _HIGHEST)
        if is_free(port):
            return port
    raise DidNotStart(
        f"no free port on {HOST} between {_LOWEST} and {_HIGHEST}; end a few servers and try again"
    )
