"""``Runner``: a session's face for everything that runs beside Temporal and the store.

It sends messages through Temporal and reads what came of them from the database. The
command line and the HTTP gateway are thin layers over it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowQueryFailedError,
    WorkflowUpdateFailedError,
)
from temporalio.common import (
    SearchAttributeKey,
    SearchAttributePair,
    TypedSearchAttributes,
    WorkflowIDConflictPolicy,
)
from temporalio.service import RPCError, RPCStatusCode

from activities.failures import perdure_error
from activities.protocol import Failure, data_converter
from perdure import searchattributes
from perdure.errors import InvalidMessage, SessionNotFound
from perdure.settings import Settings
from perdure.types import JsonObject, Session, SessionKey
from storage.sessions import SessionStore
from workflows.messages import (
    Ack,
    ArtifactRequest,
    CancelRequest,
    EndRequest,
    Message,
    Reply,
    Request,
    RewindRequest,
    Status,
)
from workflows.session import AgentSession

__all__ = ["Answer", "Runner", "connect"]

T = TypeVar("T")

WORKFLOW_ID_LENGTH = 1000
"""The longest id that Temporal takes, where its configuration says nothing else."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """How a turn ended, with the answer's text as the database has it."""

    invocation_id: str
    status: str
    """``answered``, ``failed`` or ``cancelled``."""
    seq: int
    text: str
    failure: Failure | None = None


async def connect(settings: Settings) -> Client:
    """A Temporal client that speaks Perdure's payloads.

    Raises:
        RuntimeError: no Temporal server answers there.
    """
    return await Client.connect(
        settings.temporal_address,
        namespace=settings.temporal_namespace,
        data_converter=data_converter,
        api_key=settings.temporal_api_key.get_secret_value() if settings.temporal_api_key else None,
        tls=settings.temporal_tls,
    )


class Runner:
    """Talk to sessions.

    Args:
        client: a Temporal client from :func:`connect`.
        store: the store that the workers write to.
        task_queue: the queue that the workers poll.
    """

    def __init__(self, client: Client, store: SessionStore, *, task_queue: str = "perdure") -> None:
        self.client = client
        self.store = store
        self._task_queue = task_queue

    async def ask(
        self,
        key: SessionKey,
        text: str | None = None,
        *,
        content: JsonObject | None = None,
        message_id: str | None = None,
        reopen: bool = False,
    ) -> Answer:
        """One turn, from the message to the answer. Starts the session if there is none.

        Args:
            key: the session.
            text: what the user says; or ``content``, a genai ``Content`` in wire form.
            message_id: send a message again under its id and it runs once.
            reopen: open the session again if it was ended.

        Raises:
            InvalidMessage, Busy, SessionEnded, UnknownAgent, InvocationRewound, EventConflict:
                the message was refused, and nothing was written.
        """
        message = _message(text, content, message_id or new_id(), reopen)
        reply = await self._send(key, "ask", message, Reply)
        answered = reply.status == "answered"
        found = await self.store.log(key, after=reply.seq - 1, limit=1) if answered else []
        return Answer(
            invocation_id=reply.invocation_id,
            status=reply.status,
            seq=reply.seq,
            text=found[0].text if found else "",
            failure=reply.failure,
        )

    async def message(
        self,
        key: SessionKey,
        text: str | None = None,
        *,
        content: JsonObject | None = None,
        message_id: str | None = None,
        reopen: bool = False,
    ) -> str:
        """Send a message without waiting for the turn.

        Returns:
            The invocation's id.

        Raises:
            InvalidMessage: it was not sent.
        """
        invocation_id = message_id or new_id()
        message = _message(text, content, invocation_id, reopen)
        await self.client.start_workflow(
            AgentSession.run,
            id=_workflow_id(key),
            task_queue=self._task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=_attributes(key),
            static_summary=_summary(key),
            start_signal="message",
            start_signal_args=[message],
        )
        return invocation_id

    async def rewind(self, key: SessionKey, before: str, *, request_id: str | None = None) -> Ack:
        """Rewind to just before an invocation; before a rewind's own id, that is redo.

        Raises:
            SessionNotFound, InvocationNotFound, InvocationRewound: nothing was written.
        """
        await self._must_exist(key)
        request = RewindRequest(before=before, request_id=request_id or new_id())
        return await self._send(key, "rewind", request, Ack)

    async def cancel(self, key: SessionKey, invocation_id: str | None = None) -> None:
        """End the running turn, if there is one; with an id, only if it is that one.

        Raises:
            SessionNotFound: no workflow of that session is open.
        """
        request = CancelRequest(invocation_id=invocation_id) if invocation_id else CancelRequest()
        handle = self.client.get_workflow_handle(key.workflow_id)
        await _typed(handle.signal(AgentSession.cancel, request), key)

    async def end(self, key: SessionKey, *, request_id: str | None = None) -> Session:
        """Close the session and return its final state. Ending it twice is the same as once.

        Raises:
            SessionNotFound: there is no such session.
        """
        session = await self.store.get(key, max_events=0)
        if session.ended_at is not None:
            return session
        request = EndRequest(request_id=request_id or new_id())
        await self._send(key, "end", request, Ack)
        return await self.store.get(key, max_events=0)

    async def status(self, key: SessionKey) -> Status:
        """What the session's workflow is doing now.

        Raises:
            SessionNotFound: it has no open workflow. The store may have the session all the same.
        """
        handle = self.client.get_workflow_handle(key.workflow_id)
        return await _typed(handle.query(AgentSession.status), key)

    async def save_artifact(self, key: SessionKey, name: str, data: bytes, mime_type: str) -> int:
        """Save an artifact from outside a turn.

        Returns:
            Its version.

        Raises:
            InvalidName, SessionNotFound, SessionEnded: nothing is listed.
        """
        await self._must_exist(key)
        request_id = new_id()
        version = await self.store.stage_artifact(
            key, name, data, mime_type, event_id=f"{request_id}:artifact"
        )
        request = ArtifactRequest(request_id=request_id, name=name, version=version)
        await self._send(key, "save_artifact", request, Ack)
        return version

    async def _must_exist(self, key: SessionKey) -> None:
        await self.store.get(key, max_events=0)

    async def _send(self, key: SessionKey, update: str, request: Request, answer: type[T]) -> T:
        """Send an update, to a workflow that is started now if none is open."""
        start = self._start(key)
        try:
            return await _typed(
                self.client.execute_update_with_start_workflow(
                    update, request, start_workflow_operation=start, result_type=answer
                ),
                key,
            )
        except RPCError:
            # The SDK has failed the future of the start too, and asyncio would complain that nobody looked.
            with suppress(RPCError, TimeoutError):
                await asyncio.wait_for(start.workflow_handle(), 0.1)
            raise

    def _start(self, key: SessionKey) -> WithStartWorkflowOperation[AgentSession, None]:
        return WithStartWorkflowOperation(
            AgentSession.run,
            id=_workflow_id(key),
            task_queue=self._task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=_attributes(key),
            static_summary=_summary(key),
        )


def new_id() -> str:
    """An id for a message or a request."""
    return uuid.uuid4().hex


def _workflow_id(key: SessionKey) -> str:
    if len(key.workflow_id) > WORKFLOW_ID_LENGTH:
        raise InvalidMessage(
            f"the session's names have {len(key.workflow_id)} characters when percent-encoded, and Temporal "
            f"takes {WORKFLOW_ID_LENGTH}: {key.workflow_id[:80]}…; shorten them"
        )
    return key.workflow_id


def _message(text: str | None, content: JsonObject | None, message_id: str, reopen: bool) -> Message:
    fields: JsonObject = {"text": text, "content": content, "reopen": reopen or None}
    given = {name: value for name, value in fields.items() if value is not None}
    message = Message(message_id=message_id, **given)
    message.check()
    return message


def _attributes(key: SessionKey) -> TypedSearchAttributes:
    values = {
        searchattributes.APP: key.app,
        searchattributes.USER: key.user_id,
        searchattributes.STATUS: "open",
    }
    return TypedSearchAttributes(
        [SearchAttributePair(SearchAttributeKey.for_keyword(name), value) for name, value in values.items()]
    )


def _summary(key: SessionKey) -> str:
    return f"{key.app} · {key.user_id} · {key.session_id}"


async def _typed(call: Awaitable[T], key: SessionKey) -> T:
    """Await a call to Temporal; raise Perdure's own error where there is one behind a failure."""
    try:
        return await call
    except (WorkflowUpdateFailedError, WorkflowQueryFailedError) as error:
        ours = perdure_error(error.__cause__)
        if ours is None:
            raise
        raise ours from error
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        raise SessionNotFound(f"no workflow of session {key} is open") from error
