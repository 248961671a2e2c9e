"""How a store uses its database. An option that does not exist is an error, never ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from perdure.errors import InvalidOption

__all__ = ["StoreOptions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreOptions:
    """Options of a :class:`storage.sessions.SessionStore`.

    Raises:
        InvalidOption: a value that makes no sense, such as a pool without connections.
    """

    pool_size: int = 10
    """Connections kept open. SQLite in memory always has exactly one."""
    max_overflow: int = 5
    """Connections opened beyond ``pool_size`` under load, and closed after use."""
    pool_idle_timeout: float = 1800
    """Seconds after which a connection that lay unused is replaced instead of used."""
    pool_pre_ping: bool = True
    """Test a connection before use, so that a restarted database is not noticed."""
    sqlite_synchronous: str = "FULL"
    """``FULL`` survives a power cut; ``NORMAL`` is faster and survives the death of a process."""
    announce: bool = False
    """Tell those who follow a session, over one more connection, what is written and what models say.
    Without it they see what is written when they next look; SQLite, within a process, always tells."""

    def __post_init__(self) -> None:
        _whole("pool_size", self.pool_size, at_least=1)
        _whole("max_overflow", self.max_overflow, at_least=0)
        if isinstance(self.pool_idle_timeout, bool) or not isinstance(self.pool_idle_timeout, (int, float)):
            raise InvalidOption(f"pool_idle_timeout is {self.pool_idle_timeout!r}; give a number of seconds")
        if not self.pool_idle_timeout > 0:
            raise InvalidOption(
                f"pool_idle_timeout is {self.pool_idle_timeout}; give a number of seconds above 0"
            )
        if not isinstance(self.pool_pre_ping, bool):
            raise InvalidOption(f"pool_pre_ping is {self.pool_pre_ping!r}; give True or False")
        if not isinstance(self.announce, bool):
            raise InvalidOption(f"announce is {self.announce!r}; give True or False")
        if self.sqlite_synchronous not in ("FULL", "NORMAL"):
            raise InvalidOption(f"sqlite_synchronous is {self.sqlite_synchronous!r}; give FULL or NORMAL")

    @classmethod
    def of(cls, options: StoreOptions | Mapping[str, Any] | None) -> StoreOptions:
        """Options from a mapping, such as one read from a file.

        Raises:
            InvalidOption: a name that is no option, or a value it cannot have.
        """
        if isinstance(options, StoreOptions):
            return options
        given = dict(options or {})
        known = [field.name for field in fields(cls)]
        if unknown := sorted(set(given) - set(known)):
            raise InvalidOption(f"unknown store option {', '.join(unknown)}; there are {', '.join(known)}")
        return cls(**given)


def _whole(name: str, value: object, *, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < at_least:
        raise InvalidOption(f"{name} is {value!r}; give a whole number of at least {at_least}")
