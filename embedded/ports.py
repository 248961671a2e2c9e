"""Free TCP ports on the loopback.

They come from below the range that the system hands out for outgoing connections (32768
and up on Linux, 49152 and up on macOS). A port of that range could be taken by somebody's
outgoing connection while a killed server is being started again on it.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from embedded.errors import DidNotStart

__all__ = ["HOST", "Claims", "free_port", "is_free"]

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


class Claims:
    """Ports on which servers are to listen that start only in a while: two processes do not choose the same.

    A claim is a lock on a file, which goes with the process.
    """

    def __init__(self) -> None:
        self._locks: dict[int, int] = {}

    def take(self, port: int) -> bool:
        """Claim a port; whether nobody listens there or has claimed it, also for another server of ours."""
        lock = None if port in self._locks else _locked(port)
        if lock is None:
            return False
        if not is_free(port):
            os.close(lock)
            return False
        self._locks[port] = lock
        return True

    def release(self) -> None:
        """Give all of them back."""
        for port, lock in self._locks.items():
            with suppress(OSError):
                _lock_of(port).unlink()
            os.close(lock)
        self._locks.clear()


def _lock_of(port: int) -> Path:
    return Path(tempfile.gettempdir()) / f"perdure-port-{port}.lock"


def _locked(port: int) -> int | None:
    path = _lock_of(port)
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        file = os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    if os.fstat(file).st_nlink == 0:  # its holder removed it just before letting it go
        os.close(file)
        return _locked(port)
    return file


def free_port(preferred: int | None = None, *, take: Callable[[int], bool] = is_free) -> int:
    """A free loopback port: the preferred one if it is free, else any.

    Args:
        preferred: the one that is tried first.
        take: says whether a port is free; :meth:`Claims.take`, say.

    Raises:
        DidNotStart: no free port was found.
    """
    if preferred and take(preferred):
        return preferred
    for _ in range(_ATTEMPTS):
        port = random.randint(_LOWEST, _HIGHEST)
        if take(port):
            return port
    raise DidNotStart(
        f"no free port on {HOST} between {_LOWEST} and {_HIGHEST}; end a few servers and try again"
    )
