"""What is said and shown in a conversation, in the terminal or over a pipe.

A message goes out under an id of its own and is sent again under it until Temporal has
taken it. So a conversation outlives workers and Temporal alike: they come back, the
answer comes. Calls and answers are shown as the database has them.

In a terminal one can go on typing while a turn runs: a message is queued, or joins the turn, or
interrupts it. Over a pipe each line waits for what came of the one before.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import nullcontext
from typing import NamedTuple

from temporalio.client import RPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode

from cli import render
from cli.keyboard import Keyboard
from gateway.runner import Answer, Runner, WaitingCall
from perdure.errors import CallNotFound, InvocationNotFound, PerdureError, SessionNotFound
from perdure.types import During, Event, SessionKey
from storage.turns import JOINED

__all__ = ["Chat", "is_answer"]

_LOOK_EVERY = 0.3
_AGAIN_AFTER = 1.0
_AWAY = frozenset({RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED})

_MEANWHILE = frozenset({"cancel", "join", "interrupt", "state", "artifacts", "history", "waiting", "help"})
"""The commands that are taken while a turn runs."""

HELP = """\
/cancel               end the turn that runs; Ctrl-C also calls off what waits behind it
/join TEXT            let the turn that runs see this at its next step
/interrupt TEXT       end the turn that runs, and say this instead
/rewind [INVOCATION]  undo the last turn, or everything from an invocation on
/redo                 undo the last rewind
/waiting              show what the turn waits for
/approve [CALL]       say yes to a call that waits for it
/decline [CALL] [WHY] say no to it
/state                show the session's state
/artifacts            list its artifacts
/history              show its events
/quit                 leave; the session stays
What else is typed while a turn runs is said when it has ended."""


class _Message(NamedTuple):
    text: str
    id: str
    during: During = "queue"


class Chat:
    """One conversation; it prints what it is told.

    Args:
        runner: talks to the session.
        key: the session.
        reopen: whether the first message may open an ended session again.
        keyboard: where one types while a turn runs; None: nowhere.
    """

    def __init__(
        self, runner: Runner, key: SessionKey, *, reopen: bool = False, keyboard: Keyboard | None = None
    ) -> None:
        self._runner = runner
        self._store = runner.store
        self.key = key
        self._reopen = reopen
        self._keyboard = keyboard
        self._last_rewind: str | None = None
        self._asking: dict[_Message, asyncio.Task[Answer]] = {}
        """What was said and is not answered yet."""
        self._behind: list[_Message] = []
        """What was said and is not answered yet because its turn, or one before it, waits."""
        self._said_meanwhile: set[str] = set()
        self._meanwhile: set[asyncio.Task[None]] = set()
        self._seen = 0
        self.failed = False
        """Whether something that was said was refused or failed, or a command did."""

    async def greet(self) -> None:
        """Say where we are."""
        try:
            session = await self._store.get(self.key, max_events=0)
        except SessionNotFound:
            print(f"{self.key}: a new session. /help lists the commands.")
        else:
            print(f"{self.key}: {session.head} events so far. /help lists the commands.")

    async def say(self, text: str, during: During = "queue") -> None:
        """Send a message and show what comes of it as it comes.

        Returns when all that was said is answered, or waits for a person or the world; where a turn is
        followed already, at once.
        """
        message = _Message(text, uuid.uuid4().hex, during)
        if self._asking:
            self._said_meanwhile.add(message.id)
            self._ask_for(message)
            return
        if not self._behind:
            self._seen = await self._head()
        await self._follow(message)
        self._reopen = False

    def meanwhile(self, line: str) -> None:
        """Take what is typed while a turn runs."""
        task = asyncio.create_task(self._do_meanwhile(line))
        self._meanwhile.add(task)
        task.add_done_callback(self._meanwhile.discard)

    async def _follow(self, *messages: _Message) -> None:
        self._behind = []
        for message in messages:
            self._ask_for(message)
        listening = self._keyboard.listening(self.meanwhile) if self._keyboard else nullcontext()
        try:
            with listening:
                while self._asking:
                    await self._show_what_comes()
            await asyncio.gather(*self._meanwhile - {asyncio.current_task()})
        except asyncio.CancelledError:
            await self._call_off()
            return
        if self._behind:
            await self._waiting("")

    async def _show_what_comes(self) -> None:
        """Show it until something that was said is answered."""
        asking = self._asking
        await asyncio.wait(asking.values(), timeout=_LOOK_EVERY, return_when=asyncio.FIRST_COMPLETED)
        # Asked before looking: what it wrote last must be seen too.
        ended = [message for message, turn in asking.items() if turn.done()]
        self._seen = await self._show_after(self._seen)
        for message in ended:
            try:
                answer = await asking.pop(message)
            except (PerdureError, RPCError) as error:
                if not asking:
                    raise
                self.tell(error)
            else:
                self.failed |= answer.status == "failed"
                if answer.status == "waiting":
                    self._behind.append(message)

    async def _call_off(self) -> None:
        """End the turn of each message that is not answered, or keep it from beginning."""
        asking, self._asking = self._asking, {}
        for turn in asking.values():
            turn.cancel()
        await asyncio.gather(*asking.values(), return_exceptions=True)
        for message in reversed(asking):  # so that none begins because the one before it was ended
            await self._runner.cancel(self.key, message.id)
        print("(cancelled)")

    async def _do_meanwhile(self, line: str) -> None:
        name, _, _ = line[1:].partition(" ")
        try:
            if not line.startswith("/"):
                await self.say(line)
            elif name in _MEANWHILE:
                await self.command(line)
            else:
                print(f"/{name} is for when the turn has ended; /cancel ends it", flush=True)
        except (PerdureError, RPCError) as error:
            self.tell(error)

    def tell(self, error: Exception) -> None:
        """Say what went wrong."""
        self.failed = True
        print(f"{type(error).__name__}: {error}", flush=True)

    def _ask_for(self, message: _Message) -> None:
        self._asking[message] = asyncio.create_task(self._ask(message))

    async def command(self, line: str) -> None:
        """Run a ``/command``."""
        name, _, rest = line[1:].partition(" ")
        known = {
            "cancel": self._cancel,
            "join": self._join,
            "interrupt": self._interrupt,
            "rewind": self._rewind,
            "redo": self._redo,
            "waiting": self._waiting,
            "approve": self._approve,
            "decline": self._decline,
            "state": self._state,
            "artifacts": self._artifacts,
            "history": self._history,
        }
        if name in known:
            await known[name](rest.strip())
        else:
            if name != "help":
                print(f"no command /{name}; these are:")
            print(HELP)

    async def _ask(self, message: _Message) -> Answer:
        told = False
        while True:
            try:
                return await self._runner.ask(
                    self.key,
                    message.text,
                    message_id=message.id,
                    reopen=self._reopen,
                    during=message.during,
                )
            except (RPCError, RPCTimeoutOrCancelledError) as error:
                # The SDK says the same of a call that timed out and of one that we cancelled.
                ours = (task := asyncio.current_task()) is not None and task.cancelling() > 0
                if ours or (isinstance(error, RPCError) and error.status not in _AWAY):
                    raise
            if not told:
                print("Temporal does not answer; the message waits for it …", flush=True)
            told = True
            await asyncio.sleep(_AGAIN_AFTER)

    async def _show_after(self, seen: int) -> int:
        try:
            events = await self._store.log(self.key, after=seen)
        except SessionNotFound:
            return seen
        for event in events:
            self._show(event)
        return events[-1].seq if events else seen

    def _show(self, event: Event) -> None:
        if event.id == f"{event.invocation_id}:user":  # what was just typed
            if event.invocation_id in self._said_meanwhile:
                print(f"> {event.text}", flush=True)
            return
        if event.author == "user" and JOINED in event.meta:
            print(f"  > {event.text}", flush=True)
            return
        mark = "" if is_answer(event) else "  "
        for line in render.describe(event):
            print(f"{mark}{line}", flush=True)

    async def _head(self) -> int:
        try:
            return (await self._store.get(self.key, max_events=0)).head
        except SessionNotFound:
            return 0

    async def _cancel(self, _: str) -> None:
        await self._runner.cancel(self.key)

    async def _join(self, text: str) -> None:
        await self.say(text, "join")

    async def _interrupt(self, text: str) -> None:
        await self.say(text, "interrupt")

    async def _rewind(self, target: str) -> None:
        before = target or await self._last_turn()
        done = await self._runner.rewind(self.key, before)
        self._last_rewind = done.request_id
        print(f"  as it was before {before}; /redo takes that back. State:")
        await self._state("")

    async def _redo(self, _: str) -> None:
        if self._last_rewind is None:
            raise InvocationNotFound(
                "nothing was rewound in this chat; /rewind takes a rewind's id from /history too"
            )
        await self._rewind(self._last_rewind)

    async def _waiting(self, _: str) -> None:
        calls = await self._runner.waiting_below(self.key)
        for call in calls:
            if call.key != self.key:
                print(f"  {call.key}", flush=True)
            for line in render.waiting_lines(call):
                print(f"  {line}", flush=True)
        if any(call.kind == "approval" for call in calls):
            print("  say /approve or /decline, with the call where there are several")
        if not calls:
            print("  nothing waits")

    async def _approve(self, rest: str) -> None:
        key, call_id, _ = await self._meant(rest)
        await self._runner.approve(key, call_id, by=self.key.user_id)
        await self._go_on()

    async def _decline(self, rest: str) -> None:
        key, call_id, why = await self._meant(rest)
        await self._runner.decline(key, call_id, reason=why or None, by=self.key.user_id)
        await self._go_on()

    async def _meant(self, rest: str) -> tuple[SessionKey, str, str]:
        """The call that is named, or the only one that there is, its session, and what was said besides."""
        calls = [each for each in await self._runner.waiting_below(self.key) if each.kind == "approval"]
        name, _, more = rest.partition(" ")
        named = [each for each in calls if name in (each.call_id, f"{each.key.session_id}:{each.call_id}")]
        if len(named) == 1:
            return named[0].key, named[0].call_id, more.strip()
        if len(calls) == 1:
            return calls[0].key, calls[0].call_id, rest
        some = ", ".join(self._name_of(each) for each in calls) or "none"
        raise CallNotFound(f"which call? Those that wait for a person's yes: {some}")

    def _name_of(self, call: WaitingCall) -> str:
        """A call, with its session where that is of an agent that was asked."""
        own = call.key == self.key
        return call.call_id if own else f"{call.key.session_id}:{call.call_id}"

    async def _go_on(self) -> None:
        if self._behind:
            await self._follow(*self._behind)

    async def _last_turn(self) -> str:
        events = (await self._store.get(self.key)).events
        asked = [event.invocation_id for event in events if event.id == f"{event.invocation_id}:user"]
        if not asked:
            raise InvocationNotFound(f"{self.key} has no turn to undo")
        return asked[-1]

    async def _state(self, _: str) -> None:
        state = (await self._store.get(self.key, max_events=0)).state
        for line in render.state_lines(state) if state else ["no state"]:
            print(f"  {line}")

    async def _artifacts(self, _: str) -> None:
        artifacts = await self._store.list_artifacts(self.key)
        for artifact in artifacts:
            print(
                f"  {artifact.name}  version {artifact.version}  {artifact.mime_type}  {artifact.size} bytes"
            )
        if not artifacts:
            print("  no artifacts")

    async def _history(self, _: str) -> None:
        render.show(render.event_table(await self._store.log(self.key)))


def is_answer(event: Event) -> bool:
    """Whether the event is words for the user, and not a call, a result, an answer that is to be mended, or
    the runtime's own record."""
    if event.author in ("user", "perdure") or "repair" in event.meta:
        return False
    parts = (event.content or {}).get("parts") or ()
    return not any("functionCall" in part or "functionResponse" in part for part in parts)
