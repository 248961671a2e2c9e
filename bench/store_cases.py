"""What is measured: each case as ours does it, as the floor does it, and as google-adk is asked to."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

from bench.store_child import Child, Refused, TookTooLong
from bench.store_fill import LIST_APP, METADATA, event_of, key_of
from bench.store_floor import Floor
from perdure.types import Event, Json
from storage.sessions import SessionStore

__all__ = ["AMONG_REWINDS", "AT_ONCE", "FULL", "QUICK", "Case", "Sizes", "cases_of", "filling", "measure"]

AT_ONCE = 16
"""Sessions that append at the same time."""
AMONG_REWINDS = "an append among the rewinds"
PAGE = 50
KB = "x" * 1_000
SMALL: Mapping[str, Json] = {"note": KB}

Step = Callable[[], Awaitable[object]]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much of everything."""

    lengths: Sequence[int]
    """Of the sessions that are appended to; the last but one is also what is read, rewound and forked."""
    depths: Sequence[int]
    """Of the rewinds, in events."""
    state_keys: int
    """Of 1 KB each, in the session with much state."""
    sessions: int
    """That a list has to find its page among."""
    appends: int
    """Samples of each append and of each short read."""
    slow: int
    """Samples of what takes long."""

    @property
    def long(self) -> int:
        """Events of the session that is read, rewound and forked."""
        return self.lengths[-2]


FULL = Sizes(
    lengths=(100, 1_000, 10_000, 100_000),
    depths=(10, 1_000, 10_000),
    state_keys=1_000,
    sessions=10_000,
    appends=150,
    slow=7,
)
QUICK = Sizes(
    lengths=(10, 50, 100, 200), depths=(10, 50, 100), state_keys=20, sessions=200, appends=3, slow=2
)


@dataclass(kw_only=True)
class Case:
    """One row of the table, with its samples."""

    name: str
    ours: Step
    floor: Step | None = None
    adk: Mapping[str, Any] | None = None
    """What google-adk is asked; None where it has no such thing."""
    samples: int
    adk_samples: int
    prepare: Step | None = None
    """Not measured; before each of our own samples."""
    per: int = 1
    """Of how many operations one sample is; it is divided by it."""
    ms: dict[str, list[float]] = field(default_factory=lambda: {"ours": [], "floor": [], "adk": []})
    problem: str | None = None
    """Why google-adk has no more samples."""


def filling(sizes: Sizes) -> dict[str, tuple[int, Mapping[str, Json]]]:
    """The sessions that there have to be: events and state of each."""
    wanted: dict[str, tuple[int, Mapping[str, Json]]] = {
        f"append-{length}": (length, SMALL) for length in sizes.lengths
    }
    first = sizes.lengths[0]
    wanted["append-keys"] = (first, {f"key-{n}": KB for n in range(sizes.state_keys)})
    wanted["append-value"] = (first, {"document": KB * sizes.state_keys})
    wanted |= {f"many-{n}": (first, SMALL) for n in range(AT_ONCE)}
    wanted["short"] = (PAGE, SMALL)
    wanted["long"] = (sizes.long, SMALL)
    return wanted | {f"rewind-{depth}": (sizes.long, SMALL) for depth in sizes.depths}


def cases_of(sizes: Sizes, store: SessionStore, floor: Floor) -> list[list[Case]]:
    """All cases, in the groups whose samples alternate."""
    return [
        _appends(sizes, store, floor),
        [_many(sizes, store, floor)],
        _reads(sizes, store, floor),
        _lists(sizes, store, floor),
        _rewinds(sizes, store),
        [_fork(sizes, store)],
    ]


def _appends(sizes: Sizes, store: SessionStore, floor: Floor) -> list[Case]:
    much = f"{sizes.state_keys / 1_000:g} MB"
    named = {f"append at {length} events, 1 KB state": f"append-{length}" for length in sizes.lengths}
    named[f"append with {much} state, {sizes.state_keys} keys"] = "append-keys"
    named[f"append with {much} state, 1 key"] = "append-value"

    async def ours(session: str) -> None:
        await store.append(key_of(session), _fresh())

    def case(name: str, session: str, floor_append: Callable[[str], Awaitable[None]]) -> Case:
        return Case(
            name=name,
            ours=partial(ours, session),
            floor=partial(floor_append, session),
            adk={"do": "append", "session": session},
            samples=sizes.appends,
            adk_samples=sizes.appends // 3,
        )

    cases = [case(name, session, floor.append) for name, session in named.items()]
    bare = case("append, its floor handed over at once", f"append-{sizes.lengths[0]}", floor.append_at_once)
    return [*cases, replace(bare, adk=None)]


def _many(sizes: Sizes, store: SessionStore, floor: Floor) -> Case:
    times = max(1, sizes.appends // 10)
    sessions = [f"many-{n}" for n in range(AT_ONCE)]

    async def ours(session: str) -> None:
        for _ in range(times):
            await store.append(key_of(session), _fresh())

    async def by_hand(session: str) -> None:
        for _ in range(times):
            await floor.append(session)

    return Case(
        name=f"append, {AT_ONCE} sessions at once",
        ours=lambda: asyncio.gather(*map(ours, sessions)),
        floor=lambda: asyncio.gather(*map(by_hand, sessions)),
        adk={"do": "many", "sessions": sessions, "times": times},
        samples=sizes.slow,
        adk_samples=max(1, sizes.slow // 2),
        per=times * AT_ONCE,
    )


def _reads(sizes: Sizes, store: SessionStore, floor: Floor) -> list[Case]:
    def case(name: str, session: str, length: int, limit: int | None, samples: int) -> Case:
        first = 1 if limit is None else length - limit + 1
        return Case(
            name=name,
            ours=lambda: store.get(key_of(session), max_events=limit),
            floor=lambda: floor.read(session, first, length),
            adk={"do": "get", "session": session, "limit": limit},
            samples=samples,
            adk_samples=max(1, samples // 3),
        )

    return [
        case(f"last {PAGE} of {PAGE}", "short", PAGE, PAGE, sizes.appends),
        case(f"last {PAGE} of {sizes.long}", "long", sizes.long, PAGE, sizes.appends),
        case(f"whole at {sizes.long}", "long", sizes.long, None, sizes.slow),
    ]


def _lists(sizes: Sizes, store: SessionStore, floor: Floor) -> list[Case]:
    return [
        Case(
            name=f"list {PAGE} of {sizes.sessions}",
            ours=lambda: store.list_sessions(LIST_APP, limit=PAGE),
            floor=lambda: floor.page(PAGE),
            adk={"do": "page"},
            samples=sizes.appends,
            adk_samples=max(1, sizes.slow // 2),
        ),
        Case(
            name=f"find {PAGE} of {sizes.sessions}",
            ours=lambda: store.find_sessions(LIST_APP, METADATA, limit=PAGE),
            samples=max(1, sizes.appends // 5),
            adk_samples=0,
        ),
    ]


def _rewinds(sizes: Sizes, store: SessionStore) -> list[Case]:
    """Before each of our rewinds, but the first, the one before it is redone, which is not measured.

    An append is measured among them, to be compared with under the same noise.
    """
    numbers = count(1)
    undone: dict[int, str] = {}

    async def redo(depth: int) -> None:
        if depth in undone:
            request_id = f"redo-{next(numbers)}"
            await store.rewind(key_of(f"rewind-{depth}"), before=undone[depth], request_id=request_id)

    async def rewind(depth: int) -> None:
        before = event_of(sizes.long - depth + 1).invocation_id
        undone[depth] = f"rewind-{next(numbers)}"
        await store.rewind(key_of(f"rewind-{depth}"), before=before, request_id=undone[depth])

    append = Case(
        name=AMONG_REWINDS,
        ours=lambda: store.append(key_of("many-0"), _fresh()),
        samples=sizes.slow,
        adk_samples=0,
    )
    rewinds = [
        Case(
            name=f"rewind of {depth} events",
            prepare=partial(redo, depth),
            ours=partial(rewind, depth),
            adk={"do": "rewind", "session": f"rewind-{depth}", "before": sizes.long - depth + 1},
            samples=sizes.slow,
            adk_samples=1,
        )
        for depth in sizes.depths
    ]
    return [append, *rewinds]


def _fork(sizes: Sizes, store: SessionStore) -> Case:
    numbers = count(1)

    async def fork() -> None:
        await store.fork(key_of("long"), f"fork-{next(numbers)}")

    return Case(name=f"fork at {sizes.long}", ours=fork, samples=sizes.slow, adk_samples=0)


def _fresh() -> Event:
    name = uuid.uuid4().hex
    return replace(event_of(1), id=f"event-{name}", invocation_id=f"turn-{name}")


async def measure(cases: Sequence[Case], child: Child | None) -> None:
    """Take the samples of some cases in turn, each contender's beside the others'."""
    for place in range(max(case.samples for case in cases)):
        for case in cases:
            if place >= case.samples:
                continue
            if case.prepare is not None:
                await case.prepare()
            case.ms["ours"].append(await _timed(case.ours) / case.per)
            if case.floor is not None:
                case.ms["floor"].append(await _timed(case.floor) / case.per)
            if child is not None and case.adk is not None and place < case.adk_samples and not case.problem:
                await _ask(case, child)


async def _ask(case: Case, child: Child) -> None:
    try:
        case.ms["adk"] += await child.ask(**dict(case.adk or {}))
    except (TookTooLong, Refused) as error:
        case.problem = str(error)


async def _timed(work: Step) -> float:
    began = time.perf_counter()
    await work()
    return (time.perf_counter() - began) * 1000
