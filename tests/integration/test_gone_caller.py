"""A caller that goes away before Temporal has taken its message."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.exceptions import TemporalError

from activities.codec import converter
from gateway.runner import Runner
from tests.integration.harness import World


async def test_a_caller_that_goes_away_leaves_no_failed_future_behind(
    sqlite_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK fails the future of the start; asyncio would write to the log that nobody looked at it."""
    world, called = sqlite_world, asyncio.Event()
    starts: list[Any] = []
    address = world.client.service_client.config.target_host
    held = await Client.connect(address, data_converter=converter(world.settings))

    async def never(*_: Any, **__: Any) -> None:
        called.set()
        await asyncio.Event().wait()

    held.workflow_service.execute_multi_operation = never  # type: ignore[method-assign, assignment]
    runner = Runner(held, world.store, task_queue=world.settings.task_queue)
    start = runner._start

    def noted(*given: Any) -> Any:
        starts.append(start(*given))
        return starts[-1]

    monkeypatch.setattr(runner, "_start", noted)
    asking = asyncio.create_task(runner.ask(world.key(), "hello"))
    await called.wait()
    asking.cancel()
    with pytest.raises((TemporalError, asyncio.CancelledError)):
        await asking
    [future] = [each._workflow_handle for each in starts]
    assert future.done()
    assert not future._log_traceback, "somebody looked"
