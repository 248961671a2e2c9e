"""A conversation in the terminal, or over a pipe.

A message goes out under an id of its own and is sent again under it until Temporal has
taken it. So a conversation outlives workers and Temporal alike: they come back, the
answer comes. Calls and answers are shown as the database has them.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Iterator
from typing import NamedTuple

from temporalio.client import RPCTimeoutOrCancelledError
from temporalio.service import RPCError, RPCStatusCode

from cli import render
from cli.common import open_runner
from gateway.runner import Answer, Runner, WaitingCall
from perdure.errors import CallNotFound, InvocationNotFound, PerdureError, SessionNotFound
from perdure.settings import Settings
from perdure.types import Event, SessionKey

__all__ = ["Chat", "converse", "is_answer"]

_LOOK_EVERY = 0.3
_AGAIN_AFTER = 1.0
_AWAY = frozenset({RPCStatusCode.UNAVAILABLE, RPCStatusCode.DEADLINE_EXCEEDED, RPCStatusCode.CANCELLED})

HELP = """\
/rewind [INVOCATION]  undo the last turn, or everything from an invocation on
/redo                 undo the last rewind
/waiting              show what the turn waits for
/approve [CALL]       say yes to a call that waits for it
/decline [CALL] [WHY] say no to it
/state                show the session's state
/artifacts            list its artifacts
/history              show its events
/quit                 leave; the session stays"""


def converse(settings: Settings, key: SessionKey, *, reopen: bool) -> None:
    """Talk until /quit, Ctrl-D or the end of the pipe. Returns; the session stays."""
    with asyncio.Runner() as loop:
        opened = open_runner(settings)
        runner = loop.run(opened.__aenter__())
        try:
            _talk(loop, Chat(runner, key, reopen=reopen))
        finally:
            loop.run(opened.__aexit__(None, None, None))


class _Message(NamedTuple):
    text: str
    id: str


class Chat:
    """One conversation; it prints what it is told.

    Args:
        runner: talks to the session.
        key: the session.
        reopen: whether the first message may open an ended session again.
    """

    def __init__(self, runner: Runner, key: SessionKey, *, reopen: bool = False) -> None:
        self._runner = runner
        self._store = runner.store
        self._key = key
        self._reopen = reopen
        self._last_rewind: str | None = None
        self._behind: _Message | None = None
        """What was said last, where it is not answered yet: its turn, or one before it, waits."""
        self._seen = 0

    async def greet(self) -> None:
        """Say where we are."""
        try:
            session = await self._store.get(self._key, max_events=0)
        except SessionNotFound:
            print(f"{self._key}: a new session. /help lists the commands.")
        else:
            print(f"{self._key}: {session.head} events so far. /help lists the commands.")

    async def say(self, text: str) -> None:
        """Send a message and show what comes of it as it comes.

        Returns when the turn has ended, or waits for a person or the world.
        """
        if self._behind is None:
            self._seen = await self._head()
        await self._follow(_Message(text, uuid.uuid4().hex))
        self._reopen = False

    async def _follow(self, message: _Message) -> None:
        turn = asyncio.create_task(self._ask(message))
        try:
            ended = False
            while not ended:
                await asyncio.wait([turn], timeout=_LOOK_EVERY)
                ended = turn.done()  # asked before looking: what it wrote last must be seen too
                self._seen = await self._show_after(self._seen)
        except asyncio.CancelledError:
            turn.cancel()
            await asyncio.gather(turn, return_exceptions=True)
            await self._runner.cancel(self._key, message.id)
            print("(cancelled)")
            return
        waits = (await turn).status == "waiting"
        self._behind = message if waits else None
        if waits:
            await self._waiting("")

    async def command(self, line: str) -> None:
        """Run a ``/command``."""
        name, _, rest = line[1:].partition(" ")
        known = {
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
            print(HELP)

    async def _ask(self, message: _Message) -> Answer:
        told = False
        while True:
            try:
                return await self._runner.ask(
                    self._key, message.text, message_id=message.id, reopen=self._reopen
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
            events = await self._store.log(self._key, after=seen)
        except SessionNotFound:
            return seen
        for event in events:
            self._show(event)
        return events[-1].seq if events else seen

    def _show(self, event: Event) -> None:
        if event.id == f"{event.invocation_id}:user":  # what was just typed
            return
        mark = "" if is_answer(event) else "  "
        for line in render.describe(event):
            print(f"{mark}{line}", flush=True)

    async def _head(self) -> int:
        try:
            return (await self._store.get(self._key, max_events=0)).head
        except SessionNotFound:
            return 0

    async def _rewind(self, target: str) -> None:
        before = target or await self._last_turn()
        done = await self._runner.rewind(self._key, before)
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
        calls = await self._runner.waiting_below(self._key)
        for call in calls:
            if call.key != self._key:
                print(f"  {call.key}", flush=True)
            for line in render.waiting_lines(call):
                print(f"  {line}", flush=True)
        if any(call.kind == "approval" for call in calls):
            print("  say /approve or /decline, with the call where there are several")
        if not calls:
            print("  nothing waits")

    async def _approve(self, rest: str) -> None:
        key, call_id, _ = await self._meant(rest)
        await self._runner.approve(key, call_id, by=self._key.user_id)
        await self._go_on()

    async def _decline(self, rest: str) -> None:
        key, call_id, why = await self._meant(rest)
        await self._runner.decline(key, call_id, reason=why or None, by=self._key.user_id)
        await self._go_on()

    async def _meant(self, rest: str) -> tuple[SessionKey, str, str]:
        """The call that is named, or the only one that there is, its session, and what was said besides."""
        calls = [each for each in await self._runner.waiting_below(self._key) if each.kind == "approval"]
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
        own = call.key == self._key
        return call.call_id if own else f"{call.key.session_id}:{call.call_id}"

    async def _go_on(self) -> None:
        if self._behind is not None:
            await self._follow(self._behind)

    async def _last_turn(self) -> str:
        events = (await self._store.get(self._key)).events
        asked = [event.invocation_id for event in events if event.id == f"{event.invocation_id}:user"]
        if not asked:
            raise InvocationNotFound(f"{self._key} has no turn to undo")
        return asked[-1]

    async def _state(self, _: str) -> None:
        state = (await self._store.get(self._key, max_events=0)).state
        for line in render.state_lines(state) if state else ["no state"]:
            print(f"  {line}")

    async def _artifacts(self, _: str) -> None:
        artifacts = await self._store.list_artifacts(self._key)
        for artifact in artifacts:
            print(
                f"  {artifact.name}  version {artifact.version}  {artifact.mime_type}  {artifact.size} bytes"
            )
        if not artifacts:
            print("  no artifacts")

    async def _history(self, _: str) -> None:
        render.show(render.event_table(await self._store.log(self._key)))


def is_answer(event: Event) -> bool:
    """Whether the event is words for the user, and not a call, a result or the runtime's own record."""
    if event.author in ("user", "perdure"):
        return False
    parts = (event.content or {}).get("parts") or ()
    return not any("functionCall" in part or "functionResponse" in part for part in parts)


def _talk(loop: asyncio.Runner, chat: Chat) -> None:
    loop.run(chat.greet())
    for line in _lines():
        try:
            loop.run(chat.command(line) if line.startswith("/") else chat.say(line))
        except (PerdureError, RPCError) as error:
            print(f"{type(error).__name__}: {error}", flush=True)


def _lines() -> Iterator[str]:
    """What is typed, or comes through a pipe, until /quit, Ctrl-D or Ctrl-C."""
    typed = sys.stdin.isatty()
    if typed:
        import readline  # noqa: F401 - gives input() editing and history
    while True:
        try:
            line = input("> " if typed else "").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line in ("/quit", "/exit"):
            return
        if line and not typed:
            print(f"> {line}", flush=True)
        if line:
            yield line
