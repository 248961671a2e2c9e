"""Workers die, or Temporal forgets, while agents are asked: each answers once, and is counted once.

The scenes play beside each other: each waits ten seconds until a dead worker is missed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from temporalio.client import Client

from activities.conversion import data_converter
from embedded.temporal import TemporalServer
from gateway.runner import Answer
from perdure.agenttool import REQUEST
from perdure.testing import StandIn, call, say
from storage.sessions import SessionStore
from tests.integration.crashes import STARTED_IN, Scene, Stage
from tests.integration.harness import until

POINTS = [
    ("create.after_commit", 1),  # a child's session is there, and what it is asked is not
    ("activity.before_completion", 3),  # both are, and the workflow has not heard of the second
    ("begin_turn.after_commit", 2),  # a child has its message
    ("append.before_commit", 4),  # a child's tool has run
    ("append.after_commit", 7),  # a child's answer, or the response made of it
    ("activity.before_completion", 8),
    ("activity.before_completion", 9),
]

REWINDS = [
    ("rewind.before_commit", 3),  # the session and one child are rewound, and that is marked
    ("update.before_commit", 1),  # one is, and that is not marked
]
COUNTS = [
    ("append.after_commit", 6),  # what one child took is counted, and Temporal has not heard of it
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("children")


async def test_s58_a_worker_dies_while_agents_are_asked(temporal: TemporalServer, folder: Path) -> None:
    async with open_stage(temporal, folder) as stage:
        deaths = [_dies_at(stage, point, occurrence) for point, occurrence in POINTS]
        by_hand = [_killed_while_both_are_asked(stage), _temporal_forgets_while_both_are_asked(stage)]
        failures = await asyncio.gather(*by_hand, *deaths, return_exceptions=True)
    assert [each for each in failures if each is not None] == []


async def test_s34_s58_a_worker_dies_while_agents_are_rewound_or_counted(
    temporal: TemporalServer, folder: Path
) -> None:
    async with open_stage(temporal, folder) as stage:
        deaths = [_dies_in_a_rewind(stage, point, occurrence) for point, occurrence in REWINDS]
        deaths += [_dies_while_it_counts(stage, point, occurrence) for point, occurrence in COUNTS]
        failures = await asyncio.gather(*deaths, return_exceptions=True)
    assert [each for each in failures if each is not None] == []


@asynccontextmanager
async def open_stage(temporal: TemporalServer, folder: Path) -> AsyncIterator[Stage]:
    url, artifacts = f"sqlite:///{folder / 'perdure.db'}", f"file://{folder / 'artifacts'}"
    store = await SessionStore.open(url, artifacts, migrate=True)
    async with StandIn() as gemini:
        yield Stage(
            client=await Client.connect(temporal.address, data_converter=data_converter),
            address=temporal.address,
            store=store,
            database_url=url,
            artifacts_url=artifacts,
            gemini=gemini,
            folder=folder,
        )
    await store.close()


async def _dies_at(stage: Stage, point: str, occurrence: int) -> None:
    async with Scene(stage, app="delegating", point=point, occurrence=occurrence) as scene:
        turn = _delegate(scene)
        await scene.dies_and_starts_again()
        assert (await turn).text == "Both are done.", (point, occurrence)
        await _all_is_there_once(stage, scene)


async def _dies_in_a_rewind(stage: Stage, point: str, occurrence: int) -> None:
    async with Scene(stage, app="delegating", point=point, occurrence=occurrence) as scene:
        assert (await _delegate(scene)).text == "Both are done.", (point, occurrence)
        spent = (await stage.store.get(scene.key, max_events=0)).spent
        rewinding = asyncio.create_task(scene.runner.rewind(scene.key, "m1", request_id="r1"))
        await scene.dies_and_starts_again()
        await rewinding
        for child in await stage.store.children(scene.key):
            session = await stage.store.get(child.key)
            assert ([event.id for event in session.events], session.metadata.get("rewound")) == (
                ["r1:rewind"],
                "r1",
            ), (point, occurrence)
        assert (await stage.store.get(scene.key, max_events=0)).spent == spent


async def _dies_while_it_counts(stage: Stage, point: str, occurrence: int) -> None:
    async with Scene(stage, app="delegating", point=point, occurrence=occurrence) as scene:
        for name in "ab":
            scene.gemini.slow(0, contains=_request(scene, name))
            # Also where it is tried again before the workflow hears of the cancel.
            scene.gemini.hang(contains=_request(scene, name), times=3)
        turn = _delegate(scene)
        await scene.gemini.wait(lambda: len(scene.asked()) >= 5, "both to have used their tool", STARTED_IN)
        await scene.runner.cancel(scene.key)
        await scene.dies_and_starts_again()
        assert (await turn).status == "cancelled", (point, occurrence)

        async def over() -> bool:
            return not (await scene.runner.status(scene.key)).agents

        await until(over, within=STARTED_IN)
        log = await stage.store.log(scene.key)
        assert sorted(event.id for event in log if event.id.endswith(":spent")) == [
            "m1:t1.0:spent",
            "m1:t1.1:spent",
        ]
        children = await stage.store.children(scene.key)
        assert [child.spent.model_calls for child in children] == [1, 1]
        spent = (await stage.store.get(scene.key, max_events=0)).spent
        own = [(event.usage or {}).get("totalTokenCount", 0) for event in log]
        assert spent.tokens == sum(own) + sum(child.spent.tokens for child in children), (point, occurrence)


async def _killed_while_both_are_asked(stage: Stage) -> None:
    async with Scene(stage, app="delegating") as scene:
        for name in "ab":
            scene.gemini.hang(contains=_request(scene, name))
        turn = _delegate(scene)
        await scene.gemini.wait(lambda: len(scene.asked()) >= 3, "both to be asked", STARTED_IN)
        await scene.killed_and_started_again()
        assert (await turn).text == "Both are done."
        await _all_is_there_once(stage, scene)


async def _temporal_forgets_while_both_are_asked(stage: Stage) -> None:
    async with Scene(stage, app="delegating") as scene:
        for name in "ab":
            scene.gemini.hang(contains=_request(scene, name))
        turn = _delegate(scene)
        await scene.gemini.wait(lambda: len(scene.asked()) >= 3, "both to be asked", STARTED_IN)
        await scene.worker.kill()
        keys = [scene.key, *(child.key for child in await stage.store.children(scene.key))]
        for key in keys:
            await stage.client.get_workflow_handle(key.workflow_id).terminate()
        await asyncio.gather(turn, return_exceptions=True)
        await scene.start()
        assert (await scene.say("delegate", "m1")).text == "Both are done."
        await _all_is_there_once(stage, scene)


def _request(scene: Scene, name: str) -> str:
    return f"work, {name}, on '{scene.notes}'"


def _delegate(scene: Scene) -> asyncio.Task[Answer]:
    calls = [call("helper", request=_request(scene, name)) for name in "ab"]
    done = [say("Both are done.")] * 3  # a death may have it say so again
    scene.gemini.script(calls, *done, contains=f"delegate on '{scene.notes}'")
    return scene.say("delegate", "m1")


async def _all_is_there_once(stage: Stage, scene: Scene) -> None:
    log = await stage.store.log(scene.key)
    assert [log[0].id, log[1].id, log[-1].id] == ["m1:user", "m1:m1", "m1:m2"]
    assert sorted(event.id for event in log[2:-1]) == ["m1:t1.0", "m1:t1.1"]
    children = await stage.store.children(scene.key)
    assert len(children) == 2
    for child in children:
        ids = [event.id for event in await stage.store.log(child.key)]
        assert ids == [f"{REQUEST}:{part}" for part in ("user", "m1", "t1.0", "m2")]
        run = await stage.client.get_workflow_handle(child.key.workflow_id).describe()
        assert run.raw_description.workflow_execution_info.first_run_id == run.run_id, "one run of each"
    spent = (await stage.store.get(scene.key, max_events=0)).spent
    own = [(event.usage or {}).get("totalTokenCount", 0) for event in log]
    assert spent.tokens == sum(own) + sum(child.spent.tokens for child in children)
    assert spent.model_calls == 2 + 4
    assert len(set(scene.tries())) == 2, "a call of a tool in each"
