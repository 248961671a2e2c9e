"""What a Runner does for calls that wait: decisions, results, notifications."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import TypeVar

from gateway.served import while_served
from gateway.typed import typed
from gateway.waiting_lists import WaitingLists
from perdure.errors import InvalidMessage
from perdure.jsonvalues import json_copy
from perdure.tasktoken import read_task_token
from perdure.types import Json, JsonObject, SessionKey, given
from workflows.messages import LARGEST_MESSAGE
from workflows.request import Request
from workflows.session import AgentSession
from workflows.wait_messages import Decision, Notification, Progress, Result, Settled

__all__ = ["CARRIED_BYTES", "WaitingCalls"]

CARRIED_BYTES = 32_768
"""The largest value that Temporal's history gets as it is."""
UPDATE_ID_BYTES = 200
"""The longest id of an update that is put together as it is; the event of a progress is named by it, too."""

R = TypeVar("R", bound=Request)


class WaitingCalls(WaitingLists):
    """The part of a Runner that is about waiting."""

    _task_queue: str

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
        fields = given(call_id=call_id, decision="yes", by=by, arguments=arguments, request_id=request_id)
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
        request = Decision.of(
            given(call_id=call_id, decision="no", by=by, reason=reason, request_id=request_id)
        )
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
        fields = given(call_id=call_id, result=result, error=error, by=by, request_id=request_id)
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
        request = Progress.of(given(call_id=call_id, text=text, percent=percent))
        return await self._update(key, "tool_progress", request, request_id)

    async def complete_task(
        self,
        task_token: str,
        result: Json = None,
        *,
        error: str | None = None,
        by: str | None = None,
        request_id: str | None = None,
    ) -> Settled:
        """As :meth:`tool_result`, by the one text that a tool finds in ``ToolContext.task_token``.

        Raises:
            InvalidTaskToken: it is none, or was cut or changed.
            CallNotFound, AlreadySettled, InvalidMessage, InvalidContent, SessionNotFound: as there.
        """
        key, call_id = read_task_token(task_token)
        return await self.tool_result(key, call_id, result, error=error, by=by, request_id=request_id)

    async def task_progress(
        self,
        task_token: str,
        text: str | None = None,
        *,
        percent: float | None = None,
        request_id: str | None = None,
    ) -> Settled:
        """As :meth:`tool_progress`, by a task token.

        Raises:
            InvalidTaskToken: it is none, or was cut or changed.
            CallNotFound, AlreadySettled, InvalidMessage, InvalidContent, SessionNotFound: as there.
        """
        key, call_id = read_task_token(task_token)
        return await self.tool_progress(key, call_id, text, percent=percent, request_id=request_id)

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
        fields = given(name=name, payload=payload, notification_id=notification_id)
        request = await self._carried(key, notification_id, Notification, fields, "payload")
        handle = self.client.get_workflow_handle(key.workflow_id)
        await typed(handle.signal(AgentSession.notify, request), key)
        return notification_id

    async def _update(
        self, key: SessionKey, name: str, request: Decision | Result | Progress, request_id: str | None
    ) -> Settled:
        handle = self.client.get_workflow_handle(key.workflow_id)
        # Temporal itself answers an update that comes again under its id, within one run.
        update_id = _update_id(name, request.call_id, request_id) if request_id is not None else None
        call = handle.execute_update(name, request, id=update_id, result_type=Settled)
        return await typed(while_served(self.client, key.workflow_id, self._task_queue, call), key)

    async def _carried(
        self, key: SessionKey, left_as: str, kind: type[R], fields: JsonObject, name: str
    ) -> R:
        """The request as it is sent: what is large of it is left in the store."""
        value = json_copy(fields.get(name), f"the {name}")
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


def _update_id(name: str, call_id: str, request_id: str) -> str:
    plain = f"{name}:{call_id}:{request_id}"
    if len(plain.encode()) <= UPDATE_ID_BYTES:
        return plain
    return f"{name}:{hashlib.sha256(plain.encode()).hexdigest()}"
