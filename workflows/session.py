"""``AgentSession``: the control flow of one session, for as long as it lives.

The workflow holds the inbox, the epoch and a few counters. What was said, called and
stored is in the database; what to do next is the model activity's to say. So there is no
agent, prompt or transcript here, and changing one cannot break the replay of a session.

Hazards that explain the shape of the code:

- A handler can run before ``run`` does, so all state is set up in ``__init__``.
- An exception that is not an ``ApplicationError`` fails the workflow task, which then
  retries for ever, and so does a payload that a handler's signature cannot take: handlers
  take any JSON, and convert at their edge (``Request.of``, ``typed``, ``Standing.noted``).
- Updates cannot be carried into the next run, signals can: so a run continues as new only
  while no update is open, and stops taking new ones if that does not come about by itself.
"""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio import workflow
from temporalio.exceptions import ActivityError, ApplicationError, is_cancelled_exception

from activities.failures import application_error, perdure_error, refusal
from activities.protocol import END, SAVE_ARTIFACT, ArtifactTask, EndTask, Failure, ModelTask, Moved
from perdure.crashpoints import reach
from perdure.errors import (
    Busy,
    InternalError,
    InvalidMessage,
    InvocationRewound,
    SessionEnded,
    SessionNotFound,
    StaleEpoch,
)
from perdure.types import SessionKey
from workflows import calls, face
from workflows.above import Above
from workflows.edges import check_length, typed, update_id
from workflows.memory_handlers import MemoryHandlers, Vectors
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
from workflows.standing import Standing
from workflows.steering import Steering
from workflows.turn import Turn
from workflows.wait_handlers import WaitHandlers
from workflows.wait_messages import Parked
from workflows.watching import Watching

__all__ = ["TURNS_PER_RUN", "AgentSession"]

TURNS_PER_RUN = 64
"""Turns after which a run continues as new. A cold replay of 64 turns takes well under a second."""
CARRY_BYTES = 1_000_000
"""How much inbox may be carried into the next run; a payload may have 2 MiB."""


@workflow.defn(name="AgentSession")
class AgentSession(WaitHandlers, MemoryHandlers):
    """One session with an agent. Its id, ``app/user/session``, says which."""

    @workflow.init
    def __init__(self, carry: Carry | None = None) -> None:
        carry = carry or Carry()
        self._standing = Standing(carry)
        self._id = self._standing.id
        self._inbox = self._standing.inbox
        self._compactions = self._standing.compactions
        self._steering = Steering(self._standing)
        self._waits = self._standing.waits
        self._vectors = Vectors(self._standing)
        self._above = Above(carry)
        self._watching = Watching(self._standing, self._steering, self._above, self._may_renew)
        self._turns_here = 0
        self._tried = False
        self._over = carry.status == "ended"
        self._left = carry.parked
        self._refused: Failure | None = None
        if carry.parked is not None:
            self._standing.turn = self._turn(carry.parked.invocation_id, carry.parked)

    @workflow.run
    async def run(self, carry: Carry | None = None) -> Failure | None:
        """Take what is in the inbox, one after the other, until the session is ended.

        Returns:
            Why its turn was refused, where it is the session of an agent that another has asked.
        """
        with typed():
            face.tag(SessionKey.parse(self._id), self._standing.totals.status)
        try:
            if carry is not None and carry.parked is not None:
                await self._take(Item(kind="turn", id=carry.parked.invocation_id))
            while True:
                await workflow.wait_condition(self._may_move)
                if self._may_renew():
                    self._renew()
                elif self._inbox:
                    await self._take(self._inbox.take())
                else:
                    return self._refused
        except asyncio.CancelledError:
            # The workflow itself was cancelled: let the handlers answer, then leave.
            self._inbox.abandon()
            self._compactions.abandon()
            self._vectors.abandon()
            await workflow.wait_condition(
                lambda: workflow.all_handlers_finished() and not self._waits.children.running
            )
            raise

    # What a session takes. Payloads are plain JSON, read by `Request.of`.

    @workflow.update
    async def ask(self, message: Any = None) -> Reply:
        """One turn; returns when the agent has answered, or the turn has failed or was cancelled."""
        said = Message.of(message)
        item = Item(kind="turn", id=said.message_id or update_id(), message=said)
        if item.interrupts and self._inbox.add(item):
            await self._steering.make_way(item.id)
        reply = await self._inbox.answered(item)
        if not isinstance(reply, Reply):
            taken = f"{reply.request_id} is the id of an end of {self._id}; send this under another"
            raise application_error(InvalidMessage(taken))
        return reply

    @ask.validator
    def _check_ask(self, message: Any = None) -> None:
        with typed():
            said = Message.of(message)
            check_length(self._id)
            if self._over and not said.reopen:
                raise SessionEnded(f"session {self._id} was ended; send the message with reopen set")
            if not self._inbox.holds(said.message_id):
                self._inbox.check_room()
                self._check_gate()

    @workflow.signal
    async def message(self, message: Any = None) -> None:
        """The same, for callers that don't wait."""
        with self._standing.noted():
            said = Message.of(message)
            item = Item(kind="turn", id=said.message_id or str(workflow.uuid7()), message=said)
            if self._queue(item) and item.interrupts:
                await self._steering.make_way(item.id)

    @workflow.update
    async def rewind(self, request: Any = None) -> Ack:
        """Rewind to just before an invocation; the running turn ends first."""
        wanted = RewindRequest.of(request)
        self._tried = True
        return await self._steering.rewind(wanted)

    @rewind.validator
    def _check_rewind(self, request: Any = None) -> None:
        with typed():
            RewindRequest.of(request)

    @workflow.signal(name="rewind")
    async def rewind_signal(self, request: Any = None) -> None:
        """The same, for callers that don't wait; an error is shown by ``status``."""
        with self._standing.noted():
            wanted = RewindRequest.of(request)
            self._tried = True
            await self._steering.rewind(wanted)

    @workflow.signal
    async def cancel(self, request: Any = None) -> None:
        """End the running turn. What it committed stays, marked interrupted."""
        with self._standing.noted():
            await self._steering.cancel(CancelRequest.of(request))

    @workflow.update
    async def end(self, request: Any = None) -> Ack:
        """Close the session, once the messages before this one are done with."""
        item = Item(kind="end", id=EndRequest.of(request).request_id or update_id())
        await self._wake_for_end(item)
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
    async def end_signal(self, request: Any = None) -> None:
        """The same, for callers that don't wait."""
        with self._standing.noted():
            item = Item(kind="end", id=EndRequest.of(request).request_id or str(workflow.uuid7()))
            self._queue(item)
            await self._wake_for_end(item)

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
            self._standing.note_error(error)
            raise

    @compact.validator
    def _check_compact(self, request: Any = None) -> None:
        with typed():
            CompactRequest.of(request)

    @workflow.signal(name="compact")
    async def compact_signal(self, request: Any = None) -> None:
        """The same, for callers that don't wait."""
        with self._standing.noted():
            self._tried = True
            await self._compactions.on_request(CompactRequest.of(request), str(workflow.uuid7()))

    @workflow.query
    def status(self) -> Status:
        """What the session is doing now, and its totals."""
        return self._standing.status()

    # The loop.

    def _may_move(self) -> bool:
        if self._steering.under_way:
            return False
        if self._inbox or self._may_renew():
            return True
        # A run that never opened the session (an unknown agent, a stray signal) keeps nothing.
        idle_for_good = (
            self._over or self._standing.totals.once or (self._standing.epoch is None and self._tried)
        )
        return idle_for_good and self._nothing_open()

    def _nothing_open(self) -> bool:
        behind = self._compactions.running or self._vectors.running or self._waits.children.running
        return workflow.all_handlers_finished() and not behind and not self._above.telling

    def _may_renew(self) -> bool:
        return self._due() and self._nothing_open() and self._inbox.bytes <= CARRY_BYTES

    def _due(self) -> bool:
        return self._turns_here >= TURNS_PER_RUN or workflow.info().is_continue_as_new_suggested()

    def _renew(self) -> None:
        reach("workflow.before_continue_as_new")
        workflow.continue_as_new(self._standing.carry())

    def _check_gate(self) -> None:
        if self._turns_here >= 2 * TURNS_PER_RUN:
            raise Busy(f"session {self._id} is about to continue as a new run; send this again")

    def _queue(self, item: Item) -> bool:
        """Take what came by a signal, and say whether it is new.

        Nobody hears of a refusal, so ``status`` keeps the ids.
        """
        full = self._inbox.full_for(item)
        if full is not None and workflow.patched(BOUNDED_INBOX):
            self._standing.totals = self._standing.totals.without(item.id)
            raise Busy(f"{item.id} was not taken: {full} in session {self._id}; send it again later")
        return self._inbox.add(item)

    async def _wake_for_end(self, item: Item) -> None:
        """A turn that waits would keep the session from its end."""
        turn = self._standing.turn
        if turn is not None and turn.parked:
            self._inbox.add(item)
            await self._steering.let_go("session ended")

    async def _take(self, item: Item) -> None:
        self._tried = True
        try:
            answer = await (self._take_turn(item) if item.kind == "turn" else self._take_end(item))
        except ActivityError as error:
            if is_cancelled_exception(error):  # how a cancellation of the workflow reaches an end
                raise asyncio.CancelledError from error
            refused = refusal(error)
            self._standing.note_error(refused)
            if isinstance(perdure_error(error), SessionNotFound | SessionEnded):
                self._over = True
            if self._standing.epoch is None:
                self._standing.set_status("error")
            self._inbox.refuse(item, refused)
            if self._standing.totals.once:
                self._refused = Failure(type=refused.type or "ApplicationError", message=refused.message)
        else:
            self._inbox.answer(item, answer)
        self._standing.show()

    async def _take_turn(self, item: Item) -> Reply:
        if item.cancelled and self._over:  # nothing more is written
            return Reply(invocation_id=item.id, status="cancelled")
        self._turns_here += 1
        standing = self._standing
        # One that a run before has left is there from the first moment: it can be cancelled at once.
        turn = standing.turn = standing.turn or self._turn(item.id)
        first = self._first_task(item) if item.message is not None else self._left
        assert first is not None, "a turn's item carries its message, or the run before has left the turn"
        try:
            if item.cancelled:
                await self._steering.keep_from_running(turn)
            reply = await self._reply(turn, first)
        except asyncio.CancelledError:
            if turn.left is not None:
                self._renew()
            await self._steering.interrupt(turn, "workflow cancelled")
            raise
        finally:
            if turn.left is None:  # else whoever still asks this run sees it wait
                standing.turn = None
        if turn.repeated:
            return reply
        if turn.stopped is None and turn.epoch is not None:
            standing.epoch = max(turn.epoch, standing.epoch or 0)  # a cancel that came too late has moved it
        self._over = False
        standing.count(turn, reply)
        if turn.compact:
            self._compactions.start(item.id)
        return reply

    def _turn(self, invocation_id: str, parked: Parked | None = None) -> Turn:
        return Turn(invocation_id, self._standing.totals.model, self._waits, self._watching, parked)

    def _first_task(self, item: Item) -> ModelTask:
        assert item.message is not None, "the turn is to begin"
        epoch = self._standing.epoch
        return ModelTask(
            invocation_id=item.id,
            **({} if epoch is None else {"epoch": epoch}),
            **item.message.model_dump(
                include={"text", "content", "blob", "reopen", "inline"}, exclude_unset=True
            ),
        )

    async def _reply(self, turn: Turn, first: ModelTask | Parked) -> Reply:
        """Run the turn; raises ActivityError if it was refused, and nothing of it is in the log."""
        try:
            return await turn.run(first)
        except ActivityError as error:
            ours = perdure_error(error)
            if isinstance(ours, StaleEpoch):
                # Nobody here moved the epoch, so somebody did who went past this workflow. Take over again.
                self._standing.epoch = None
                again = isinstance(first, ModelTask) and turn.epoch is None and first.epoch is not None
                if again and not self._steering.under_way:
                    return await turn.run(first.model_copy(update={"epoch": None}))
                return Reply(invocation_id=turn.id, status="cancelled")
            if isinstance(ours, InvocationRewound):
                # By the rewind that is under way, perhaps, which has not heard yet that it is done.
                await workflow.wait_condition(lambda: not self._steering.under_way)
                if turn.stopped is not None:
                    return turn.cut_short
            if ours is not None and not isinstance(ours, InternalError):
                raise
            refused = refusal(error)
            failure = Failure(type=refused.type or "ActivityError", message=refused.message)
            await self._steering.interrupt(turn, "failed", failure)
            return Reply(invocation_id=turn.id, status="failed", failure=failure)

    async def _take_end(self, item: Item) -> Ack:
        await self._waits.children.counted()
        moved = await calls.steer(END, EndTask(request_id=item.id), Moved, "end session")
        self._standing.epoch = moved.epoch
        self._over = True
        self._standing.set_status("ended")
        if moved.lacks_vectors:
            self._vectors.start(item.id)
        return Ack(request_id=item.id, seq=moved.seq)
