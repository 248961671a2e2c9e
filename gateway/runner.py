"""``Runner``: a session's face for everything that runs beside Temporal and the store.

It sends messages through Temporal and reads what came of them from the database. The
command line and the HTTP gateway are thin layers over it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from contextlib import suppress
from typing import TypedDict, TypeVar

from temporalio.client import (
    Client,
    WithStartWorkflowOperation,
    WorkflowUpdateRPCTimeoutOrCancelledError,
)
from temporalio.common import WorkflowIDConflictPolicy
from temporalio.service import RPCError

from activities.codec import converter
from activities.memory import Memories
from activities.protocol import Failure
from activities.starting import WORKFLOW_ID_LENGTH, attributes, summary
from gateway.answer import Answer, answer_of, first_answer
from gateway.closing import close_workflow
from gateway.held_up import Work, status_of, work_of
from gateway.remembering import MemoryOfUsers
from gateway.schedules import Schedules
from gateway.served import while_served
from gateway.typed import typed
from gateway.users import UsersOfApps
from gateway.waiting import CARRIED_BYTES, WaitingCalls
from gateway.waiting_lists import WaitingCall
from perdure.errors import InvalidMessage, TemporalUnavailable
from perdure.registry import Registry
from perdure.settings import Settings
from perdure.sources import Source
from perdure.types import During, Json, JsonObject, Session, SessionKey
from storage.sessions import SessionStore
from workflows.messages import (
    LARGEST_MESSAGE,
    Ack,
    ArtifactRequest,
    CancelRequest,
    Compacted,
    CompactRequest,
    EndRequest,
    Message,
    Reply,
    Request,
    RewindRequest,
)
from workflows.session import AgentSession

__all__ = ["Answer", "Runner", "Said", "WaitingCall", "connect", "new_id"]

T = TypeVar("T")


class Said(TypedDict, total=False):
    """A message, as :meth:`Runner.ask` and :meth:`Runner.message` take it beside the session."""

    text: str | None
    content: JsonObject | None
    message_id: str | None
    reopen: bool
    state: Mapping[str, Json] | None
    during: During


async def connect(settings: Settings) -> Client:
    """A Temporal client that speaks Perdure's payloads, encrypted where the settings have keys.

    Raises:
        RuntimeError: no Temporal server answers there.
        InvalidOption: the keys are not of the form they have to have.
    """
    return await Client.connect(
        settings.temporal_address,
        namespace=settings.temporal_namespace,
        data_converter=converter(settings),
        api_key=settings.temporal_api_key.get_secret_value() if settings.temporal_api_key else None,
        tls=settings.temporal_tls,
    )


class Runner(WaitingCalls, MemoryOfUsers, Schedules, UsersOfApps):
    """Talk to sessions.

    Args:
        client: a Temporal client from :func:`connect`.
        store: the store that the workers write to.
        task_queue: the queue that the workers poll.
        memories: the users'; None: searched by words alone.
    """

    def __init__(
        self,
        client: Client,
        store: SessionStore,
        *,
        task_queue: str = "perdure",
        memories: Memories | None = None,
    ) -> None:
        self.client = client
        self.store = store
        self._task_queue = task_queue
        self._memories = memories or Memories(store, Registry(), None)

    async def ask(
        self,
        key: SessionKey,
        text: str | None = None,
        *,
        content: JsonObject | None = None,
        message_id: str | None = None,
        reopen: bool = False,
        state: Mapping[str, Json] | None = None,
        during: During = "queue",
    ) -> Answer:
        """One turn, from the message to the answer, or to where it waits for a person or the world.

        Starts the session if there is none. Of a turn that waits, or is behind one that does, ask again
        under its id: once it goes on, that returns when it is answered, or waits again.

        Args:
            key: the session.
            text: what the user says; or ``content``, a genai ``Content`` in wire form.
            message_id: send a message again under its id and it runs once.
            reopen: open the session again if it was ended.
            state: a delta of the session's state, applied with the user's message; null removes a key.
            during: what becomes of it where a turn runs. ``queue``: it is the next turn. ``join``: the
                model sees it at the next step of that turn, whose answer is this message's, too; or it is
                a turn of its own, if there is no such step. ``interrupt``: it ends that turn, and is next.

        Raises:
            InvalidMessage, InvalidContent, Busy, SessionEnded, UnknownAgent, InvocationRewound,
            EventConflict: the message was refused, and nothing was written.
        """
        message = await self._message(key, text, content, message_id or new_id(), reopen, state, during)
        reply = await self._send(key, "ask", message, Reply)
        if reply.status == "waiting":
            said = content or {"parts": [{"text": text}]}
            first = await first_answer(self.store, key, message_id, said) if message_id is not None else None
            return first or answer_of(reply, None)
        # It may have been left once more after it was taken.
        if message.blob is not None:
            await self.store.forget_message(key, message.blob)
        logged = reply.seq and reply.status in ("answered", "failed")
        found = await self.store.log(key, after=reply.seq - 1, limit=1) if logged else []
        return answer_of(reply, found[0] if found else None)

    async def message(
        self,
        key: SessionKey,
        text: str | None = None,
        *,
        content: JsonObject | None = None,
        message_id: str | None = None,
        reopen: bool = False,
        state: Mapping[str, Json] | None = None,
        during: During = "queue",
    ) -> str:
        """Send a message without waiting for the turn. What is given is as in :meth:`ask`.

        Returns:
            The message's id, which is the invocation's, unless it joins another.

        Raises:
            InvalidMessage, InvalidContent: it was not sent.
        """
        invocation_id = message_id or new_id()
        message = await self._message(key, text, content, invocation_id, reopen, state, during)
        await self.client.start_workflow(
            AgentSession.run,
            id=_workflow_id(key),
            task_queue=self._task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=attributes(key),
            static_summary=summary(key),
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

        A message of that id that waits for its turn is not run: its turn ends as it would begin.

        Raises:
            SessionNotFound: no workflow of that session is open.
        """
        request = CancelRequest(invocation_id=invocation_id) if invocation_id else CancelRequest()
        handle = self.client.get_workflow_handle(key.workflow_id)
        await typed(handle.signal(AgentSession.cancel, request), key)

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

    async def compact(self, key: SessionKey, *, request_id: str | None = None) -> int | None:
        """Sum up what has ended so far, also where the agent's policy would not, or it has none.

        A running turn, and calls that wait, stay in the prompt as they are. Under one request id
        it happens once.

        Returns:
            The seq of the summary, or None if there is nothing to sum up.

        Raises:
            SessionNotFound, SessionEnded, UnknownAgent: nothing was written.
            ModelRefused, ModelUnavailable: the summariser failed; the prompt stays as it was.
            BudgetExceeded: the session has nothing left to pay it with.
            StaleEpoch: a rewind took away what was being summed up; ask again.
        """
        await self._must_exist(key)
        request = CompactRequest(request_id=request_id or new_id())
        return (await self._send(key, "compact", request, Compacted)).seq

    async def delete(self, key: SessionKey) -> bool:
        """Delete the session: its workflow is closed, then log, state, artifacts and metadata go.

        A running turn is cancelled, and what waits for its turn is not run; its schedules go, too, and
        the sessions of the agents that it has called. Done twice it is the same as once, and one that
        died halfway is finished by another. A message from then on starts a session anew.

        Returns:
            Whether there was anything to delete.
        """
        found = await self._delete_one(key)
        for child in await self.store.children(key):
            found = await self._delete_one(child.key) or found
        return found

    async def _delete_one(self, key: SessionKey) -> bool:
        found = False
        await self._unschedule_all(key)
        # The workflow first, so that it cannot write any more. A message that came in between has
        # started another, or an attempt that came late the session: hence again, until nothing is there.
        while True:
            closed = await close_workflow(self.client, key)
            deleted = await self.store.delete(key)
            if not closed and not deleted:
                return found
            found = True

    async def status(self, key: SessionKey) -> Work:
        """What the session's workflow is doing now, and what holds it up.

        Raises:
            SessionNotFound: it has no open workflow, nor one that has ended it. The store may have the
                session all the same.
        """
        status = await status_of(self.client, key)
        return await typed(work_of(self.client, key.workflow_id, status), key)

    async def save_artifact(
        self, key: SessionKey, name: str, data: Source, mime_type: str, *, request_id: str | None = None
    ) -> int:
        """Save an artifact from outside a turn: bytes, or a file or async iterable that is read in chunks.

        Under one request id it is saved once, and the bytes of the first request are those that count.

        Returns:
            Its version.

        Raises:
            InvalidName, SessionNotFound, SessionEnded: nothing is listed.
        """
        await self._must_exist(key)
        request_id = request_id or new_id()
        version = await self.store.stage_artifact(
            key, name, data, mime_type, event_id=f"{request_id}:artifact"
        )
        request = ArtifactRequest(request_id=request_id, name=name, version=version)
        await self._send(key, "save_artifact", request, Ack)
        return version

    async def _message(
        self,
        key: SessionKey,
        text: str | None,
        content: JsonObject | None,
        message_id: str,
        reopen: bool,
        state: Mapping[str, Json] | None,
        during: During,
    ) -> Message:
        """The message as it is sent: one that is large, or brings state, is left in the store.

        Temporal carries its key then.
        """
        fields: JsonObject = {"text": text, "content": content}
        given = {name: value for name, value in fields.items() if value is not None}
        how: JsonObject = {"reopen": True} if reopen else {}
        if during != "queue":
            how["during"] = during
        message = Message(message_id=message_id, **given, **how)
        message.check_said()
        if message.size > LARGEST_MESSAGE:
            raise InvalidMessage(
                f"the message to {key} has {message.size} bytes and the limit is {LARGEST_MESSAGE}; "
                "save what is large as an artifact"
            )
        if state or message.size > CARRIED_BYTES:
            said = {"role": "user", "parts": [{"text": text}]} if content is None else content
            blob = await self.store.leave_message(key, message_id, said, state=state)
            message = Message(message_id=message_id, blob=blob, **how)
        message.check()
        return message

    async def _must_exist(self, key: SessionKey) -> None:
        await self.store.get(key, max_events=0)

    async def _send(self, key: SessionKey, update: str, request: Request, answer: type[T]) -> T:
        """Send an update, to a workflow that is started now if none is open."""
        start = self._start(key)
        call = self.client.execute_update_with_start_workflow(
            update, request, start_workflow_operation=start, result_type=answer
        )
        try:
            return await typed(while_served(self.client, key.workflow_id, self._task_queue, call), key)
        except (
            RPCError,
            WorkflowUpdateRPCTimeoutOrCancelledError,
            TemporalUnavailable,
            asyncio.CancelledError,
        ):
            # The SDK has failed the future of the start too, and asyncio would complain that nobody looked.
            # Where the caller was cancelled, it has failed it by that.
            with suppress(RPCError, TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(start.workflow_handle(), 0.1)
            raise

    def _start(self, key: SessionKey) -> WithStartWorkflowOperation[AgentSession, Failure | None]:
        return WithStartWorkflowOperation(
            AgentSession.run,
            id=_workflow_id(key),
            task_queue=self._task_queue,
            id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
            search_attributes=attributes(key),
            static_summary=summary(key),
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
