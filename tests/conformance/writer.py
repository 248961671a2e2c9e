"""A process that writes to a store beside others: ``python -m tests.conformance.writer URL ROLE NAME``.

It says ``ready`` when its store is open, waits for a line, does its part and prints what
became of it as JSON. One that counts says ``seen`` once it has read, and waits for another line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable

from perdure.errors import EventConflict, SessionExists, StaleEpoch, VersionMismatch
from perdure.types import Event, Json, SessionKey
from storage.sessions import SessionStore

KEY = SessionKey(app="counter", user_id="ada", session_id="s1")
ROUNDS = 20
"""Of each role but one."""


def told(event_id: str, **delta: Json) -> Event:
    """An event that changes state."""
    return Event(id=event_id, invocation_id=event_id, author="agent", state_delta=delta)


def session(number: int) -> SessionKey:
    """One of many sessions of an app."""
    return SessionKey(app="counter", user_id=f"user{number % 2}", session_id=f"many{number}")


async def creates(store: SessionStore, name: str) -> list[int]:
    """Create the sessions that the others create too; which it was first to."""
    won = []
    for number in range(ROUNDS):
        try:
            await store.create(session(number), state={"by": name, f"app:{name}{number}": number})
        except SessionExists:
            continue
        won.append(number)
    return won


async def shares(store: SessionStore, name: str) -> list[str]:
    """Set an app key of its own and one that all set, in sessions of its own, all at once."""
    keys = [SessionKey(app="counter", user_id=name, session_id=f"{name}{n}") for n in range(5)]

    async def one(key: SessionKey) -> str:
        await store.create(key)
        own = f"app:{key.session_id}"
        await store.append(key, told("i1", **{own: 1, "app:all": key.session_id, "user:last": 1}))
        return own

    return await asyncio.gather(*(one(key) for key in keys))


async def counts(store: SessionStore, name: str) -> int:
    """Add 1 to a counter as often, each time if nobody has changed it since; how often somebody had."""
    refused = 0
    met = False
    for number in range(ROUNDS):
        while True:
            seen = await store.get(KEY, max_events=0)
            if not met:
                met = True
                print("seen", flush=True)
                await told_to_go_on()
            delta = {"n": seen.state["n"] + 1}
            try:
                await store.update(
                    KEY, request_id=f"{name}{number}", state=delta, expected_version=seen.version
                )
            except VersionMismatch as error:
                refused += (error.actual or 0) > seen.version
            else:
                break
    return refused


async def repeats(store: SessionStore, name: str) -> int:
    """Append the events that the others append too, some with other content; how many were refused."""
    refused = 0
    for number in range(ROUNDS):
        try:
            await store.append(KEY, told(f"i{number}", n=number if number % 2 else name))
        except EventConflict:
            refused += 1
    return refused


async def goes_on(store: SessionStore, name: str) -> int:
    """Append to a turn until it is refused; how many events it thinks are in the log."""
    turn = await store.begin_turn(
        KEY, Event(id=f"{name}:user", invocation_id=name, author="user"), epoch=None
    )
    for number in range(100_000):
        event = Event(id=f"{name}:{number}", invocation_id=name, author="agent", state_delta={"n": number})
        try:
            await store.append(KEY, event, epoch=turn.epoch)
        except StaleEpoch:
            return number
        if number == 0:
            print("going", flush=True)
    raise AssertionError("nobody stopped it")


ROLES: dict[str, Callable[[SessionStore, str], Awaitable[Json]]] = {
    role.__name__: role for role in (creates, shares, counts, repeats, goes_on)
}


async def told_to_go_on() -> None:
    """Wait for a line."""
    await asyncio.to_thread(sys.stdin.readline)


async def main(url: str, role: str, name: str) -> None:
    """Play a role."""
    store = await SessionStore.open(url, "memory://writer")
    print("ready", flush=True)
    await told_to_go_on()
    print(json.dumps(await ROLES[role](store, name)), flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
