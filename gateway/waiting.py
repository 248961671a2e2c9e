"""What a Runner does for calls that wait: decisions, results, notifications, and what waits where."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.service import RPCError

from activities.prompt import calls_of, model_event_id
from activities.waits import begun_id_of, parts_of_call_id, waits_of
from gateway.served import while_served
from gateway.typed import typed
from perdure import searchattributes
from perdure.errors import InvalidMessage, SessionNotFound
from perdure.types import Json, JsonObject, SessionKey
from storage.sessions import SessionStore
from workflows.messages import LARGEST_MESSAGE, Status
from workflows.request import Request
from workflows.session import AgentSession
from workflows.wait_messages import Decision, Notification, Progress, Result, Settled, Waiting

__all__ = ["CARRIED_BYTES", "WaitingCall", "WaitingCalls", "quoted"]

CARRIED_BYTES = 32_768
"""The largest value that Temporal's history gets as it is."""

AT_ONCE = 16
"""Sessions that are asked at a time what they wait for."""
ASKED_FOR = timedelta(seconds=5)
"""How long one is asked; where no worker answers for it, its log says what it waits for."""
LOOKED_AT = 1_000
"""Events of a log that is looked through for that."""

R = TypeVar("R", bound=Request)


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitingCall:
    """A call that waits, with what is to be decided about."""

    key: SessionKey
    call_id: str
    tool: str
    kind: str
    """``approval``, ``result``, ``event`` or ``timer``; or ``agent``: what it has asked waits."""
    since: datetime
    until: datetime | None = None
    event: str | None = None
    agent_session: str | None = None
    """The id of the agent's session, where the kind is ``agent``: what it waits for is decided there."""
    then: str | None = None
    """What becomes of an approval at its deadline, where that is not a refusal."""
    text: str | None = None
    """The last progress that was reported."""
    percent: float | None = None
    arguments: JsonObject | None = None
    """What the model wants it called with; None where the log has it no more."""
    ticket: Json = None
    """What a long-running tool has returned."""


class WaitingCalls:
    """The part of a Runner that is about waiting."""

    client: Client
    store: SessionStore
    _task_queue: str

    async def waiting(self, key: SessionKey) -> list[WaitingCall]:
        """The calls that wait in a session, with their arguments.

        Raises:
            SessionNotFound: it has no open workflow.
        """
        return await self._waiting(key)

    async def waiting_below(self, key: SessionKey) -> list[WaitingCall]:
        """The same, with those that wait in the sessions of the agents that it has asked.

        Raises:
            SessionNotFound: it has no open workflow.
        """
        calls = await self.waiting(key)
        for call in list(calls):
            if call.agent_session is not None:
                with suppress(SessionNotFound):  # it was answered meanwhile
                    calls += await self.waiting_below(replace(key, session_id=call.agent_session))
        return calls

    async def all_waiting(
        self, app: str | None = None, user_id: str | None = None
    ) -> AsyncIterator[WaitingCall]:
        """The calls that wait in all sessions, of an app, of a user. New ones are found within seconds.

        Those of a session that no worker serves now are told as its log has them.
        """
        query = f"WorkflowType = 'AgentSession' AND {searchattributes.STATUS} = 'waiting'"
        query += " AND ExecutionStatus = 'Running'"
        for name, value in ((searchattributes.APP, app), (searchattributes.USER, user_id)):
            if value is not None:
                query += f" AND {name} = {quoted(value)}"
        asked: list[SessionKey] = []
        async for found in self.client.list_workflows(query):
            asked.append(SessionKey.parse(found.id))
            if len(asked) == AT_ONCE:
                for call in await self._all_of(asked):
                    yield call
                asked.clear()
        for call in await self._all_of(asked):
            yield call

    async def approve(
        self,
        key: SessionKey,
        call_id: str,
        *,
        arguments: JsonObject | None = None,
        by: str | None = None,
        request_id: str | None = None,
    ) -> Settled:
        """Say yes to a call that waits for it. It runs once.

        Args:
            key: the session.
            call_id: the call, as :meth:`waiting` has it.
            arguments: what it is to be called with instead of the model's; the model is told.
            by: who says so; the log keeps it.
            request_id: names the request; sent again under its id it gets the same answer.

        Raises:
            CallNotFound, AlreadySettled: it does not wait for that.
            InvalidMessage, InvalidContent: the arguments were not taken.
            SessionNotFound: it has no open workflow.
        """
        fields = _given(call_id=call_id, decision="yes", by=by, arguments=arguments)
        request = await self._carried(key, call_id, Decision, fields, "arguments")
        return await self._update(key, "approve", request, request_id)

    async def decline(
        self,
        key: SessionKey,
        call_id: str,
        *,
        reason: str | None = None,
        by: str | None = None,
        request_id: str | None = None,
    ) -> Settled:
        """Say no to a call that waits for a yes. The model is told, with the reason.

        Raises:
            CallNotFound, AlreadySettled: it does not wait for that.
            InvalidMessage, InvalidContent: the reason was not taken.
            SessionNotFound: it has no open workflow.
        """
        request = Decision.of(_given(call_id=call_id, decision="no", by=by, reason=reason))
        return await self._update(key, "approve", request, request_id)

    async def tool_result(
        self,
        key: SessionKey,
        call_id: str,
        result: Json = None,
        *,
        error: str | None = None,
        by: str | None = None,
        request_id: str | None = None,
    ) -> Settled:
        """The outcome of a long-running tool: its result, or the error that it failed by.

        Raises:
            CallNotFound, AlreadySettled: the call does not wait for that.
            InvalidMessage, InvalidContent: it was not taken.
            SessionNotFound: it has no open workflow.
        """
        fields = _given(call_id=call_id, result=result, error=error, by=by)
        request = await self._carried(key, call_id, Result, fields, "result")
        return await self._update(key, "tool_result", request, request_id)

    async def tool_progress(
        self,
        key: SessionKey,
        call_id: str,
        text: str | None = None,
        *,
        percent: float | None = None,
        request_id: str | None = None,
    ) -> Settled:
        """How far a long-running tool has come, for the status and the log.

        Raises:
            CallNotFound, AlreadySettled: the call does not wait for a result.
            InvalidMessage, InvalidContent: it was not taken.
            SessionNotFound: it has no open workflow.
        """
        request = Progress.of(_given(call_id=call_id, text=text, percent=percent))
        return await self._update(key, "tool_progress", request, request_id)

    async def notify(
        self, key: SessionKey, name: str, payload: Json = None, *, notification_id: str | None = None
    ) -> str:
        """Tell a session of an event. It wakes the call that waits for it, or is kept until one does.

        Args:
            key: the session.
            name: of the event.
            payload: what the model is to know of it.
            notification_id: sent twice under one id, it happened once.

        Returns:
            The notification's id.

        Raises:
            InvalidMessage, InvalidContent: it was not sent.
            SessionNotFound: it has no open workflow.
        """
        notification_id = notification_id or uuid.uuid4().hex
        fields = _given(name=name, payload=payload, notification_id=notification_id)
        request = await self._carried(key, notification_id, Notification, fields, "payload")
        handle = self.client.get_workflow_handle(key.workflow_id)
        await typed(handle.signal(AgentSession.notify, request), key)
        return notification_id

    async def _update(self, key: SessionKey, name: str, request: Request, request_id: str | None) -> Settled:
        handle = self.client.get_workflow_handle(key.workflow_id)
        # Temporal itself answers an update that comes again under its id, within one run.
        update_id = f"{name}:{request_id}" if request_id is not None else None
        call = handle.execute_update(name, request, id=update_id, result_type=Settled)
        return await typed(while_served(self.client, key.workflow_id, self._task_queue, call), key)

    async def _carried(
        self, key: SessionKey, left_as: str, kind: type[R], fields: JsonObject, name: str
    ) -> R:
        """The request as it is sent: what is large of it is left in the store."""
        value = fields.get(name)
        size = len(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        if size > LARGEST_MESSAGE:
            raise InvalidMessage(
                f"the {name} for {key} has {size} bytes and the limit is {LARGEST_MESSAGE}; save what is "
                "large as an artifact"
            )
        if size > CARRIED_BYTES:
            del fields[name]
            kind.of(fields)
            blob = await self.store.leave_message(key, left_as, {"value": value})
            fields |= {"blob": blob, "left_as": left_as}
        return kind.of(fields)

    async def _all_of(self, keys: list[SessionKey]) -> list[WaitingCall]:
        return [call for calls in await asyncio.gather(*map(self._served_or_not, keys)) for call in calls]

    async def _served_or_not(self, key: SessionKey) -> list[WaitingCall]:
        try:
            try:
                return await self._waiting(key, ASKED_FOR)
            except (RPCError, WorkflowQueryFailedError):
                events = (await self.store.get(key, max_events=LOOKED_AT)).events
                return [await self._waiting_call(key, Waiting(**each)) for each in waits_of(events)]
        except SessionNotFound:  # it was closed or deleted meanwhile
            return []

    async def _waiting(self, key: SessionKey, within: timedelta | None = None) -> list[WaitingCall]:
        handle = self.client.get_workflow_handle(key.workflow_id)
        status: Status = await typed(handle.query(AgentSession.status, rpc_timeout=within), key)
        return [await self._waiting_call(key, each) for each in status.waiting]

    async def _waiting_call(self, key: SessionKey, waiting: Waiting) -> WaitingCall:
        invocation_id, step, index = parts_of_call_id(waiting.call_id)
        asked = await self.store.event(key, model_event_id(invocation_id, step))
        begun = await self.store.event(key, begun_id_of(invocation_id, step, index))
        more: JsonObject = {"ticket": begun.meta.get("ticket")} if begun is not None else {}
        if asked is not None:
            more["arguments"] = calls_of(asked)[index].get("args") or {}
        return WaitingCall(key=key, **waiting.model_dump(exclude_unset=True), **more)


def _given(**fields: Any) -> JsonObject:
    return {name: value for name, value in fields.items() if value is not None}


def quoted(value: str) -> str:
    """A value as it stands in a query of Temporal's."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
