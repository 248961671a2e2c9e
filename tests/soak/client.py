"""A client that talks to a few sessions, does not know what is broken, and asks again until it is told.

What it asks again goes out under the same id. What it was told, it writes into a ledger.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from temporalio.client import RPCError, WorkflowUpdateFailedError, WorkflowUpdateRPCTimeoutOrCancelledError

from perdure.errors import (
    Busy,
    InvocationNotFound,
    InvocationRewound,
    ModelUnavailable,
    PerdureError,
    SessionEnded,
    SessionExists,
    SessionNotFound,
    StaleEpoch,
    StorageUnavailable,
    TemporalUnavailable,
)
from perdure.types import Event, SessionKey
from storage.turns import is_final
from tests.soak.agents import DEEDS
from tests.soak.ledger import Ledger, Sent, Steered, Tally
from tests.soak.stage import Stage

__all__ = ["PASSING", "Client", "Stuck"]

T = TypeVar("T")

PATIENCE = 45.0
"""Seconds that a client waits for an answer before it asks again."""
STUCK = 240.0
"""Seconds of asking again, after which nothing more is to be hoped for."""
SESSIONS = 3
"""That one client talks to in turn."""
PASSING = (
    Busy,
    StorageUnavailable,
    TemporalUnavailable,
    RPCError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    OSError,
    TimeoutError,
    RuntimeError,
)
"""What a fault looks like to a client. The SDK says RuntimeError where it cannot connect."""


class Stuck(Exception):
    """A request was not answered for so long that its session has to be called wedged."""


class Client:
    """Asks for things at random.

    Args:
        stage: whom to ask.
        number: who it is.
        tally: where it counts.
        rng: what is left to chance.
        pause: seconds between two requests, on average.
    """

    def __init__(self, stage: Stage, number: int, tally: Tally, rng: random.Random, *, pause: float) -> None:
        self._stage = stage
        self._number = number
        self._tally = tally
        self._rng = rng
        self._pause = pause
        self._runner = stage.runner
        self._store = stage.store
        self.ledgers: list[Ledger] = []
        """Every session it ever had."""
        self._mine: list[Ledger] = []
        self._new_session()

    async def run(self, stop: asyncio.Event) -> None:
        """Go on until told to stop; what was begun is brought to its end."""
        actions: dict[Callable[[Ledger], Awaitable[None]], int] = {
            self._text: 26,
            self._tools: 34,
            self._signal: 6,
            self._abandon: 4,
            self._resend: 8,
            self._rewind: 7,
            self._redo: 4,
            self._rewind_running: 4,
            self._cancel_running: 6,
            self._compact: 5,
            self._fork: 2,
            self._end: 2,
        }
        while not stop.is_set():
            ledger = self._rng.choice(self._mine)
            begin = [self._text, self._tools]
            act = self._rng.choices(list(actions), list(actions.values()))[0] if ledger.begun else None
            try:
                await (act or self._rng.choice(begin))(ledger)
            except Stuck as stuck:
                ledger.odd.append(str(stuck))
                return
            await asyncio.sleep(self._rng.expovariate(1 / self._pause))

    async def say_last(self, ledger: Ledger) -> None:
        """One more message, which every session has to answer."""
        sent = self._new_text(ledger)
        try:
            await self._ask(ledger, sent, reopen=ledger.ended)
        except Stuck as stuck:
            ledger.odd.append(str(stuck))
            return
        ledger.ended = False
        if not sent.answers or sent.answers[0].status != "answered":
            ledger.odd.append(f"the last message, {sent.id}, got no reply: {sent.answers or sent.refusals}")

    # What it does

    async def _text(self, ledger: Ledger) -> None:
        await self._turn(ledger, self._new_text(ledger))

    async def _tools(self, ledger: Ledger) -> None:
        await self._turn(ledger, self._new_order(ledger))

    async def _turn(self, ledger: Ledger, sent: Sent) -> None:
        await self._ask(ledger, sent)
        self._tally.done["tool turns" if sent.tool else "text turns"] += 1

    async def _signal(self, ledger: Ledger) -> None:
        """A message nobody waits for; asked for again, it has the reply."""
        sent = self._new_order(ledger)
        send = self._runner.message
        await self._persist(lambda: send(ledger.key, sent.text, message_id=sent.id), f"message {sent.id}")
        await self._ask(ledger, sent)
        self._tally.done["signals"] += 1

    async def _abandon(self, ledger: Ledger) -> None:
        """Ask once, and do not wait to be told."""
        sent = self._new_order(ledger)
        sent.alone = False
        try:
            async with asyncio.timeout(self._rng.uniform(0.01, 0.5)):
                sent.answers.append(await self._runner.ask(ledger.key, sent.text, message_id=sent.id))
        except PASSING as error:
            self._tally.errors[type(error).__name__] += 1
        self._tally.done["abandoned"] += 1

    async def _resend(self, ledger: Ledger) -> None:
        """A message of any time is sent again: the first reply, or a word that it was rewound."""
        known = [sent for sent in ledger.sent.values() if any(a.status == "answered" for a in sent.answers)]
        if not known:
            return
        sent = self._rng.choice(known)
        seq = next(answer.seq for answer in sent.answers if answer.status == "answered")
        [event] = await self._persist(
            lambda: self._store.log(ledger.key, after=seq - 1, limit=1), f"the log of {ledger.key}"
        )
        answers, refusals = len(sent.answers), len(sent.refusals)
        await self._ask(ledger, sent, rewound=not event.live)
        if event.live and len(sent.answers) == answers:
            ledger.odd.append(f"{sent.id}, which is live, sent again got {sent.refusals[refusals:]}")
        if not event.live and len(sent.refusals) == refusals:
            ledger.odd.append(f"{sent.id}, which was rewound, sent again got {sent.answers[-1]}")
        self._tally.done["resends"] += 1

    async def _rewind(self, ledger: Ledger) -> None:
        if target := await self._target(ledger):
            await self._steer_back(ledger, target)

    async def _redo(self, ledger: Ledger) -> None:
        """Back to before a rewind; one that was not the last, too."""
        live = await self._live(ledger)
        if markers := [event.invocation_id for event in live if event.rewind]:
            await self._steer_back(ledger, self._rng.choice(markers[-3:]), what="redos")

    async def _rewind_running(self, ledger: Ledger) -> None:
        """Back to before the turn that runs, or further."""
        sent = self._new_order(ledger)
        sent.alone, sent.rewound = False, True
        target = sent.id if self._rng.random() < 0.5 else await self._target(ledger) or sent.id
        turn = asyncio.create_task(self._ask(ledger, sent, rewound=True))
        try:
            await asyncio.sleep(self._rng.uniform(0, 1.5))
            await self._steer_back(ledger, target, what="rewinds of running turns", group=sent.group)
        finally:
            await turn

    async def _cancel_running(self, ledger: Ledger) -> None:
        sent = self._new_order(ledger)
        sent.alone = False
        turn = asyncio.create_task(self._ask(ledger, sent))
        try:
            await asyncio.sleep(self._rng.uniform(0, 1.5))
            try:
                await self._persist(lambda: self._runner.cancel(ledger.key, sent.id), f"cancel {sent.id}")
            except SessionNotFound:
                self._tally.done["cancels of nothing"] += 1
            self._tally.done["cancels"] += 1
        finally:
            await turn

    async def _compact(self, ledger: Ledger) -> None:
        asked = Steered(kind="compact", id=ledger.new_id("c"), group=ledger.next_group())
        ledger.steered[asked.id] = asked
        try:
            asked.seq = await self._persist(
                lambda: self._runner.compact(ledger.key, request_id=asked.id), f"compact {asked.id}"
            )
            asked.acknowledged = True
        except (ModelUnavailable, StaleEpoch) as refused:
            asked.refused = type(refused).__name__
        except PerdureError as refused:
            ledger.odd.append(f"compact {asked.id}: {refused!r}")
        self._tally.done["compactions asked for"] += 1

    async def _fork(self, ledger: Ledger) -> None:
        before = await self._target(ledger) if self._rng.random() < 0.5 else None
        new = replace(ledger.key, session_id=ledger.new_id("f").replace("-", ""))
        made = Ledger(key=new, source=ledger.key, before=before)
        tried = 0

        async def fork() -> None:
            nonlocal tried
            tried += 1
            try:
                await self._store.fork(ledger.key, new, before=before)
            except SessionExists:
                if tried == 1:
                    raise
                # A try before this one made it, and its answer was lost.

        try:
            await self._persist(fork, f"fork {new}")
        except PerdureError as refused:
            ledger.odd.append(f"fork into {new} before {before}: {refused!r}")
            return
        self.ledgers.append(made)
        if len(self._mine) < SESSIONS:
            self._mine.append(made)
        self._tally.done["forks"] += 1

    async def _end(self, ledger: Ledger) -> None:
        """End it; a message is refused then, unless it opens the session again."""
        request_id = ledger.new_id("e")
        await self._persist(lambda: self._runner.end(ledger.key, request_id=request_id), f"end {ledger.key}")
        ledger.ended = True
        self._tally.done["ends"] += 1
        refused = self._new_text(ledger)
        await self._ask(ledger, refused, ended=True)
        if refused.answers:
            ledger.odd.append(f"{refused.id} was answered after the end: {refused.answers}")
        if self._rng.random() < 0.6:
            await self._ask(ledger, self._new_order(ledger), reopen=True)
            ledger.ended = False
            self._tally.done["reopenings"] += 1
        else:
            self._mine.remove(ledger)
            self._new_session()

    # How it does it

    def _new_session(self) -> None:
        name = f"s{self._number}x{len(self.ledgers)}"
        app = "summed" if self._rng.random() < 0.5 else "soak"
        key = SessionKey(app=app, user_id=f"user {self._number % 10}", session_id=name)
        self.ledgers.append(Ledger(key=key))
        self._mine.append(self.ledgers[-1])

    def _new_text(self, ledger: Ledger) -> Sent:
        name = ledger.new_id("m")
        sent = Sent(id=name, text=f"hello from {name}.", group=ledger.next_group())
        ledger.sent[name] = sent
        return sent

    def _new_order(self, ledger: Ledger) -> Sent:
        name = ledger.new_id("m")
        tool = self._rng.choice(["work", "work", "juggle", "juggle", "ponder"])
        orders = []
        for index in range(self._rng.choice([1, 1, 2, 3, 4])):
            deeds = self._rng.sample(DEEDS, self._rng.randint(1, 3))
            orders.append(" ".join([f"{name}.{index}", *deeds]))
        text = f"{tool} on " + ", ".join(f"'{order}'" for order in orders)
        sent = Sent(id=name, text=text, tool=tool, orders=orders, group=ledger.next_group())
        ledger.sent[name] = sent
        return sent

    async def _ask(
        self, ledger: Ledger, sent: Sent, *, reopen: bool = False, rewound: bool = False, ended: bool = False
    ) -> None:
        """Ask until there is an answer; ``rewound`` and ``ended`` are refusals that may be one."""
        ask = self._runner.ask
        try:
            answer = await self._persist(
                lambda: ask(ledger.key, sent.text, message_id=sent.id, reopen=reopen), f"ask {sent.id}"
            )
        except PerdureError as refused:
            sent.refusals.append(type(refused).__name__)
            expected = (rewound and isinstance(refused, InvocationRewound)) or (
                ended and isinstance(refused, SessionEnded)
            )
            if not expected:
                ledger.odd.append(f"message {sent.id} was refused: {refused!r}")
        else:
            sent.answers.append(answer)

    async def _steer_back(
        self, ledger: Ledger, target: str, *, what: str = "rewinds", group: int | None = None
    ) -> None:
        asked = Steered(
            kind="rewind", id=ledger.new_id("r"), before=target, group=group or ledger.next_group()
        )
        ledger.steered[asked.id] = asked
        try:
            ack = await self._persist(
                lambda: self._runner.rewind(ledger.key, target, request_id=asked.id), f"rewind {asked.id}"
            )
        except (InvocationNotFound, InvocationRewound, SessionNotFound) as refused:
            asked.refused = type(refused).__name__
            if group is None:
                ledger.odd.append(f"rewind {asked.id} before {target}, which is live: {refused!r}")
        except PerdureError as refused:
            ledger.odd.append(f"rewind {asked.id} before {target}: {refused!r}")
        else:
            asked.seq, asked.acknowledged = ack.seq, True
        self._tally.done[what] += 1

    async def _target(self, ledger: Ledger) -> str | None:
        """A live invocation that has ended; mostly one of the last."""
        live = await self._live(ledger)
        ended = [event.invocation_id for event in live if event.compaction is None and is_final(event)]
        if not ended:
            return None
        return self._rng.choice(ended[-4:] if self._rng.random() < 0.7 else ended)

    async def _live(self, ledger: Ledger) -> list[Event]:
        session = await self._persist(
            lambda: self._store.get(ledger.key, max_events=60), f"the events of {ledger.key}"
        )
        return list(session.events)

    async def _persist(self, call: Callable[[], Awaitable[T]], what: str) -> T:
        """Make a call until it is answered.

        Raises:
            PerdureError: that is the answer.
            Stuck: there is none, and will be none.
        """
        clock = asyncio.get_running_loop().time
        began, wait = clock(), 0.1
        while True:
            try:
                async with asyncio.timeout(PATIENCE):
                    return await call()
            except PASSING as error:
                last: Exception = error
            except WorkflowUpdateFailedError as error:
                # The workflow ended before it answered: whoever asks again starts another.
                last = error
            self._tally.errors[type(last).__name__] += 1
            if clock() - began > STUCK:
                raise Stuck(f"{what} was not answered in {STUCK:g} s; last: {last!r}") from last
            await asyncio.sleep(wait)
            wait = min(2 * wait, 2)
