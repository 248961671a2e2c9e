"""A worker's log, down to what Temporal's core writes: no word of what anybody said, unless asked to.

The worker is a process, so what is read here is what an operator's log collector gets.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

from temporalio.api.common.v1 import Payload
from temporalio.api.workflowservice.v1 import SignalWorkflowExecutionRequest

from embedded.stack import environment_of
from embedded.temporal import TemporalServer
from gateway.runner import Runner
from perdure.testing import StandIn, call, say
from perdure.types import SessionKey
from tests.integration.crashes import ForkedWorker, Stage
from tests.integration.harness import until
from tests.integration.test_crashes import open_stage

AGENT = """
import asyncio, threading
from perdure import Agent, Compaction, Limits, ToolContext, tool

@tool
def explode(reason: str) -> str:
    '''Raise.'''
    try:
        raise KeyError(reason)
    except KeyError as error:
        raise RuntimeError(f"SECRET-outer {reason}") from error

@tool(retries=1)
def twice(reason: str) -> str:
    '''Raise, and be tried again.'''
    raise ValueError(reason)

@tool
async def forgets(reason: str) -> str:
    '''Leave a task behind that fails when nobody looks.'''
    async def fail():
        raise RuntimeError(reason)
    asyncio.create_task(fail())
    await asyncio.sleep(0)
    return "SECRET-result"

@tool
def unstorable(reason: str) -> dict[str, str]:
    '''Return what no database holds.'''
    return {reason: "SECRET\\x00"}

agent = Agent(
    name="leaky", tools=[explode, twice, forgets, unstorable], compaction=Compaction(interval=1),
    limits=Limits(model_attempts=2),
)
"""


async def dying(gemini: StandIn) -> bool:
    """Whether that message has reached the model; a summary of the ones before may be on its way, too."""
    return any(request.kind == "generate" and "MESSAGE-die" in request.text for request in gemini.requests)


def session_of(folder: Path) -> SessionKey:
    """A session for each test: a workflow stays open after its worker, on a queue that nobody serves."""
    return SessionKey(app="leaky", user_id="alice", session_id=folder.name)


async def play(stage: Stage, worker: ForkedWorker, log: Path, key: SessionKey, queue: str) -> None:
    """Let everything go wrong that could be logged."""
    gemini = stage.gemini
    runner = Runner(stage.client, stage.store, task_queue=queue)

    async def up(times: int) -> None:
        async def ready() -> bool:
            return read(log).count("worker ready") == times

        worker.start()
        await until(ready, within=60)

    await up(1)
    gemini.fail(400, "SECRET-summariser", kind="summarise", times=9)
    gemini.script(
        [
            call("explode", reason="SECRET-raised"),
            call("twice", reason="SECRET-again"),
            call("forgets", reason="SECRET-forgotten"),
            call("unstorable", reason="SECRET-key"),
            call("explode", nonsense="SECRET-argument"),
        ],
        say("SECRET-answer"),
    )
    assert (await runner.ask(key, "MESSAGE-one", message_id="m1")).status == "answered"
    gemini.fail(503, "SECRET-503", retry_after=0)
    gemini.garble("data: SECRET {\r\n\r\n")
    assert (await runner.ask(key, "MESSAGE-two", message_id="m2")).status == "failed"
    gemini.block(message="SECRET-blocked")
    assert (await runner.ask(key, "MESSAGE-three", message_id="m3")).status == "failed"
    handle = stage.client.get_workflow_handle(key.workflow_id)
    await handle.signal("message", {"text": "MESSAGE-bad\x00", "MESSAGE-key\x00": 1})
    await handle.signal("message", {"content": {"MESSAGE-key": ["MESSAGE-bad"]}, "text": 5})
    await handle.signal("no-such-signal", "MESSAGE-bad")
    garbage = SignalWorkflowExecutionRequest(namespace="default", signal_name="message", identity="test")
    garbage.workflow_execution.workflow_id = key.workflow_id
    garbage.input.payloads.append(Payload(metadata={"encoding": b"json/plain"}, data=b"MESSAGE{not json"))
    await stage.client.workflow_service.signal_workflow_execution(garbage)
    gemini.hang(contains="MESSAGE-die")
    asking = asyncio.create_task(runner.ask(key, "MESSAGE-die", message_id="m4"))
    await until(lambda: dying(gemini), within=60)
    await worker.kill()
    gemini.release()
    await up(2)
    assert (await asking).status == "answered"


async def everything_logged(
    temporal: TemporalServer, gemini: StandIn, folder: Path, settings: Mapping[str, str]
) -> str:
    stage = await open_stage(temporal.address, f"sqlite:///{folder / 'perdure.db'}", gemini, folder)
    (folder / "leaky.py").write_text(AGENT)
    log, queue = folder / "worker.log", folder.name
    environment = {
        **environment_of(stage.settings(queue)),
        "PERDURE_AGENTS": json.dumps([str(folder / "leaky.py")]),
        **settings,
    }
    worker = ForkedWorker(environment, log)
    try:
        await play(stage, worker, log, session_of(folder), queue)
    finally:
        await worker.kill()
        await stage.store.close()
    return read(log)


def read(log: Path) -> str:
    return log.read_text() if log.exists() else ""


async def test_a_log_tells_what_happened_and_not_what_was_said(
    temporal: TemporalServer, tmp_path: Path
) -> None:
    async with StandIn() as gemini:
        found = await everything_logged(temporal, gemini, tmp_path, {})
    session = session_of(tmp_path)
    for word in ("SECRET", "MESSAGE"):
        at = found.find(word)
        assert at < 0, found[max(0, at - 1000) : at + 200]
    for told in (
        f"tool.error {session} m1: explode try 1: RuntimeError",
        "ModelUnavailable: model gemini-3-flash-preview: HTTP 503 UNAVAILABLE",
        f"model.failed {session} m3: ModelRefused: model gemini-3-flash-preview blocked the prompt",
        "compaction.failed",
        "Failed deserializing signal input for message",
        "Task exception was never retrieved",
        "RuntimeError: (PERDURE_LOG_CONTENT=true shows the words)",
    ):
        assert told in found, f"{told!r} is not in:\n{found}"


async def test_a_log_tells_more_only_where_it_was_asked_for(temporal: TemporalServer, tmp_path: Path) -> None:
    async with StandIn() as gemini:
        found = await everything_logged(temporal, gemini, tmp_path, {"PERDURE_LOG_CONTENT": "true"})
    for word in ("SECRET-outer SECRET-raised", "SECRET-503", "SECRET-forgotten", "SECRET-blocked"):
        assert word in found, word


async def test_a_debug_log_has_no_payloads_of_the_libraries(temporal: TemporalServer, tmp_path: Path) -> None:
    async with StandIn() as gemini:
        found = await everything_logged(temporal, gemini, tmp_path, {"PERDURE_LOG_LEVEL": "DEBUG"})
    assert "SECRET" not in found
    assert "MESSAGE" not in found
