"""Where a session stands: all that its workflow holds, and what people see of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from activities.failures import application_error
from activities.protocol import Failure
from perdure.errors import PerdureError
from perdure.logs import Private
from perdure.types import NANO
from workflows import face
from workflows.compaction import Compactions
from workflows.inbox import Inbox
from workflows.messages import Carry, Reply, Status
from workflows.turn import Turn
from workflows.wait_messages import Waiting
from workflows.waiting import Waits

__all__ = ["Standing"]

STEPS_SHOWN = 8
JOINED_KEPT = 100
"""Of how many messages that have joined a turn the ids are carried into the next run."""
_NOT_SHOWN = {
    "inbox",
    "epoch",
    "model",
    "parked",
    "joined",
    "mail",
    "heard",
    "dropped",
    "was",
    "nano_usd",
    "once",
    "tells",
}
"""What is carried and is no part of the status, or is counted anew for it."""


class Standing:
    """What passes between a session's loop, its handlers and those who steer it.

    Args:
        carry: what the run before handed over.
    """

    def __init__(self, carry: Carry) -> None:
        self.id = workflow.info().workflow_id
        self.totals = carry
        self.epoch = carry.epoch
        """Where it is not known, the next turn takes the session over."""
        self.turn: Turn | None = None
        """The one that runs."""
        self.waits = Waits(carry)
        self.waits.children.is_over = self._is_over
        self.inbox = Inbox(carry.inbox, carry.parked.invocation_id if carry.parked else None, carry.joined)
        self.compactions = Compactions(self.note_step, self.note_error)
        self._steps: deque[str] = deque(maxlen=STEPS_SHOWN)
        self.inbox.changed = self.show

    def status(self) -> Status:
        """What the session is doing now, and its totals."""
        turn = self.turn
        return Status(
            doing=turn.doing if turn else None,
            invocation_id=turn.id if turn else None,
            queued=len(self.inbox),
            epoch=self.epoch,
            compacting=self.compactions.running,
            waiting=self._waiting(),
            agents=self.waits.children.asked,
            mail=len(self.waits.mail.kept),
            dropped=self.waits.mail.dropped,
            usd=self.totals.nano_usd / NANO,
            turn_tokens=turn.tokens if turn else 0,
            turn_usd=turn.nano_usd / NANO if turn else 0.0,
            joined=self.inbox.joined,
            **self.totals.model_dump(exclude=_NOT_SHOWN),
        )

    def _waiting(self) -> list[Waiting]:
        """The calls that wait; also when the run is about to end, and has let go of them for the next."""
        left = self.turn.left if self.turn else None
        return self.waits.waiting if left is None else [each.waiting for each in left.calls]

    def carry(self) -> Carry:
        """What the next run is to be handed."""
        mail, turn = self.waits.mail, self.turn
        left = turn.left if turn else None
        joined = self.inbox.joined[-JOINED_KEPT:]
        waits = {"mail": mail.kept, "heard": mail.heard, "was": self.waits.was(left)}
        own = {"parked": left, "joined": joined, **waits}
        given = self.totals.model_fields_set - {*own, "dropped", "epoch", "inbox"}
        some = {
            name: list(value) if isinstance(value, deque) else value for name, value in own.items() if value
        }
        return Carry(
            epoch=self.epoch,
            inbox=list(self.inbox.items),
            **{name: getattr(self.totals, name) for name in given},
            **some,
            **({"dropped": mail.dropped} if mail.dropped else {}),
        )

    def count(self, turn: Turn, reply: Reply) -> None:
        """A turn is over."""
        self.totals = self.totals.plus(
            turns=1,
            model_calls=turn.model_calls,
            tool_calls=turn.tool_calls,
            tokens=turn.tokens,
            nano_usd=turn.nano_usd,
        ).model_copy(update={"model": turn.model})
        self.set_status("error" if reply.status == "failed" else "open", reply.failure)
        self.note_step(f"{reply.status} `{turn.id}`")

    def _is_over(self, invocation_id: str) -> bool:
        turn = self.turn
        return turn is None or turn.id != invocation_id or turn.stopped is not None

    def park(self, turn: Turn) -> None:
        """A turn begins or ceases to wait: who asked is told so, and sessions that wait can be found."""
        if turn.parked and not turn.ending:
            self.inbox.park(Reply(invocation_id=turn.id, status="waiting", waiting=self.waits.waiting))
        else:
            self.inbox.unpark()
        self.set_status("waiting" if turn.parked else "open")
        self.show()

    @contextmanager
    def ending(self, turn: Turn | None) -> Iterator[None]:
        """Meanwhile it is being ended: who asks for it waits for its end, also if it comes to wait itself."""
        if turn is None:
            yield
            return
        turn.ending = True
        self.inbox.unpark()
        try:
            yield
        finally:
            turn.ending = False
            if turn.parked and turn.stopped is None:
                self.park(turn)

    def warn(self, warning: str | None, *, anew: bool) -> None:
        """The agent's budget is nearly spent, or where it is looked at ``anew``, is not any more."""
        if warning is not None or (anew and self.totals.warning is not None):
            self.totals = self.totals.model_copy(update={"warning": warning})

    def bound(self, budget: dict[str, float] | None) -> None:
        """What the agent's budget allows, as the turn that runs has found it."""
        if budget != self.totals.budget:
            self.totals = self.totals.model_copy(update={"budget": budget})

    def set_status(self, status: str, failure: Failure | None = None) -> None:
        """Change the status, and the last error where there is a new one."""
        if failure is not None:
            self.totals = self.totals.model_copy(update={"last_error": failure})
        if status != self.totals.status:
            self.totals = self.totals.model_copy(update={"status": status})
            face.set_status(status)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """A signal has nobody to answer: its error is shown by ``status``, and logged."""
        try:
            yield
        except PerdureError as error:
            self.note_error(application_error(error))
        except ApplicationError as error:
            self.note_error(error)

    def note_error(self, error: ApplicationError) -> None:
        """Keep an error that nobody was told of."""
        failure = Failure(type=error.type or "ApplicationError", message=error.message)
        self.totals = self.totals.model_copy(update={"last_error": failure})
        # No format: the SDK appends the run to it, and the session's id may have a percent sign in it.
        workflow.logger.warning(f"session {self.id}: {failure.type}: {Private(failure.message)}")

    def note_step(self, step: str) -> None:
        """Keep a step among the last ones."""
        self._steps.appendleft(step)
        self.show()

    def show(self) -> None:
        """Bring what the UI shows up to date."""
        workflow.set_current_details(face.details(self.status(), self._steps))
