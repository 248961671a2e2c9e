"""The messages that wait for their turn, strictly in order of arrival, and those who wait for an answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable

from perdure.errors import Busy
from workflows.messages import Ack, Item, Reply

__all__ = ["JOIN_BYTES", "ROOM", "SIGNAL_BYTES", "SIGNAL_ROOM", "Inbox"]

ROOM = 8
"""How many updates may wait; the server allows 10 open ones a workflow."""
SIGNAL_ROOM = 1_000
"""How many may wait in all, where the last one came by a signal, which nobody can refuse."""
JOIN_BYTES = 500_000
"""How much may join a turn in one step, where that is more than one message. The rest joins the next."""
SIGNAL_BYTES = 1_000_000
"""How much may wait then. It can be carried into the next run at any time: a payload may have 2 MiB."""


class Inbox:
    """A queue of items. One that comes again under the id of one that waits or runs is that one.

    Args:
        items: what the run before carried over.
        running: the id of the item that was running there, and still is.
        joined: the ids of those that have joined it.
    """

    def __init__(
        self, items: Iterable[Item] = (), running: str | None = None, joined: Iterable[str] = ()
    ) -> None:
        self._put(items)
        self._running = running
        self._offered: dict[str, Item] = {}
        """Those that go with the step that is under way; whether they have joined is not known yet."""
        self.joined = list(joined)
        """The ids of those that have joined the running item: its answer is theirs."""
        self._parked: Reply | None = None
        self._waiting: dict[str, asyncio.Future[Reply | Ack]] = {}
        self.changed: Callable[[], None] | None = None
        """Told of each new item."""

    def __len__(self) -> int:
        return len(self.items)

    @property
    def bytes(self) -> int:
        """The size of what would have to be carried into the next run."""
        return sum(item.message.size for item in self.items if item.message)

    def add(self, item: Item) -> bool:
        """Queue an item, unless it is here already: one that interrupts before all that don't.

        Returns:
            Whether it is new.
        """
        if self.holds(item.id):
            return False
        ahead = [each for each in self.items if item.interrupts and each.interrupts]
        self.items.insert(len(ahead) if item.interrupts else len(self.items), item)
        self._size += item.size
        if self.changed is not None:
            self.changed()
        return True

    def take(self) -> Item:
        """The next item, which from now on is the running one."""
        item = self.items.popleft()
        self._size -= item.size
        self._running = item.id
        return item

    def holds(self, item_id: str | None) -> bool:
        """Whether an item of that id waits or runs."""
        return item_id is not None and (self._runs(item_id) or any(item.id == item_id for item in self.items))

    @property
    def next_turn(self) -> str | None:
        """The id of the message whose turn is next, if that is what is next."""
        return self.items[0].id if self.items and self.items[0].kind == "turn" else None

    def waits(self, item_id: str) -> bool:
        """Whether a message of that id waits for its turn."""
        return any(item.id == item_id and item.kind == "turn" for item in self.items)

    def call_off(self, item_id: str) -> None:
        """Let a message keep its place, and not be run when that comes."""
        cancelled = {"cancelled": True}
        self._put(each.model_copy(update=cancelled) if each.id == item_id else each for each in self.items)

    def offer(self) -> list[Item]:
        """Those that are to join the running item, as many as one step takes; it goes with them now."""
        size = 0
        for item in self.items:
            if item.joins and (not self._offered or size + item.size <= JOIN_BYTES):
                self._offered[item.id] = item
                size += item.size
        if self._offered:
            self._put(item for item in self.items if item.id not in self._offered)
        return list(self._offered.values())

    def settle(self, taken: Collection[str]) -> None:
        """The step is over; those that it has not taken are to be the next, each by itself."""
        back = [item.alone for item in self._offered.values() if item.id not in taken]
        self.joined += [item_id for item_id in self._offered if item_id in taken]
        self._offered = {}
        if back:
            self._put_back(back)

    def check_room(self) -> None:
        """Refuse one more.

        Raises:
            Busy: as many wait as may.
        """
        if len(self.items) >= ROOM:
            raise Busy(f"the session has {len(self.items)} messages waiting; send this one again later")

    def full_for(self, item: Item) -> str | None:
        """Why an item that came by a signal cannot wait too, or None if it can."""
        if self.holds(item.id):
            return None
        if len(self.items) >= SIGNAL_ROOM:
            return f"{len(self.items)} messages wait"
        return f"messages of {self._size} bytes wait" if self._size + item.size > SIGNAL_BYTES else None

    async def answered(self, item: Item) -> Reply | Ack:
        """Queue an item and wait for its answer; or until it, or the turn before it, waits for the world.

        Raises:
            ApplicationError: what :meth:`refuse` was given for it.
        """
        self.add(item)
        if self._parked is not None and item.kind == "turn":
            return self._parked_for(item.id, self._parked)
        future = self._waiting.setdefault(item.id, asyncio.Future())
        # Two callers may wait for one item; the handler of one being cancelled is not the other's loss.
        return await asyncio.shield(future)

    def park(self, reply: Reply) -> None:
        """The running item waits for a person or the world, and so do the messages behind it.

        Who waits for the answer of one is told so: it may be months, and a run cannot end before they go.
        """
        self._parked = reply
        ends = {item.id for item in self.items if item.kind == "end"}
        for item_id in [each for each in self._waiting if each not in ends]:
            self._waiting.pop(item_id).set_result(self._parked_for(item_id, reply))

    def unpark(self) -> None:
        """It goes on."""
        self._parked = None

    def wants_end(self) -> bool:
        """Whether the session is to be ended, once those before are done with."""
        return any(item.kind == "end" for item in self.items)

    def answer(self, item: Item, answer: Reply | Ack) -> None:
        """The item is done with, and this is its answer, and that of those that have joined it."""
        self._tell(self._over(item), answer)

    def refuse(self, item: Item, error: Exception) -> None:
        """The item is done with: it was refused."""
        for item_id in self._over(item):
            if future := self._waiting.pop(item_id, None):
                future.set_exception(error)

    def abandon(self) -> None:
        """Answer everybody who waits: nothing of theirs will run any more."""
        for item_id, future in self._waiting.items():
            if not future.done():
                future.set_result(Reply(invocation_id=item_id, status="cancelled"))
        self._waiting.clear()

    def _put(self, items: Iterable[Item]) -> None:
        self.items = deque(items)
        self._size = sum(item.size for item in self.items)

    def _put_back(self, items: Iterable[Item]) -> None:
        """They have gone with a step in vain, and are next, but for what interrupts."""
        ahead = [each for each in self.items if each.interrupts]
        self._put([*ahead, *items, *(each for each in self.items if not each.interrupts)])

    def _runs(self, item_id: str) -> bool:
        return item_id == self._running or item_id in self._offered or item_id in self.joined

    def _with_the_running(self) -> list[str]:
        """The ids of the running item, of those that have joined it, and of those that are to."""
        running = [] if self._running is None else [self._running]
        joining = [item.id for item in self.items if item.joins]
        return [*running, *self.joined, *self._offered, *joining]

    def _parked_for(self, item_id: str, reply: Reply) -> Reply:
        """That the running item waits, as it is told to who asked for another: that is a turn of its own."""
        if item_id in self._with_the_running():
            return reply
        return reply.model_copy(update={"invocation_id": item_id})

    def _over(self, item: Item) -> list[str]:
        """The running item is done with: the ids of those that it was done for.

        What did not get as far as to join it, or is not known to have, is a turn of its own: the log
        knows which.
        """
        done = [item.id, *self.joined]
        if self._offered or any(each.joins for each in self.items):
            self._put_back(self._offered.values())
            self._put(each.alone for each in self.items)
        self._running = self._parked = None
        self._offered, self.joined = {}, []
        return done

    def _tell(self, item_ids: Iterable[str], answer: Reply | Ack) -> None:
        for item_id in item_ids:
            if future := self._waiting.pop(item_id, None):
                future.set_result(answer)
