"""The calls that wait for a person or the world, and the notifications that nobody waits for yet.

A call that waits holds nothing but its record and, where it has a deadline, a durable timer. What
a run before has left waiting waits from the first moment: a handler may run before the workflow does.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from temporalio import workflow

from activities.protocol import Resolution
from perdure.errors import AlreadySettled, CallNotFound
from perdure.types import given
from workflows.children import Children
from workflows.messages import Carry
from workflows.wait_messages import (
    Decision,
    Notification,
    Parked,
    Progress,
    Result,
    Settled,
    Waiting,
    Was,
)

__all__ = ["Mail", "Waits"]

MAIL_ROOM = 100
"""How many early notifications are kept."""
MAIL_BYTES = 256 * 1024
"""How many bytes of them. They can be carried into the next run at any time."""
REMEMBERED = 100
"""Of how many calls that do not wait any more, and notifications, the ids are kept."""
CARRIED = 20
"""Of how many such calls the next run is told."""

_KINDS = {"approval": "approval", "result": "a result"}
_OVER = "over"


class Mail:
    """Notifications that came before anybody waited for them, oldest first.

    Args:
        carry: what the run before handed over.
    """

    def __init__(self, carry: Carry) -> None:
        self.kept = deque(carry.mail)
        self.heard = deque(carry.heard, maxlen=REMEMBERED)
        self.dropped = carry.dropped
        self._size = sum(kept.size for kept in self.kept)

    def is_new(self, notification: Notification) -> bool:
        """Whether it was not heard before; from now on it was."""
        name = notification.notification_id
        if name is None:
            return True
        if name in self.heard:
            return False
        self.heard.append(name)
        return True

    def keep(self, notification: Notification) -> None:
        """Keep it until somebody waits for it. The oldest make room."""
        self.kept.append(notification)
        self._size += notification.size
        while len(self.kept) > MAIL_ROOM or self._size > MAIL_BYTES:
            self._size -= self.kept.popleft().size
            self.dropped += 1

    def take(self, name: str) -> Notification | None:
        """The oldest of that name, which is then gone."""
        found = next((kept for kept in self.kept if kept.name == name), None)
        if found is not None:
            self.kept.remove(found)
            self._size -= found.size
        return found


@dataclass
class _Open:
    waiting: Waiting
    resolution: Resolution | None = None


class Waits:
    """What the running turn waits for. There is one turn at a time, so one of these a session.

    Args:
        carry: what the run before handed over.
    """

    def __init__(self, carry: Carry) -> None:
        self.mail = Mail(carry)
        self.children = Children(self._tell)
        """The agents that calls have asked."""
        self.changed: Callable[[], None] | None = None
        """Told when a call begins or ceases to wait."""
        parked = carry.parked.calls if carry.parked is not None else ()
        self._open = {each.waiting.call_id: _Open(each.waiting) for each in parked}
        self._settled = OrderedDict(((was.kind, was.call_id), was) for was in carry.was)
        self._coming: set[str] = set()

    @property
    def waiting(self) -> list[Waiting]:
        """The calls that wait, in the order in which they began to; after them, those whose agent does."""
        own = [each.waiting for each in self._open.values() if each.resolution is None]
        return [*own, *self.children.waiting]

    def was(self, left: Parked | None) -> list[Was]:
        """The last calls that do not wait any more; not those that are left for the next run."""
        still = {each.waiting.call_id for each in left.calls} if left is not None else ()
        over = [was for was in self._settled.values() if was.call_id not in still or was.how != _OVER]
        return over[-CARRIED:]

    @contextmanager
    def coming(self, call_id: str) -> Iterator[None]:
        """Meanwhile the call is tried, and may turn out to wait."""
        self._coming.add(call_id)
        try:
            yield
        finally:
            self._coming.discard(call_id)

    def came(self, call_id: str) -> None:
        """It is known that the call does not wait for itself, though it is not done."""
        self._coming.discard(call_id)

    async def arrived(self, request: Decision | Result | Progress) -> None:
        """Until it is known whether the call waits that somebody decides about, or answers.

        The log has that it waits, and the service that it asks has its id, before its activity is done.
        """
        if self._may_come(request):
            await workflow.wait_condition(lambda: not self._may_come(request))

    def _may_come(self, request: Decision | Result | Progress) -> bool:
        return request.call_id in self._coming and self._over(request) is None

    async def settled(self, waiting: Waiting) -> Resolution:
        """What comes of a wait; ``expired`` where its time is up first."""
        here = self._open.get(waiting.call_id)
        if here is None:
            early = self.mail.take(waiting.event) if waiting.event is not None else None
            here = _Open(waiting, None if early is None else early.resolution)
            self._open[waiting.call_id] = here
        if here.resolution is None and waiting.until is not None and waiting.until <= workflow.now():
            here.resolution = Resolution(decision="expired")
            self._remember(waiting, _OVER)
        self._tell()
        try:
            return await _in_time(here)
        finally:
            del self._open[waiting.call_id]
            if here.resolution is None:
                self._remember(here.waiting, _OVER)
                self._tell()

    def check(self, request: Decision | Result | Progress) -> None:
        """Whether the call that is meant waits for that, or may do so soon.

        Raises:
            CallNotFound, AlreadySettled: it does not.
        """
        if not self._may_come(request) and self._again(request) is None:
            self._check_now(request)

    def _check_now(self, request: Decision | Result | Progress) -> None:
        kind, call_id = _kind_of(request), request.call_id
        found = next((each for each in self.waiting if each.call_id == call_id), None)
        if found is not None and found.kind == kind:
            return
        if was := self._over(request):
            raise AlreadySettled(
                f"call {call_id} does not wait for {_KINDS[kind]} any more: it had {was.how!r}"
            )
        if found is not None:
            raise CallNotFound(f"call {call_id} waits for {found.title}, and not for {_KINDS[kind]}")
        raise CallNotFound(f"no call {call_id} waits in this session; its status has those that do")

    def settle(self, request: Decision | Result) -> Settled:
        """Take a decision or a result.

        Raises:
            CallNotFound, AlreadySettled: the call does not wait for it.
        """
        if again := self._again(request):
            return again
        self._check_now(request)
        resolution = request.resolution
        self._resolve(request.call_id, resolution, request.request_id)
        return Settled(call_id=request.call_id, decision=resolution.decision)

    def report(self, progress: Progress) -> None:
        """Take a progress, for the status.

        Raises:
            CallNotFound, AlreadySettled: the call does not wait for a result.
        """
        self._check_now(progress)
        here = self._open[progress.call_id]
        here.waiting = here.waiting.model_copy(update=progress.shown)

    def notify(self, notification: Notification) -> None:
        """Wake the call that has waited longest for it, or keep it until one does."""
        if not self.mail.is_new(notification):
            return
        call_id = next((each.call_id for each in self.waiting if each.event == notification.name), None)
        if call_id is None:
            self.mail.keep(notification)
        else:
            self._resolve(call_id, notification.resolution)

    def _resolve(self, call_id: str, resolution: Resolution, request_id: str | None = None) -> None:
        here = self._open[call_id]
        self._remember(here.waiting, resolution.decision, request_id)
        here.resolution = resolution
        self._tell()

    def _over(self, request: Decision | Result | Progress) -> Was | None:
        """How the wait that is meant came to its end."""
        return self._settled.get((_kind_of(request), request.call_id))

    def _again(self, request: Decision | Result | Progress) -> Settled | None:
        """What this very request was answered, where it has come before: perhaps to the run before."""
        was = self._over(request)
        if was is None or isinstance(request, Progress) or request.request_id is None:
            return None
        same = was.request_id == request.request_id
        return Settled(call_id=was.call_id, decision=was.how) if same else None

    def _remember(self, waiting: Waiting, how: str, request_id: str | None = None) -> None:
        self._settled[waiting.kind, waiting.call_id] = Was(
            call_id=waiting.call_id, kind=waiting.kind, how=how, **given(request_id=request_id)
        )
        while len(self._settled) > REMEMBERED:
            self._settled.popitem(last=False)

    def _tell(self) -> None:
        if self.changed is not None:
            self.changed()


async def _in_time(here: _Open) -> Resolution:
    waiting = here.waiting
    if here.resolution is None:
        left = None if waiting.until is None else waiting.until - workflow.now()
        # When both come at once, what was sent counts.
        with suppress(TimeoutError):
            await workflow.wait_condition(
                lambda: here.resolution is not None, timeout=left, timeout_summary=_summary(waiting)
            )
    return here.resolution or Resolution(decision="expired")


def _kind_of(request: Decision | Result | Progress) -> str:
    return "approval" if isinstance(request, Decision) else "result"


def _summary(waiting: Waiting) -> str:
    """What the UI calls the timer: short, so of an event not its name."""
    if waiting.kind == "timer":
        return f"{waiting.tool} sleeps"
    what = {"result": "the result of", "event": "an event, by"}.get(waiting.kind, "approval of")
    return f"waiting for {what} {waiting.tool}"
