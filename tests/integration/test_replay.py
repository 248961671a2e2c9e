"""Recorded histories replay on today's workflow, and histories carry no content.

``python -m tests.histories.record NAME`` records a new kind of turn. Those that are there stay.
"""

from __future__ import annotations

import base64
import getpass
import re
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner, WorkflowRunner
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner
from temporalio.workflow import NondeterminismError

from activities.conversion import data_converter
from perdure.testing import call, say
from tests.histories.plays import PLAYS
from tests.histories.record import FOLDER, recorded
from tests.integration.harness import World, until
from workflows.retention import Retention
from workflows.schedule import ScheduledMessage
from workflows.session import AgentSession

FILES = sorted(FOLDER.glob("**/*.json*"))
RUNNERS = {"sandboxed": SandboxedWorkflowRunner, "unsandboxed": UnsandboxedWorkflowRunner}


def name_of(file: Path) -> str:
    return file.name.partition(".")[0]


def workflow_id(history: dict[str, Any]) -> str:
    return str(history["events"][0]["workflowExecutionStartedEventAttributes"]["workflowId"])


async def replay(history: dict[str, Any], runner: WorkflowRunner) -> None:
    replayer = Replayer(
        workflows=[AgentSession, Retention, ScheduledMessage],
        workflow_runner=runner,
        data_converter=data_converter,
        build_id="replay",
    )
    await replayer.replay_workflow(WorkflowHistory.from_json(workflow_id(history), history))


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("file", FILES, ids=name_of)
async def test_s62_recorded_histories_replay(file: Path, runner: str) -> None:
    await replay(recorded(file), RUNNERS[runner]())


def test_every_kind_of_turn_is_recorded() -> None:
    names = {name_of(file).partition("_")[0] for file in FILES}
    assert {play.partition("_")[0] for play in PLAYS} <= names
    assert sorted(name_of(file) for file in FILES if name_of(file).startswith("continued")) == [
        "continued_1",
        "continued_2",
    ]


async def test_a_replay_notices_another_order_of_commands() -> None:
    history = recorded(FOLDER / "tool.json")
    scheduled = [
        event["activityTaskScheduledEventAttributes"]
        for event in history["events"]
        if "activityTaskScheduledEventAttributes" in event
    ]
    scheduled[1]["activityType"]["name"] = scheduled[0]["activityType"]["name"]
    with pytest.raises(NondeterminismError):
        await replay(history, UnsandboxedWorkflowRunner())


def strings(node: Any) -> Iterator[str]:
    """All text of a recorded history, payloads decoded."""
    if isinstance(node, list):
        for item in node:
            yield from strings(item)
    elif isinstance(node, dict):
        for name, value in node.items():
            if name == "data" and isinstance(value, str):
                yield base64.b64decode(value).decode()
            elif name == "identity":
                assert value == "worker@host"
            else:
                yield from strings(value)
    elif isinstance(node, str):
        yield node


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_recorded_histories_tell_nothing_of_who_recorded_them(file: Path) -> None:
    text = "\n".join(strings(recorded(file)))
    assert socket.gethostname() not in text
    assert f"{getpass.getuser()}@" not in text
    assert not re.search(r"(?<![\w:.])/(?:home|root|tmp|usr|var|work|Users)/", text), "an absolute path"
    assert not re.search(r"\.py\b", text), "a stack trace"


def raw(events: Sequence[HistoryEvent]) -> str:
    """The bytes of a history, payloads as they are."""
    return b"\n".join(event.SerializeToString() for event in events).decode("utf-8", "replace")


async def test_a_history_carries_ids_and_the_users_message_and_no_content(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("tester")
    world.gemini.script(
        [
            say("SECRET-preamble"),
            call("add", name="SECRET-state-key"),
            call("save", name="SECRET-file.txt", text="SECRET-file-content"),
            call("explode", reason="SECRET-error"),
            call("flaky", label=f"SECRET-retried-{key.session_id}"),
            call("no_such_tool", argument="SECRET-argument"),
            call("add", nonsense="SECRET-invalid-argument"),
        ],
        say("SECRET-answer"),
    )
    answer = await world.runner.ask(key, "MESSAGE-of-the-user", message_id="m1")
    assert answer.text == "SECRET-answer"
    await world.runner.rewind(key, "m1", request_id="r1")
    await world.runner.rewind(key, "r1", request_id="r2")
    history = raw((await world.handle(key).fetch_history()).events)
    assert "SECRET" not in history
    assert "MESSAGE-of-the-user" in history
    assert "no_such_tool" in history, "names of tools are there, for the UI"


async def test_a_summary_is_not_in_the_history(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("counter")
    world.gemini.script(say("SECRET-summary"), kind="summarise")
    for n in range(3):
        world.gemini.script(say(f"SECRET-answer-{n}"))
        await world.runner.ask(key, "hello", message_id=f"m{n}")

    async def summed_up() -> bool:
        return (await world.store.context(key)).summary is not None

    await until(summed_up)
    assert "SECRET" not in raw((await world.handle(key).fetch_history()).events)


async def test_a_failed_turn_carries_the_reason_and_no_content(sqlite_world: World) -> None:
    world = sqlite_world
    key = world.key("tester")
    world.gemini.fail(503, "the server's own words", retry_after=0)
    world.gemini.fail(400, "the server's own words")
    answer = await world.runner.ask(key, "hello", message_id="m1")
    assert answer.status == "failed"
    history = raw((await world.handle(key).fetch_history()).events)
    assert "ModelRefused" in history
    assert ".py" not in history, "a stack trace: kilobytes in every history, and paths of the machine"
