"""What a client, and a session's handle, does about calls that wait, awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

from perdure.client import waiting as calls
from perdure.client.aio_wire import AsyncWire
from perdure.client.calls import new_id
from perdure.client.waiting_results import Settled, WaitingCall
from perdure.types import Json, JsonObject, SessionKey

__all__ = ["AsyncWaits", "AsyncWaitsOfSession"]


class AsyncWaitsOfSession:
    """The part of a session's handle that is about waiting."""

    key: SessionKey
    _wire: AsyncWire

    async def waiting(self) -> list[WaitingCall]:
        """The calls that wait for a person or the world, with their arguments."""
        return await self._wire.send(calls.waiting(self.key))

    async def approve(
        self,
        call_id: str,
        *,
        arguments: JsonObject | None = None,
        by: str | None = None,
        request_id: str | None = None,
    ) -> Settled:
        """Say yes to a call that waits for it: it runs once.

        Args:
            call_id: the call.
            arguments: what it is to be called with instead of the model's.
            by: who says so; the log keeps it.
            request_id: names the request; sent twice under one id it happens once.

        Raises:
            CallNotFound, AlreadySettled: the call does not wait for that.
        """
        return await self._wire.send(calls.approve(self.key, call_id, arguments, by, request_id or new_id()))

    async def decline(
        self, call_id: str, *, reason: str | None = None, by: str | None = None, request_id: str | None = None
    ) -> Settled:
        """Say no to a call that waits for a yes. The model is told, with the reason.

        Raises:
            CallNotFound, AlreadySettled: the call does not wait for that.
        """
        return await self._wire.send(calls.decline(self.key, call_id, reason, by, request_id or new_id()))

    async def tool_result(
        self,
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
        """
        return await self._wire.send(
            calls.result(self.key, call_id, result, error, by, request_id or new_id())
        )

    async def tool_progress(
        self,
        call_id: str,
        text: str | None = None,
        *,
        percent: float | None = None,
        request_id: str | None = None,
    ) -> Settled:
        """How far a long-running tool has come.

        Raises:
            CallNotFound, AlreadySettled: the call does not wait for a result.
        """
        return await self._wire.send(calls.progress(self.key, call_id, text, percent, request_id or new_id()))

    async def notify(self, name: str, payload: Json = None, *, notification_id: str | None = None) -> str:
        """Tell the session of an event. It wakes the call that waits for it, or is kept until one does.

        Returns:
            The notification's id.
        """
        return await self._wire.send(calls.notify(self.key, name, payload, notification_id or new_id()))


class AsyncWaits:
    """The part of a client that is about calls that wait, in whatever session."""

    _wire: AsyncWire

    def waiting(self, app: str | None = None, user_id: str | None = None) -> AsyncIterator[WaitingCall]:
        """The calls that wait for a person or the world, of all sessions that the token reaches.

        They are asked for in pages as you go on, and ``key`` has the session of each. What begins to wait
        is found within seconds.

        Args:
            app: only sessions with this agent.
            user_id: only this user's.

        Raises:
            Forbidden: the token does not reach what is named.
        """
        return self._wire.pages(partial(calls.all_waiting, app, user_id))

    async def complete_task(
        self,
        task_token: str,
        result: Json = None,
        *,
        error: str | None = None,
        by: str | None = None,
        request_id: str | None = None,
    ) -> Settled:
        """The outcome of a long-running tool, by the ``context.task_token`` that it handed on.

        Args:
            task_token: all that there is to know of session and call.
            result: what came of it.
            error: why it failed, instead.
            by: who says so; the log keeps it.
            request_id: names the request; sent twice under one id it happens once.

        Raises:
            InvalidTaskToken: it is none, or was cut or changed on its way.
            CallNotFound, AlreadySettled: the call does not wait for that.
            Forbidden: the client's token does not reach the session.
        """
        return await self._wire.send(
            calls.complete_task(task_token, result, error, by, request_id or new_id())
        )

    async def task_progress(
        self,
        task_token: str,
        text: str | None = None,
        *,
        percent: float | None = None,
        request_id: str | None = None,
    ) -> Settled:
        """How far a long-running tool has come, by its task token.

        Raises:
            InvalidTaskToken: it is none, or was cut or changed on its way.
            CallNotFound, AlreadySettled: the call does not wait for a result.
            Forbidden: the client's token does not reach the session.
        """
        return await self._wire.send(calls.task_progress(task_token, text, percent, request_id or new_id()))
