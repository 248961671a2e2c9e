"""The inbox's bounds, and what people see of what it refused."""

from __future__ import annotations

import asyncio
import json

import pytest

from activities.conversion import data_converter
from perdure.errors import Busy
from workflows.face import details
from workflows.inbox import JOIN_BYTES, ROOM, SIGNAL_BYTES, SIGNAL_ROOM, Inbox
from workflows.messages import Carry, Item, Message, Reply, Status


def item(item_id: str, text: str = "hello") -> Item:
    return Item(kind="turn", id=item_id, message=Message(text=text))


def test_an_inbox_is_full_for_updates_before_it_is_for_signals() -> None:
    inbox = Inbox()
    for n in range(ROOM):
        inbox.check_room()
        inbox.add(item(str(n)))
    with pytest.raises(Busy):
        inbox.check_room()
    for n in range(ROOM, SIGNAL_ROOM):
        assert inbox.full_for(item(str(n))) is None
        inbox.add(item(str(n)))
    assert inbox.full_for(item("more")) == f"{SIGNAL_ROOM} messages wait"
    assert inbox.full_for(item("0")) is None, "it is here already"
    inbox.take()
    assert inbox.full_for(item("more")) is None
    assert inbox.full_for(item("0")) is None, "it runs"


@pytest.mark.parametrize("text", ["x", "ü", '"', "\x01", "\n"])
async def test_what_may_wait_fits_into_what_is_carried(text: str) -> None:
    inbox = Inbox()
    n = 0
    while inbox.full_for(one := item(f"m{n}", text * 9_000)) is None:
        inbox.add(one)
        n += 1
    carry = Carry().model_copy(update={"inbox": list(inbox.items)})
    [payload] = await data_converter.encode([carry])
    assert SIGNAL_BYTES - 60_000 < len(payload.data) < SIGNAL_BYTES + 10_000
    carried = Inbox(Carry.model_validate(json.loads(payload.data)).inbox)
    assert carried.full_for(one) is not None, "its size comes along"
    carried.take()
    assert carried.full_for(one) is None


def test_the_ids_of_the_last_that_were_refused_are_kept() -> None:
    carry = Carry()
    for n in range(25):
        carry = carry.without(f"m{n}")
    assert carry.refused == 25
    assert list(carry.refused_ids) == [f"m{n}" for n in range(5, 25)]


def test_the_ui_names_what_was_refused() -> None:
    shown = details(Status(status="open", refused=2, refused_ids=["m1", "m2"]), [])
    assert "**Refused**, the inbox being full, 2 messages; last `m1`, `m2`" in shown
    assert "Refused" not in details(Status(status="open"), [])


async def test_who_waits_behind_a_turn_that_waits_is_told_so_but_not_an_end() -> None:
    inbox = Inbox()
    running = asyncio.create_task(inbox.answered(item("m1")))
    await asyncio.sleep(0)
    inbox.take()
    behind = asyncio.create_task(inbox.answered(item("m2")))
    end = asyncio.create_task(inbox.answered(Item(kind="end", id="e1")))
    await asyncio.sleep(0)
    inbox.park(Reply(invocation_id="m1", status="waiting"))
    told = [await running, await behind, await inbox.answered(item("m3"))]
    assert [(reply.invocation_id, reply.status) for reply in told if isinstance(reply, Reply)] == [
        (name, "waiting") for name in ("m1", "m2", "m3")
    ]
    assert [each.id for each in inbox.items] == ["m2", "e1", "m3"], "they are still to be taken"
    assert not end.done()
    inbox.abandon()
    await end


def test_the_details_tell_what_was_spent() -> None:
    shown = details(
        Status(
            status="open",
            tokens=1450,
            usd=0.000875,
            turn_tokens=120,
            turn_usd=0.0001,
            warning="the session has used 4 of its 5 model calls",
        ),
        [],
    )
    assert "- **Tokens** 1,450, $0.000875\n" in shown
    assert "- **This turn** 120 tokens, $0.0001\n" in shown
    assert shown.endswith("- **Nearly spent**: the session has used 4 of its 5 model calls")
    budget = {"tokens": 20_000, "money": 5.0, "steps": 5, "turn_money": 0.25}
    bounded = details(Status(status="open", budget=budget), [])
    assert bounded.endswith("- **Budget** 20,000 tokens, $5.00, 5 model calls, $0.25 a turn")
    plain = details(Status(status="open"), [])
    assert ("This turn" in plain, "Budget" in plain, "- **Tokens** 0\n" in plain) == (False, False, True)


def coming(item_id: str, during: str, text: str = "hello") -> Item:
    return Item(kind="turn", id=item_id, message=Message(text=text, during=during))


def running(*items: Item) -> Inbox:
    """An inbox whose first item runs."""
    inbox = Inbox()
    for one in items:
        inbox.add(one)
    inbox.take()
    return inbox


def waiting(inbox: Inbox) -> list[str]:
    return [one.id for one in inbox.items]


def test_what_interrupts_goes_before_what_does_not_in_order_of_arrival() -> None:
    inbox = Inbox()
    for one in (item("1"), coming("2", "interrupt"), coming("3", "join"), coming("4", "interrupt")):
        assert inbox.add(one)
    assert not inbox.add(coming("3", "interrupt")), "it is here already"
    assert waiting(inbox) == ["2", "4", "1", "3"]


def test_what_joins_leaves_the_queue_with_a_step() -> None:
    inbox = running(item("1"), item("2"), coming("3", "join"), coming("4", "join"))
    assert [one.id for one in inbox.offer()] == ["3", "4"]
    assert waiting(inbox) == ["2"]
    assert all(map(inbox.holds, "1234"))
    inbox.settle(["3"])
    assert inbox.joined == ["3"]
    assert waiting(inbox) == ["4", "2"], "what could not join is the next by itself"
    assert not inbox.offer()
    assert all(map(inbox.holds, "1234"))
    inbox.answer(item("1"), Reply(invocation_id="1", status="answered"))
    assert [one for one in "1234" if inbox.holds(one)] == ["2", "4"]


def test_what_did_not_join_in_time_is_a_turn_of_its_own() -> None:
    inbox = running(item("1"), item("2"), coming("3", "join"))
    inbox.offer()
    inbox.add(coming("4", "join"))
    inbox.refuse(item("1"), Busy("over"))
    assert waiting(inbox) == ["3", "2", "4"]
    inbox.take()
    assert not inbox.offer(), "it joins no later turn"


def test_what_did_not_join_goes_behind_what_has_interrupted() -> None:
    inbox = running(item("1"), item("2"), coming("3", "join"))
    inbox.offer()
    inbox.add(coming("4", "interrupt"))
    inbox.settle([])
    assert waiting(inbox) == ["4", "3", "2"]
    inbox = running(item("1"), item("2"), coming("3", "join"))
    inbox.offer()
    inbox.add(coming("4", "interrupt"))
    inbox.answer(item("1"), Reply(invocation_id="1", status="cancelled"))
    assert waiting(inbox) == ["4", "3", "2"]


def test_no_more_joins_in_a_step_than_a_payload_takes() -> None:
    inbox = running(item("1"), *(coming(f"{n}", "join", "x" * 200_000) for n in range(2, 7)))
    steps = []
    while offered := inbox.offer():
        steps.append([one.id for one in offered])
        inbox.settle(steps[-1])
    assert steps == [["2", "3"], ["4", "5"], ["6"]]
    assert inbox.joined == ["2", "3", "4", "5", "6"]
    large = running(item("1"), coming("2", "join", "x" * (JOIN_BYTES + 1)))
    assert [one.id for one in large.offer()] == ["2"], "one is never too much"


async def test_all_that_belong_to_a_turn_that_waits_are_told_so() -> None:
    inbox = running(coming("1", "queue"), coming("2", "join"))
    inbox.offer()
    inbox.settle(["2"])
    parked = Reply(invocation_id="1", status="waiting")
    asked = [asyncio.ensure_future(inbox.answered(coming(n, "join"))) for n in "23"]
    await asyncio.sleep(0)
    inbox.park(parked)
    assert [await one for one in asked] == [parked] * 2
    assert await inbox.answered(coming("4", "join")) == parked
    assert await inbox.answered(item("2")) == parked
    behind = await inbox.answered(item("5"))
    assert behind == Reply(invocation_id="5", status="waiting"), "it is a turn of its own"
    carried = Inbox(inbox.items, "1", inbox.joined)
    assert all(map(carried.holds, "12345"))
