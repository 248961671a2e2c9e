"""Everybody that a test talks to is on this machine, and speaks plain HTTP."""

from __future__ import annotations

import ssl

__all__ = ["trust_nobody"]

AUTHORITIES = ("load_verify_locations", "load_default_certs", "set_default_verify_paths")
"""What loads the certificates of those that one trusts."""


def trust_nobody() -> None:
    """Have no HTTP client of this process load certificates.

    Those of all the world's authorities take 20 to 80 ms of CPU for each of the thousands of
    clients that tests make.
    """
    for name in AUTHORITIES:
        setattr(ssl.SSLContext, name, _load_nothing)


def _load_nothing(context: ssl.SSLContext, *where: object, **more: object) -> None:
    """In place of loading certificates."""
