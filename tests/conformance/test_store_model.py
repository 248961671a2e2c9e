"""Random sessions against the naive model of :mod:`tests.conformance.model`."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from perdure.errors import InvocationRewound, StaleEpoch
from perdure.types import Event, Json, SessionKey
from storage.sessions import SessionStore
from tests.conformance.events import answer, event, summary, user
from tests.conformance.model import Model

STEPS = 120
START = {"given": 0, "k1": "start"}
KEYS = ["k1", "k2", "k3", "given", "app:a", "user:u", "temp:t"]
VALUES: list[Json] = [None, 0, 1, [1, {"a": None}], "x"]
FILES = ["f1", "f2", "user:f"]


class Player:
    """Makes random moves in a store and in the model, and compares."""

    def __init__(self, store: SessionStore, key: SessionKey, chance: random.Random) -> None:
        self.store = store
        self.key = key
        self.chance = chance
        self.model = Model(START)
        self.moves = 0
        self.copied = 0

    async def play(self) -> None:
        moves: list[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.turn, 8),
            (self.rewind, 5),
            (self.redo, 2),
            (self.update, 1),
            (self.compact, 2),
            (self.rewind_the_dead, 1),
            (self.interrupted, 1),
            (self.fork, 1),
        ]
        [move] = self.chance.choices([move for move, _ in moves], [weight for _, weight in moves])
        self.moves += 1
        await move()
        await self.compare()

    async def turn(self) -> None:
        invocation = f"i{self.moves}"
        await self.store.begin_turn(self.key, user(invocation), epoch=None)
        await self.mirror(f"{invocation}:user")
        for number in range(self.chance.randrange(4)):
            await self.tool(f"{invocation}:t1.{number}")
        await self.store.append(self.key, answer(invocation))
        await self.mirror(f"{invocation}:m1")

    async def tool(self, event_id: str) -> None:
        names = self.chance.sample(KEYS, self.chance.randrange(4))
        delta: dict[str, Json] = {
            name: self.chance.choice([None, 0, 1, [1, {"a": None}], "x"]) for name in names
        }
        files = {}
        for name in self.chance.sample(FILES, self.chance.choice([0, 0, 1, 2])):
            data = self.chance.randbytes(self.chance.choice([0, 3]))
            version = await self.store.stage_artifact(self.key, name, data, "x/y", event_id=event_id)
            files[name] = (version, data)
        if self.chance.random() < 0.1:
            return  # died before its commit: staged, never listed
        saved = {name: version for name, (version, _) in files.items()}
        await self.store.append(self.key, event(event_id, state_delta=delta, artifact_delta=saved))
        await self.mirror(event_id, files)

    async def rewind(self) -> None:
        if self.model.now.events:
            await self.rewind_before(self.chance.choice(self.model.now.events).invocation_id)

    async def redo(self) -> None:
        markers = [item.invocation_id for item in self.model.now.events if item.rewind]
        if markers:
            await self.rewind_before(self.chance.choice(markers))

    async def rewind_before(self, before: str, interrupt: str | None = None) -> None:
        request = f"r{self.moves}"
        done = await self.store.rewind(self.key, before=before, request_id=request, interrupt=interrupt)
        if interrupt is not None:
            await self.mirror(f"{interrupt}:end")
        self.model.rewind(before, done.event)

    async def interrupted(self) -> None:
        """A rewind while a turn runs."""
        running = f"i{self.moves}"
        await self.store.begin_turn(self.key, user(running), epoch=None)
        await self.mirror(f"{running}:user")
        await self.rewind_before(self.chance.choice(self.model.now.events).invocation_id, running)

    async def rewind_the_dead(self) -> None:
        dead = [each for each in self.model.invocations if not self.model.is_live(each)]
        if dead:
            with pytest.raises(InvocationRewound):
                await self.rewind_before(self.chance.choice(dead))

    async def fork(self) -> None:
        """Fork at some point, and go on in the fork; its source must be as it was."""
        live = [None, *dict.fromkeys(item.invocation_id for item in self.model.now.events)]
        before = self.chance.choice(live)
        fork = replace(self.key, session_id=f"fork{self.moves}")
        made = await self.store.fork(self.key, fork, before=before)
        await self.compare()
        if before is not None:
            past = await self.store.get(self.key, before=before)
            assert past.state == made.state
            then = self.model.before(before).events
            assert list(past.events) == [replace(item, live=True) for item in then]
        self.key, self.model = fork, self.model.fork(before)
        self.copied = made.head

    async def update(self) -> None:
        request = f"u{self.moves}"
        await self.store.update(
            self.key, request_id=request, state={self.chance.choice(KEYS[:4]): self.moves}
        )
        await self.mirror(f"{request}:update")

    async def compact(self) -> None:
        if not self.model.now.events:
            return
        covered = self.chance.choice(self.model.now.events)
        made = summary(f"c{self.moves}", 1, covered.seq, tail=self.chance.randint(1, covered.seq + 1))
        ends = [item.compaction["end"] for item in self.model.now.events if item.compaction]
        if ends and covered.seq <= ends[-1]:
            with pytest.raises(StaleEpoch):
                await self.store.append(self.key, made)
            return
        await self.store.append(self.key, made)
        await self.mirror(made.id)

    async def mirror(self, event_id: str, files: dict[str, tuple[int, bytes]] | None = None) -> None:
        """Tell the model of an event that the store has taken."""
        stored = await self.store.event(self.key, event_id)
        assert stored is not None
        self.model.append(stored, files or {})

    async def compare(self) -> None:
        model = self.model
        session = await self.store.get(self.key)
        assert list(session.events) == [replace(item, live=True) for item in model.now.events]
        assert session.state == {**model.now.state, **model.shared}
        files = {**model.now.files, **model.shared_files}
        assert {item.name: found(item) for item in await self.store.list_artifacts(self.key)} == {
            name: (version, hashlib.sha256(data).hexdigest()) for name, (version, data) in files.items()
        }
        context = await self.store.context(self.key)
        newest = context.summary.id if context.summary else None
        assert (newest, [item.id for item in context.events]) == model.context()
        log = await self.store.log(self.key)
        live = {item.id for item in model.now.events}
        assert [(item.id, item.live) for item in log] == [(item.id, item.id in live) for item in model.log]


def found(item: Any) -> tuple[int, str]:
    """The version and the hash of the bytes."""
    return item.version, item.blob.rsplit("/", 1)[1]


@pytest.mark.parametrize("seed", range(3))
async def test_s37_random_sessions_agree_with_the_model(
    store: SessionStore, key: SessionKey, seed: int
) -> None:
    await store.create(key, state=START)
    player = Player(store, key, random.Random(seed))
    for _ in range(STEPS):
        await player.play()
    session = await store.get(player.key)
    assert session.version == 1 + count_of_commits(player.model.log[player.copied :])


def count_of_commits(log: list[Event]) -> int:
    """Every event is one commit, but the end marker that comes with a rewind."""
    return sum(not item.meta.get("interrupted") for item in log)
