"""Every prompt is one that Gemini takes, over random sessions; and the cache never changes one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activities.gemini import Gemini
from activities.model_request import send
from perdure.testing import StandIn
from storage.sessions import SessionStore
from tests.conformance.prompts import AGENTS, MOVES, Stage, play

PROMPTS = 2_600
"""Looked at in each of the two runs, at least."""
SENT = 200
"""Of those, sent to the stand-in by the real client, in each run."""


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "uncached"])
def test_s32_s40_s41_every_prompt_pairs_and_holds_what_is_live(cached: bool) -> None:
    with asyncio.Runner() as runner:
        store = runner.run(SessionStore.open("sqlite://", "memory://prompts"))
        stage = Stage(store=store, cached=cached)
        try:
            while len(stage.requests) < PROMPTS:
                explore(runner, stage)
            assert len(stage.requests) >= PROMPTS
            runner.run(send_some(stage))
        finally:
            runner.run(store.close())


def explore(runner: asyncio.Runner, stage: Stage) -> None:
    """Play random sessions; a failing one is made as short as it can be."""

    @settings(
        max_examples=25,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(
        app=st.sampled_from([agent.name for agent in AGENTS]),
        seed=st.integers(0, 2**32),
        moves=st.lists(st.sampled_from(MOVES), min_size=12, max_size=40),
    )
    def some(app: str, seed: int, moves: Sequence[str]) -> None:
        runner.run(play(stage, app, seed, moves))

    some()


async def send_some(stage: Stage) -> None:
    """The real client builds these requests, and a server that refuses what Gemini would takes them."""
    every = len(stage.requests) // SENT
    chosen = stage.requests[::every][:SENT]
    assert len(chosen) == SENT
    async with StandIn(signatures=False) as gemini:
        client = Gemini(base_url=gemini.url)
        try:
            for request in chosen:
                await send(client, request)
        finally:
            await client.close()
        assert [request.status for request in gemini.requests] == [200] * SENT
        assert [request.contents for request in gemini.requests] == [
            list(request.contents) for request in chosen
        ]
