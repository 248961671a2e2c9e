"""What docs/signals.md tells: one session and all that can be sent to it, with what has to come of each.

The page shows every step in more than one language. Each is played on a session of its own;
what is checked is the session, not only the words that came back.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from examples import counter
from perdure.types import Event, SessionKey
from storage.turns import is_final
from tests.integration.harness import PATIENCE, World, until

__all__ = ["AGENT", "KEY", "STORY", "Block", "Step", "play"]

KEY = SessionKey(app="counter", user_id="ada", session_id="main")
"""The session of the page."""
AGENT = replace(counter.agent, compaction=None)
"""As in examples/, but that it sums up only when it is asked to: else the seqs would hang on that."""

Act = Callable[[World], Awaitable[None]]


async def nothing(world: World) -> None:
    """Some steps need none."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One block of the page, in each language."""

    name: str
    """``signal``, ``update`` or ``query``, and what is sent; or what else it does."""
    before: Act = nothing
    after: Act = nothing
    fails: bool = False
    """Whether the command ends with an error."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """A piece of the page that can be run."""

    name: str
    """Of its step."""
    code: str
    prints: str
    """What the page says that it prints; ``…`` is left out."""


async def log(world: World) -> Sequence[Event]:
    """All of the session's events."""
    return await world.store.log(KEY)


async def find(world: World, invocation_id: str, true: Callable[[Event], bool]) -> Event:
    """An event of an invocation, once it is there."""

    async def look() -> list[Event]:
        return [event for event in await log(world) if event.invocation_id == invocation_id and true(event)]

    return (await until(look))[0]


async def visits(world: World, count: int) -> None:
    """Wait until the session's state says so."""

    async def look() -> bool:
        return (await world.session(KEY)).state == {"counters": {"visits": count}}

    await until(look)


def answered(invocation_id: str, seq: int) -> Act:
    async def check(world: World) -> None:
        event = await find(world, invocation_id, is_final)
        assert event.seq == seq
        assert "The new value is" in event.text

    return check


def turns(count: int) -> Act:
    """So many are over, also for the workflow."""

    async def wait(world: World) -> None:
        async def look() -> bool:
            return (await world.runner.status(KEY)).turns == count

        await until(look)

    return wait


def visited(count: int) -> Act:
    return lambda world: visits(world, count)


def running(invocation_id: str) -> Act:
    """A turn that goes on until it is cancelled."""

    async def begin(world: World) -> None:
        world.gemini.hang()
        await world.runner.message(KEY, "Increment counter visits by 1", message_id=invocation_id)
        await world.gemini.wait_in_flight()

    return begin


def cancelled(invocation_id: str) -> Act:
    async def check(world: World) -> None:
        event = await find(world, invocation_id, lambda event: bool(event.meta.get("interrupted")))
        assert event.meta["reason"] == "cancelled"
        await world.gemini.wait_idle()

    return check


def summed_up(invocation_id: str) -> Act:
    async def check(world: World) -> None:
        await find(world, invocation_id, lambda event: event.compaction is not None)

    return check


async def more_to_sum_up(world: World) -> None:
    answer = await world.runner.ask(KEY, "Increment counter visits by 1", message_id="order-21")
    assert answer.status == "answered"


async def remembered(world: World) -> None:
    async def look() -> bool:
        found = await world.store.search_memory(KEY.app, KEY.user_id, "order 17 visits", limit=100)
        return "order-17" in {passage.invocation_id for passage in found}

    await until(look)


async def forgotten(world: World) -> None:
    assert await world.store.forget(KEY)


async def stored(world: World) -> None:
    """The half of it that the store does."""
    event_id = "report-1:artifact"
    assert await world.store.stage_artifact(KEY, "report.txt", b"102", "text/plain", event_id=event_id) == 1


async def listed(world: World) -> None:
    _, found = await world.store.load_artifact(KEY, "report.txt")
    assert found == b"102"


async def ended(world: World) -> None:
    async def look() -> bool:
        return (await world.session(KEY)).ended_at is not None

    await until(look)
    await world.handle(KEY).result()


async def opened_again(world: World) -> None:
    answer = await world.runner.ask(KEY, "Show all counters", message_id="order-22", reopen=True)
    assert answer.status == "answered"


async def refused(world: World) -> None:
    head = (await log(world))[-1].seq
    assert head == (await world.session(KEY)).head
    assert (await world.session(KEY)).ended_at is not None


async def visible(world: World) -> None:
    """Until Temporal's search has it."""

    async def look() -> bool:
        query = 'PerdureUser="ada" AND PerdureStatus="ended"'
        return [found.id async for found in world.client.list_workflows(query)] != []

    await until(look)


STORY = (
    Step(name="update ask", after=answered("order-17", 4)),
    Step(name="signal message", after=answered("order-18", 8)),
    Step(name="query status", before=turns(2)),
    Step(name="signal rewind", before=visited(101), after=visited(95)),
    Step(name="update rewind", after=visited(101)),
    Step(name="signal cancel", before=running("order-19"), after=cancelled("order-19")),
    Step(name="signal cancel", before=running("order-20"), after=cancelled("order-20")),
    Step(name="update compact", after=summed_up("sum-1")),
    Step(name="signal compact", before=more_to_sum_up, after=summed_up("sum-2")),
    Step(name="update remember", after=remembered),
    Step(name="signal remember", before=forgotten, after=remembered),
    Step(name="update save_artifact", before=stored, after=listed),
    Step(name="signal end", after=ended),
    Step(name="update end", before=opened_again, after=ended),
    Step(name="refused ask", after=refused, fails=True),
    Step(name="list", before=visible),
)


async def play(
    world: World,
    key: SessionKey,
    story: Sequence[Step],
    blocks: Sequence[Block],
    send: Callable[[int, Step], Awaitable[str]],
) -> None:
    """Play a story.

    Args:
        world: where it is played.
        key: the session.
        story: its steps.
        blocks: the page's, in one language.
        send: runs the block of this number, and gives what it printed.
    """
    assert [block.name for block in blocks] == [step.name for step in story]
    await world.runner.delete(key)  # by whomever it was played before
    for number, (step, block) in enumerate(zip(story, blocks, strict=True)):
        await step.before(world)
        said = await asyncio.wait_for(send(number, step), PATIENCE)
        pieces = re.escape(_squeezed(block.prints)).split("…")
        assert re.search(".*".join(pieces), _squeezed(said)), f"{step.name} printed:\n{said}"
        await step.after(world)


def _squeezed(text: str) -> str:
    return " ".join(text.split())
