"""The search attributes that every session workflow carries, named in this one place."""

from __future__ import annotations

__all__ = ["APP", "STATUS", "STATUSES", "USER"]

APP = "PerdureApp"
USER = "PerdureUser"
STATUS = "PerdureStatus"

STATUSES = ("open", "waiting", "error", "ended")
"""``waiting``: for a person or the world; ``error``: the last turn failed and the session goes on;
``ended``: closed by ``end``."""
