"""Checks of a worker's health: asked together, each with its time, none asked twice at once."""

from __future__ import annotations

import asyncio

from gateway.health import Checks, NotReady


async def fine() -> None:
    """All is well."""


async def broken() -> None:
    raise ConnectionRefusedError("nobody there\nand more")


async def stopping() -> None:
    raise NotReady("it is stopping")


async def test_what_is_down_is_named_with_its_reason() -> None:
    checks = Checks({"a": fine, "b": broken, "c": stopping})
    assert await checks.down() == {"b": "ConnectionRefusedError: nobody there", "c": "it is stopping"}


async def test_what_hangs_is_down_and_not_asked_again_before_it_answers() -> None:
    asked = 0
    answer = asyncio.Event()

    async def hangs() -> None:
        nonlocal asked
        asked += 1
        await answer.wait()

    checks = Checks({"database": hangs}, patience=0.01)
    for _ in range(3):
        assert await checks.down() == {"database": "no answer in 0.01 seconds"}
    assert asked == 1
    answer.set()
    await asyncio.sleep(0)
    assert await Checks({"database": hangs}).down() == {}
    await checks.close()


async def test_closing_ends_what_hangs() -> None:
    ended = asyncio.Event()

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    checks = Checks({"database": hangs}, patience=0.01)
    await checks.down()
    await checks.close()
    assert ended.is_set()
