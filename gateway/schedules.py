"""What a Runner does for messages that come by the clock: a Temporal Schedule each."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleDescription,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError, RPCStatusCode

from activities.schedule_tasks import DeliverTask, name_of, parse_name
from activities.starting import owner_attributes, summary
from gateway.typed import done, found
from gateway.visibility import of_user
from gateway.waiting import CARRIED_BYTES
from perdure.errors import Busy, InvalidMessage, SessionEnded, SessionExists
from perdure.jsonvalues import json_copy
from perdure.types import During, SessionKey
from storage.sessions import SessionStore
from workflows.messages import Message
from workflows.schedule import ScheduledMessage

__all__ = ["Scheduled", "Schedules"]

ID_LENGTH = 64
"""Characters of a schedule's id; that of a message is made of it and the time."""
NAME_LENGTH = 900
"""Characters of its name in Temporal, which adds the time to it for its workflows."""
CATCH_UP = timedelta(hours=1)
"""For how long what Temporal has missed, being down, is made up for."""
TRIES = 3
"""How often one is made or changed, where somebody removes it meanwhile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scheduled:
    """A message that is sent again and again."""

    key: SessionKey
    schedule_id: str
    cron: str
    timezone: str
    text: str
    during: During
    paused: bool
    """Somebody has paused it in Temporal."""
    next_times: Sequence[datetime]
    """When it is sent next, a few times."""
    sent: int
    """How often its time has come."""


class Schedules:
    """The part of a Runner that is about messages by the clock."""

    client: Client
    store: SessionStore
    _task_queue: str

    async def schedule(
        self,
        key: SessionKey,
        cron: str,
        text: str,
        *,
        schedule_id: str | None = None,
        timezone: str = "UTC",
        during: During = "queue",
    ) -> str:
        """Have a message sent to a session whenever the clock says so, from now on.

        The session is made, if there is none. One that is ended gets none until it is opened again, and
        with one that is deleted its schedules go.

        Args:
            key: the session.
            cron: when: five fields, or ``@daily``, ``@every 30m`` and what else Temporal takes.
            text: what is said each time; 32 KiB at most, since Temporal keeps it.
            schedule_id: names it; under one that is there already, that is changed.
            timezone: of the fields, as ``Europe/Berlin``.
            during: what becomes of a message where a turn runs; see :meth:`gateway.runner.Runner.ask`.

        Returns:
            Its id. Those of its messages begin with it: ``{schedule_id}@{time}``.

        Raises:
            InvalidMessage, InvalidContent: no such time, id or message; nothing is scheduled.
            SessionEnded: the session is ended.
            Busy: somebody removes the schedule again and again; nothing is scheduled.
        """
        schedule_id = schedule_id or uuid.uuid4().hex[:12]
        _check_id(schedule_id)
        json_copy([cron, timezone], "the time of the schedule")
        message = Message.of({"text": text, "during": during})
        if message.size > CARRIED_BYTES:
            raise InvalidMessage(
                f"the message to {key} has {message.size} bytes; one by the clock has {CARRIED_BYTES} at most"
            )
        name = name_of(key, schedule_id)
        if len(name) > NAME_LENGTH:
            raise InvalidMessage(
                f"the schedule {name[:80]}… has too long a name; shorten the session's or its id"
            )
        with suppress(SessionExists):
            await self.store.create(key)
        session = await self.store.get(key, max_events=0)
        if session.ended_at is not None:
            raise SessionEnded(f"session {key} was ended; open it again with a message first")
        task = DeliverTask(
            session=key.workflow_id,
            schedule_id=schedule_id,
            text=text,
            cron=cron,
            timezone=timezone,
            during=during,
            made=session.created_at,
        )
        try:
            await self._put(name, key, self._schedule(name, key, task))
        except RPCError as error:
            if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                raise
            raise InvalidMessage(
                f"{key} cannot be scheduled for {cron!r} in {timezone}: {error.message}"
            ) from None
        return schedule_id

    async def schedules(self, key: SessionKey) -> list[Scheduled]:
        """The schedules of a session, by id. A new one is found within seconds."""
        described = [each async for each in self._described(key)]
        return sorted(described, key=lambda each: each.schedule_id)

    async def unschedule(self, key: SessionKey, schedule_id: str) -> bool:
        """Remove a schedule. What it has sent stays sent.

        Returns:
            Whether there was one.
        """
        return await done(self.client.get_schedule_handle(name_of(key, schedule_id)).delete())

    async def _unschedule_all(self, key: SessionKey) -> None:
        """Remove those that can be found. One that cannot yet removes itself when its time has come."""
        async for name in self._names(key):
            await self.unschedule(key, parse_name(name)[1])

    def _schedule(self, name: str, key: SessionKey, task: DeliverTask) -> Schedule:
        return Schedule(
            action=ScheduleActionStartWorkflow(
                ScheduledMessage.run,
                task,
                id=name,
                task_queue=self._task_queue,
                typed_search_attributes=owner_attributes(key),
                static_summary=f"{summary(key)} · {task.schedule_id}",
            ),
            spec=ScheduleSpec(cron_expressions=[task.cron], time_zone_name=task.timezone),
            # Of times that pass while no worker is there, one message is enough.
            policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=CATCH_UP),
        )

    async def _put(self, name: str, key: SessionKey, wanted: Schedule) -> None:
        """Make the schedule, or change the one that is there; one that is removed meanwhile is made anew.

        Raises:
            Busy: each time there was one it was removed before it could be changed.
        """

        def changed(there: ScheduleUpdateInput) -> ScheduleUpdate:
            # What somebody paused stays paused.
            return ScheduleUpdate(schedule=replace(wanted, state=there.description.schedule.state))

        for _ in range(TRIES):
            with suppress(ScheduleAlreadyRunningError):
                await self.client.create_schedule(name, wanted, search_attributes=owner_attributes(key))
                return
            if await done(self.client.get_schedule_handle(name).update(changed)):
                return
        raise Busy(
            f"schedule {parse_name(name)[1]!r} of session {key} was removed by somebody each time it was to "
            "be changed; nothing is scheduled, ask again"
        )

    async def _names(self, key: SessionKey) -> AsyncIterator[str]:
        async for listed in await self.client.list_schedules(of_user(key.app, key.user_id)):
            if listed.id.startswith(name_of(key, "")):
                yield listed.id

    async def _described(self, key: SessionKey) -> AsyncIterator[Scheduled]:
        async for name in self._names(key):
            described = await found(self.client.get_schedule_handle(name).describe())
            if described is not None:  # else it was removed meanwhile
                yield await self._scheduled(key, described)

    async def _scheduled(self, key: SessionKey, described: ScheduleDescription) -> Scheduled:
        action = described.schedule.action
        assert isinstance(action, ScheduleActionStartWorkflow), "our schedules start a workflow"
        [task] = await self.client.data_converter.decode(action.args, [DeliverTask])
        return Scheduled(
            key=key,
            **task.model_dump(include={"schedule_id", "cron", "timezone", "text", "during"}),
            paused=described.schedule.state.paused,
            next_times=described.info.next_action_times[:5],
            sent=described.info.num_actions,
        )


def _check_id(schedule_id: str) -> None:
    named = 0 < len(schedule_id) <= ID_LENGTH and schedule_id.isprintable()
    if not named or "/" in schedule_id or schedule_id in (".", ".."):
        raise InvalidMessage(
            f"the id of a schedule has 1 to {ID_LENGTH} printable characters, and none is a slash; "
            f"{schedule_id[:80]!r} is none"
        )
