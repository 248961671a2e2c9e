"""What a session's handle does about messages by the clock."""

from __future__ import annotations

from perdure.client import schedules as calls
from perdure.client.calls import new_id
from perdure.client.schedule_results import Scheduled
from perdure.client.sync_wire import SyncWire
from perdure.types import During, SessionKey

__all__ = ["SchedulesOfSession"]


class SchedulesOfSession:
    """The part of a session's handle that is about messages by the clock."""

    key: SessionKey
    _wire: SyncWire

    def schedule(
        self,
        cron: str,
        text: str,
        *,
        schedule_id: str | None = None,
        timezone: str = "UTC",
        during: During = "queue",
    ) -> str:
        """Have a message sent to the session whenever the clock says so. Makes the session if need be.

        Args:
            cron: when: five fields, or ``@daily``, ``@every 30m`` and the like.
            text: what is said each time; 32 KiB at most.
            schedule_id: names it; under one that is there already, that is changed.
            timezone: of the fields, as ``Europe/Berlin``.
            during: what becomes of a message where a turn runs; see :meth:`ask`.

        Returns:
            Its id. Those of its messages begin with it: ``{schedule_id}@{time}``.

        Raises:
            InvalidMessage, InvalidContent, SessionEnded: nothing is scheduled.
        """
        chosen = schedule_id or new_id()
        return self._wire.send(calls.schedule(self.key, cron, text, chosen, timezone, during))

    def schedules(self) -> list[Scheduled]:
        """The session's schedules, by id. A new one is found within seconds."""
        return self._wire.send(calls.schedules(self.key))

    def unschedule(self, schedule_id: str) -> None:
        """Remove a schedule. Twice is the same as once."""
        self._wire.send(calls.unschedule(self.key, schedule_id))
