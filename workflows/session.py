"""``AgentSession``: the control flow of one session, for as long as it lives.

The workflow holds the inbox, the epoch and a few counters. What was said, called and
stored is in the database; what to do next is the model activity's to say. So there is no
agent, prompt or transcript here, and changing one cannot break the replay of a session.

Hazards that explain the shape of the code:

- A handler can run before ``run`` does, so all state is set up in ``__init__``.
- An exception that is not an ``ApplicationError`` fails the workflow task, which then
  retries for ever, and so does a payload that a handler's signature cannot take: handlers
  take any JSON, and convert at their edge (``Request.of``, ``typed``, ``_noted``).
- A rewind or cancel commits first, moving the epoch, and stops the turn's task after. In
  between, whatever the turn still writes is refused by the database, not by luck.
- Updates cannot be carried into the next run, signals can: so a run continues as new only
  while no update is open, and stops taking new ones if that does not come about by itself.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from activities.failures import application_error, perdure_error, refusal
from activities.protocol import (
    END,
    REWIND,
    SAVE_ARTIFACT,
    ArtifactTask,
    EndTask,
    Failure,
    Interrupted,
    InterruptTask,
    ModelTask,
    Moved,
    RewindTask,
)
from perdure.crashpoints import reach
from perdure.errors import (
    Busy,
    InternalError,
    InvocationRewound,
    LimitExceeded,
    PerdureError,
    SessionEnded,
    SessionNotFound,
    StaleEpoch,
)
from perdure.logs import Private
from perdure.types import SessionKey
from workflows import calls, face
from workflows.compaction import Compactions
from workflows.edges import typed, update_id
from workflows.inbox import Inbox
from workflows.messages import (
    Ack,
    ArtifactRequest,
    CancelRequest,
    Carry,
    Compacted,
    CompactRequest,
    EndRequest,
    Item,
    Message,
    Reply,
    RewindRequest,
    Status,
)
from workflows.patches import BOUNDED_INBOX
from workflows.turn import Turn

__all__ = ["TURNS_PER_RUN", "AgentSession"]

TURNS_PER_RUN = 64
"""Turns after which a run continues as new. A cold replay of 64 turns takes well under a second."""
CARRY_BYTES = 1_000_000
"""How much inbox may be carried into the next run; a payload may have 2 MiB."""


@workflow.defn(name="AgentSession")
class AgentSession:
    """One session with an agent. Its id, ``app/user/session``, says which."""

    @workflow.init
    def __init__(self, carry: Carry | None = None) -> None:
        carry = carry or Carry()
        self._id = workflow.info().workflow_id
        self._totals = carry
        self._epoch = carry.epoch
        self._inbox = Inbox(carry.inbox)
        self._turn: Turn | None = None
        self._turns_here = 0
        self._tried = False
        self._steering = 0
        self._steering_lock = asyncio.Lock()
        self._compactions = Compactions(self._note_step, self._note_error)
        self._over = carry.status == "ended"
        self._steps: deque[str] = deque(maxlen=8)

    @workflow.run
    async def run(self, carry: Carry | None = None) -> None:
        """Take what is in the inbox, one after the other, until the session is ended."""
        with typed():
            face.tag(SessionKey.parse(self._id), self._totals.status)
        try:
            while True:
                await workflow.wait_condition(self._may_move)
                if self._may_renew():
                    self._renew()
                elif self._inbox:
                    await self._take(self._inbox.take())
                else:
                    return
        except asyncio.CancelledError:
            # The workflow itself was cancelled: let the handlers answer, then leave.
            self._inbox.abandon()
            self._compactions.abandon()
            await workflow.wait_condition(workflow.all_handlers_finished)
            raise

    # What a session takes. Payloads are plain JSON, read by `Request.of`.

    @workflow.update
    async def ask(self, message: Any = None) -> Reply:
        """One turn; returns when the agent has answered, or the turn has failed or was cancelled."""
        said = Message.of(message)
        reply = await self._inbox.answered(Item(kind="turn", id=said.message_id or update_id(), message=said))
        assert isinstance(reply, Reply), "a turn is answered by a Reply"
        return reply

    @ask.validator
    def _check_ask(self, message: Any = None) -> None:
        with typed():
            said = Message.of(message)
            if self._over and not said.reopen:
                raise SessionEnded(f"session {self._id} was ended; send the message with reopen set")
            if not self._inbox.holds(said.message_id):
                self._inbox.check_room()
                self._check_gate()

    @workflow.signal
    def message(self, message: Any = None) -> None:
        """The same, for callers that don't wait."""
        with self._noted():
            said = Message.of(message)
            self._queue(Item(kind="turn", id=said.message_id or str(workflow.uuid7()), message=said))

    @workflow.update
    async def rewind(self, request: Any = None) -> Ack:
        """Rewind to just before an invocation; the running turn ends first."""
        return await self._rewind(RewindRequest.of(request))

    @rewind.validator
    def _check_rewind(self, request: Any = None) -> None:
        with typed():
            RewindRequest.of(request)

    @workflow.signal(name="rewind")
    async def rewind_signal(self, request: Any = None) -> None:
        """The same, for callers that don't wait; an error is shown by ``status``."""
        with self._noted():
            await self._rewind(RewindRequest.of(request))

    @workflow.signal
    async def cancel(self, request: Any = None) -> None:
        """End the running turn. What it committed stays, marked interrupted."""
        with self._noted():
            wanted = CancelRequest.of(request).invocation_id
            async with self._steer():
                turn = self._turn
                if turn is not None and wanted in (None, turn.id):
                    await self._interrupt(turn, "cancelled")

    @workflow.update
    async def end(self, request: Any = None) -> Ack:
        """Close the session, once the messages before this one are done with."""
        item = Item(kind="end", id=EndRequest.of(request).request_id or update_id())
        ack = await self._inbox.answered(item)
        if not isinstance(ack, Ack):
            raise application_error(
                Busy(f"{self._id}: the workflow was cancelled before the session could end; send this again")
            )
        return ack

    @end.validator
    def _check_end(self, request: Any = None) -> None:
        with typed():
            EndRequest.of(request)

    @workflow.signal(name="end")
    def end_signal(self, request: Any = None) -> None:
        """The same, for callers that don't wait."""
        with self._noted():
            self._queue(Item(kind="end", id=EndRequest.of(request).request_id or str(workflow.uuid7())))

    @workflow.update
    async def save_artifact(self, request: Any = None) -> Ack:
        """List an artifact that the caller has put into the store; turns go on meanwhile."""
        wanted = ArtifactRequest.of(request)
        task = ArtifactTask(request_id=wanted.request_id, name=wanted.name, version=wanted.version)
        self._tried = True
        try:
            seq = await calls.steer(SAVE_ARTIFACT, task, int, f"save {wanted.name}")
        except ActivityError as error:
            raise refusal(error) from None
        return Ack(request_id=wanted.request_id, seq=seq)

    @save_artifact.validator
    def _check_save_artifact(self, request: Any = None) -> None:
        with typed():
            ArtifactRequest.of(request)

    @workflow.update
    async def compact(self, request: Any = None) -> Compacted:
        """Sum up what has ended so far; turns go on meanwhile."""
        self._tried = True
        try:
            return await self._compactions.on_request(CompactRequest.of(request), update_id())
        except ApplicationError as error:
            self._note_error(error)
            raise

    @compact.validator
    def _check_compact(self, request: Any = None) -> None:
        with typed():
            CompactRequest.of(request)

    @workflow.signal(name="compact")
    async def compact_signal(self, request: Any = None) -> None:
        """The same, for callers that don't wait."""
        with self._noted():
            self._tried = True
            await self._compactions.on_request(CompactRequest.of(request), str(workflow.uuid7()))

    @workflow.query
    def status(self) -> Status:
        """What the session is doing now, and its totals."""
        turn = self._turn
        return Status(
            doing=turn.doing if turn else None,
            invocation_id=turn.id if turn else None,
            queued=len(self._inbox),
            epoch=self._epoch,
            compacting=self._compactions.running,
            **self._totals.model_dump(exclude={"inbox", "epoch", "model"}),
        )

    # The loop.

    def _may_move(self) -> bool:
        if self._steering:
            return False
        if self._inbox or self._may_renew():
            return True
        # A run that never opened the session (an unknown agent, a stray signal) keeps nothing.
        idle_for_good = self._over or (self._epoch is None and self._tried)
        return idle_for_good and self._nothing_open()

    def _nothing_open(self) -> bool:
        return workflow.all_handlers_finished() and not self._compactions.running

    def _may_renew(self) -> bool:
        return self._due() and self._nothing_open() and self._inbox.bytes <= CARRY_BYTES

    def _due(self) -> bool:
        return self._turns_here >= TURNS_PER_RUN or workflow.info().is_continue_as_new_suggested()

    def _renew(self) -> None:
        carried = {"epoch": self._epoch, "inbox": list(self._inbox.items)}
        reach("workflow.before_continue_as_new")
        workflow.continue_as_new(self._totals.model_copy(update=carried))

    def _check_gate(self) -> None:
        if self._turns_here >= 2 * TURNS_PER_RUN:
            raise Busy(f"session {self._id} is about to continue as a new run; send this again")

    def _queue(self, item: Item) -> None:
        """Take what came by a signal. Nobody hears of its refusal, so ``status`` keeps the ids."""
        full = self._inbox.full_for(item)
        if full is not None and workflow.patched(BOUNDED_INBOX):
            self._totals = self._totals.without(item.id)
            raise Busy(f"{item.id} was not taken: {full} in session {self._id}; send it again later")
        self._inbox.add(item)

    async def _take(self, item: Item) -> None:
        self._tried = True
        try:
            answer = await (self._take_turn(item) if item.kind == "turn" else self._take_end(item))
        except ActivityError as error:
            if is_cancelled_exception(error):  # how a cancellation of the workflow reaches an end
                raise asyncio.CancelledError from error
            refused = refusal(error)
            self._note_error(refused)
            if isinstance(perdure_error(error), SessionNotFound | SessionEnded):
                self._over = True
            if self._epoch is None:
                self._set_status("error")
            self._inbox.refuse(item, refused)
        else:
            self._inbox.answer(item, answer)
        self._show()

    async def _take_turn(self, item: Item) -> Reply:
        assert item.message is not None, "a turn's item carries its message"
        self._turns_here += 1
        self._turn = turn = Turn(item.id, self._note_step, self._totals.model, self._time_is_up)
        said = item.message
        first = ModelTask(
            invocation_id=item.id,
            **({} if self._epoch is None else {"epoch": self._epoch}),
            **said.model_dump(include={"text", "content", "blob", "reopen", "inline"}, exclude_unset=True),
        )
        try:
            reply = await self._reply(turn, first)
        except asyncio.CancelledError:
            await self._interrupt(turn, "workflow cancelled")
            raise
        finally:
            self._turn = None
        if turn.repeated:
            return reply
        if turn.stopped is None and turn.epoch is not None:
            self._epoch = max(turn.epoch, self._epoch or 0)  # a cancel that came too late has moved it
        self._over = False
        self._totals = self._totals.plus(
            turns=1, model_calls=turn.model_calls, tool_calls=turn.tool_calls, tokens=turn.tokens
        ).model_copy(update={"model": turn.model})
        self._set_status("error" if reply.status == "failed" else "open", reply.failure)
        self._note_step(f"{reply.status} `{item.id}`")
        if turn.compact:
            self._compactions.start(item.id)
        return reply

    async def _reply(self, turn: Turn, first: ModelTask) -> Reply:
        """Run the turn; raises ActivityError if it was refused, and nothing of it is in the log."""
        try:
            return await turn.run(first)
        except ActivityError as error:
            ours = perdure_error(error)
            if isinstance(ours, StaleEpoch):
                # Nobody here moved the epoch, so somebody did who went past this workflow. Take over again.
                self._epoch = None
                if turn.epoch is None and first.epoch is not None and not self._steering:
                    return await turn.run(first.model_copy(update={"epoch": None}))
                return Reply(invocation_id=turn.id, status="cancelled")
            if isinstance(ours, InvocationRewound):
                # By the rewind that is under way, perhaps, which has not heard yet that it is done.
                await workflow.wait_condition(lambda: not self._steering)
                if turn.stopped is not None:
                    return turn.cut_short
            if ours is not None and not isinstance(ours, InternalError):
                raise
            refused = refusal(error)
            failure = Failure(type=refused.type or "ActivityError", message=refused.message)
            await self._interrupt(turn, "failed", failure)
            return Reply(invocation_id=turn.id, status="failed", failure=failure)

    async def _take_end(self, item: Item) -> Ack:
        moved = await calls.steer(END, EndTask(request_id=item.id), Moved, "end session")
        self._epoch = moved.epoch
        self._over = True
        self._set_status("ended")
        return Ack(request_id=item.id, seq=moved.seq)

    # Steering.

    @asynccontextmanager
    async def _steer(self) -> AsyncIterator[None]:
        """One steering request at a time, and no turn begins meanwhile."""
        self._steering += 1
        try:
            async with self._steering_lock:
                yield
        finally:
            self._steering -= 1

    async def _rewind(self, request: RewindRequest) -> Ack:
        request_id = request.request_id or str(workflow.uuid7())
        self._tried = True
        async with self._steer():
            turn = self._turn
            task = RewindTask(
                before=request.before, request_id=request_id, **({"running": turn.id} if turn else {})
            )
            try:
                moved = await calls.steer(REWIND, task, Moved, f"rewind before {request.before}")
            except ActivityError as error:
                raise refusal(error) from None
            if not moved.repeated:
                self._epoch = moved.epoch
                self._totals = self._totals.plus(rewinds=1)
            elif moved.stopped:
                self._epoch = None  # whose it is now is not known: the next turn takes the session over
            if turn is not None and (moved.stopped or not moved.repeated):
                turn.stop("rewound")
            self._note_step(f"rewound to before `{request.before}`")
            return Ack(request_id=request_id, seq=moved.seq)

    async def _time_is_up(self, turn: Turn, seconds: float) -> None:
        async with self._steer():
            if turn is self._turn and turn.stopped is None:
                turn.failure = Failure(
                    type=LimitExceeded.__name__,
                    message=f"the turn {turn.id} took longer than its limit of {seconds:g} seconds",
                )
                await self._interrupt(turn, "turn timeout", turn.failure)

    async def _interrupt(self, turn: Turn, reason: str, failure: Failure | None = None) -> None:
        epoch = turn.epoch if turn.epoch is not None else self._epoch
        known = {"epoch": epoch, "failure": failure}
        task = InterruptTask(
            invocation_id=turn.id,
            reason=reason,
            **{name: value for name, value in known.items() if value is not None},
        )
        try:
            moved = await calls.interrupt(task, reason)
        except ActivityError as error:
            self._note_error(refusal(error))
        else:
            if isinstance(moved, Interrupted):
                # It had its answer, which nobody here knows of yet: whoever asked is still to be told that.
                self._epoch = moved.epoch
                return
            self._epoch = moved
        turn.stop(reason)

    # What people see.

    def _set_status(self, status: str, failure: Failure | None = None) -> None:
        if failure is not None:
            self._totals = self._totals.model_copy(update={"last_error": failure})
        if status != self._totals.status:
            self._totals = self._totals.model_copy(update={"status": status})
            face.set_status(status)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """A signal has nobody to answer: its error is shown by ``status``, and logged."""
        try:
            yield
        except PerdureError as error:
            self._note_error(application_error(error))
        except ApplicationError as error:
            self._note_error(error)

    def _note_error(self, error: ApplicationError) -> None:
        failure = Failure(type=error.type or "ApplicationError", message=error.message)
        self._totals = self._totals.model_copy(update={"last_error": failure})
        # No format: the SDK appends the run to it, and the session's id may have a percent sign in it.
        workflow.logger.warning(f"session {self._id}: {failure.type}: {Private(failure.message)}")

    def _note_step(self, step: str) -> None:
        self._steps.appendleft(step)
        self._show()

    def _show(self) -> None:
        workflow.set_current_details(face.details(self.status(), self._steps))
