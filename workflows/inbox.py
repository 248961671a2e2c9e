"""The messages that wait for their turn, strictly in order of arrival, and those who wait for an answer."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from perdure.errors import Busy
from workflows.messages import Ack, Item, Reply

__all__ = ["ROOM", "SIGNAL_BYTES", "SIGNAL_ROOM", "Inbox"]

ROOM = 8
"""How many updates may wait; the server allows 10 open ones a workflow."""
SIGNAL_ROOM = 1_000
"""How many may wait in all, where the last one came by a signal, which nobody can refuse."""
SIGNAL_BYTES = 1_000_000
"""How much may wait then. It can be carried into the next run at any time: a payload may have 2 MiB."""


class Inbox:
    """A queue of items. One that comes again under the id of one that waits or runs is that one.

    Args:
        items: what the run before carried over.
        running: the id of the item that was running there, and still is.
    """

    def __init__(self, items: Iterable[Item] = (), running: str | None = None) -> None:
        self.items = deque(items)
        self._size = sum(item.size for item in self.items)
        self._running = running
        self._parked: Reply | None = None
        self._waiting: dict[str, asyncio.Future[Reply | Ack]] = {}

    def __len__(self) -> int:
        return len(self.items)

    @property
    def bytes(self) -> int:
        """The size of what would have to be carried into the next run."""
        return sum(item.message.size for item in self.items if item.message)

    def add(self, item: Item) -> None:
        """Queue an item, unless it is here already."""
        if not self.holds(item.id):
            self.items.append(item)
            self._size += item.size

    def take(self) -> Item:
        """The next item, which from now on is the running one."""
        item = self.items.popleft()
        self._size -= item.size
        self._running = item.id
        return item

    def holds(self, item_id: str | None) -> bool:
        """Whether an item of that id waits or runs."""
        return item_id is not None and (
            item_id == self._running or any(item.id == item_id for item in self.items)
        )

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
            return self._parked.model_copy(update={"invocation_id": item.id})
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
            self._waiting.pop(item_id).set_result(reply.model_copy(update={"invocation_id": item_id}))

    def unpark(self) -> None:
        """It goes on."""
        self._parked = None

    def wants_end(self) -> bool:
        """Whether the session is to be ended, once those before are done with."""
        return any(item.kind == "end" for item in self.items)

    def answer(self, item: Item, answer: Reply | Ack) -> None:
        """The item is done with, and this is its answer."""
        self._running = self._parked = None
        if future := self._waiting.pop(item.id, None):
            future.set_result(answer)

    def refuse(self, item: Item, error: Exception) -> None:
        """The item is done with: it was refused."""
        self._running = self._parked = None
        if future := self._waiting.pop(item.id, None):
            future.set_exception(error)

    def abandon(self) -> None:
        """Answer everybody who waits: nothing of theirs will run any more."""
        for item_id, future in self._waiting.items():
            if not future.done():
                future.set_result(Reply(invocation_id=item_id, status="cancelled"))
        self._waiting.clear()
