"""What Temporal stores and what logs tell: ids, and without keys the user's own message; no content.

Whatever could be quoted says SECRET: answers, arguments, results, state, files, summaries, the
words of errors. What users say is MESSAGE, and passes Temporal on its way to the session.
"""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.query.v1 import WorkflowQuery
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    ListWorkflowExecutionsRequest,
    QueryWorkflowRequest,
)
from temporalio.client import Client, WorkflowHistory
from temporalio.worker import Replayer, UnsandboxedWorkflowRunner

from activities.codec import converter
from activities.conversion import data_converter
from embedded.process import Process
from embedded.stack import environment_of
from embedded.temporal import TemporalServer, find_temporal
from perdure import Agent, Compaction
from perdure.errors import UnknownKey
from perdure.settings import Settings
from perdure.testing import call, say
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.histories.plays import PLAYS, Play
from tests.histories.record import FOLDER, recorded
from tests.integration.agents import AGENTS, gate
from tests.integration.conftest import open_sqlite
from tests.integration.crashes import ROOT
from tests.integration.harness import PATIENCE, World, open_world, until
from workflows.retention import Retention
from workflows.schedule import ScheduledMessage
from workflows.session import AgentSession

ONE, TWO = (f"{name}:{base64.b64encode(name.encode().ljust(32)).decode()}" for name in ("one", "two"))
SUMMED = Agent(name="summed", compaction=Compaction(interval=1))
FAMILY = [*AGENTS, SUMMED]


def with_keys(*keys: str) -> Settings:
    """Settings with these keys, the newest first; with none, nothing is encrypted."""
    return Settings(_env_file=None, codec_keys=SecretStr(",".join(keys)) if keys else None)


@asynccontextmanager
async def world_with(temporal: TemporalServer, store: SessionStore, *keys: str) -> AsyncIterator[World]:
    async with open_world(temporal.address, store, FAMILY, settings=with_keys(*keys)) as world:
        yield world


@pytest_asyncio.fixture
async def plain(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    async with world_with(temporal, sqlite_store) as world:
        yield world


@pytest_asyncio.fixture
async def sealed(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    async with world_with(temporal, sqlite_store, ONE) as world:
        yield world


async def everything(world: World, key: SessionKey) -> bytes:
    """All that Temporal has or tells of a session, as it comes over the wire."""
    client = await Client.connect(world.client.service_client.config.target_host)
    service, name = client.workflow_service, "default"
    listed = await service.list_workflow_executions(
        ListWorkflowExecutionsRequest(namespace=name, query=f"WorkflowId = '{key.workflow_id}'")
    )
    run_ids = [info.execution.run_id for info in listed.executions]
    current = (await client.get_workflow_handle(key.workflow_id).describe()).run_id
    found = [listed.SerializeToString()]
    for run_id in {*run_ids, current}:
        handle = client.get_workflow_handle(key.workflow_id, run_id=run_id)
        found += [event.SerializeToString() for event in (await handle.fetch_history()).events]
        execution = WorkflowExecution(workflow_id=key.workflow_id, run_id=run_id)
        described = await service.describe_workflow_execution(
            DescribeWorkflowExecutionRequest(namespace=name, execution=execution)
        )
        found.append(described.SerializeToString())
    for query in ("status", "__temporal_workflow_metadata"):
        execution = WorkflowExecution(workflow_id=key.workflow_id)
        told = await service.query_workflow(
            QueryWorkflowRequest(namespace=name, execution=execution, query=WorkflowQuery(query_type=query))
        )
        found.append(told.SerializeToString())
    return b"\n".join(found)


async def all_that_happens(world: World, key: SessionKey) -> bytes:
    """Play whatever could leave a word behind; what Temporal had in the middle of it, and at the end."""
    gemini = world.gemini
    label = f"SECRET-held-{key.session_id}"
    gate.reset()
    gemini.script(
        [
            say("SECRET-preamble"),
            call("add", name="SECRET-state-key"),
            call("save", name="SECRET-file.txt", text="SECRET-file-content"),
            call("explode", reason="SECRET-error"),
            call("flaky", label=f"SECRET-retried-{key.session_id}"),
            call("add", nonsense="SECRET-invalid-argument"),
            call("not_json"),
        ],
        call("wait_at_gate", label=label),
        say("SECRET-answer"),
    )
    turn = asyncio.create_task(world.runner.ask(key, "MESSAGE-one", message_id="m1"))
    await gate.held()
    middle = await everything(world, key)
    gate.open.set()
    assert (await turn).text == "SECRET-answer"
    gemini.fail(503, "SECRET-503", retry_after=0)
    gemini.garble("data: SECRET-garbled {\r\n\r\n")
    gemini.fail(400, "SECRET-400")
    failed = await world.runner.ask(key, "MESSAGE-two", message_id="m2")
    assert failed.failure is not None
    assert "SECRET-400" in failed.failure.message, "the caller is told, by the log"
    gemini.block(message="SECRET-blocked")
    gemini.finish("SAFETY", "SECRET-half", message="SECRET-finish")
    gemini.script(say("SECRET\x00unstorable"))
    for message_id in ("m3", "m4", "m5"):
        answer = await world.runner.ask(key, f"MESSAGE-{message_id}", message_id=message_id)
        assert answer.status == "failed", message_id
    await world.handle(key).signal("message", {"text": 5, "content": "MESSAGE-bad"})
    await world.handle(key).signal("cancel", ["MESSAGE-bad"])
    await world.runner.rewind(key, "m2", request_id="r1")
    await world.runner.rewind(key, "r1", request_id="r2")
    gemini.fail(400, "SECRET-summariser", kind="summarise")
    with pytest.raises(Exception, match="HTTP 400"):
        await world.runner.compact(key, request_id="c1")
    gemini.script(say("SECRET-summary"), kind="summarise")
    assert await world.runner.compact(key, request_id="c2") is not None
    return middle + b"\n" + await everything(world, key)


async def test_without_keys_temporal_has_ids_and_the_users_message_and_no_content(plain: World) -> None:
    key = plain.key("tester")
    found = await all_that_happens(plain, key)
    at = found.find(b"SECRET")
    assert at < 0, found[max(0, at - 200) : at + 100]
    assert b"MESSAGE-one" in found
    assert b"ModelRefused" in found


async def test_with_keys_temporal_has_not_even_the_message(sealed: World) -> None:
    key = sealed.key("tester")
    found = await all_that_happens(sealed, key)
    for word in (b"SECRET", b"MESSAGE", b"HTTP 400", b"step 1", b"Last error"):
        at = found.find(word)
        assert at < 0, found[max(0, at - 200) : at + 100]
    for clear in (key.app, key.user_id, key.session_id, "call_model", "ModelRefused"):
        assert clear.encode() in found, "what Temporal filters and shows by stays clear"


@pytest.mark.parametrize("keys", [(), (ONE,)], ids=["plain", "sealed"])
async def test_an_inline_answer_is_in_the_history_only_where_it_was_asked_for(
    temporal: TemporalServer, sqlite_store: SessionStore, keys: tuple[str, ...]
) -> None:
    async with world_with(temporal, sqlite_store, *keys) as world:
        key = world.key("tester")
        world.gemini.script(say("SECRET-usual"), say("SECRET-inline"))
        await world.runner.ask(key, "MESSAGE", message_id="m1")
        wanted = {"text": "MESSAGE", "message_id": "m2", "inline": True}
        reply: dict[str, Any] = await world.handle(key).execute_update("ask", wanted, result_type=dict)
        assert reply["text"] == "SECRET-inline"
        found = await everything(world, key)
        assert b"SECRET-usual" not in found
        assert (b"SECRET-inline" in found) == (not keys)


async def test_a_session_outlives_the_change_of_keys(
    temporal: TemporalServer, sqlite_store: SessionStore
) -> None:
    """From none to one to two: each worker replays what those before it wrote."""
    key = SessionKey(app="tester", user_id="alice", session_id="rotated")
    queue = ""
    for number, keys in enumerate([(), (ONE,), (TWO, ONE)]):
        async with open_world(
            temporal.address, sqlite_store, FAMILY, settings=with_keys(*keys), queue=queue
        ) as world:
            queue = world.settings.task_queue
            world.gemini.script(say(f"answer {number}"))
            answer = await world.runner.ask(key, f"MESSAGE-{number}", message_id=f"m{number}")
            assert answer.text == f"answer {number}"
            found = await everything(world, key)
            assert [f"MESSAGE-{n}".encode() in found for n in range(3)] == [True, False, False]
            stranger = await Client.connect(temporal.address, data_converter=converter(with_keys(ONE)))
            handle = stranger.get_workflow_handle_for(AgentSession.run, key.workflow_id)
            if number < 2:
                assert (await handle.query(AgentSession.status)).turns == number + 1
            else:
                with pytest.raises(UnknownKey, match="key 'two', and the keys here are one"):
                    await handle.query(AgentSession.status)


@pytest.mark.parametrize("keys", [(), (ONE,)], ids=["none", "another"])
async def test_a_worker_that_lacks_a_key_waits_for_it_and_drops_nothing(
    temporal: TemporalServer, sqlite_store: SessionStore, keys: tuple[str, ...]
) -> None:
    async with world_with(temporal, sqlite_store, TWO) as world:
        key = world.key("tester")
        world.gemini.script(say("one"))
        await world.runner.ask(key, "MESSAGE", message_id="m1")
        queue = world.settings.task_queue
        writer = world.client
    async with open_world(
        temporal.address, sqlite_store, FAMILY, settings=with_keys(*keys), queue=queue
    ) as world:
        handle = writer.get_workflow_handle(key.workflow_id)
        await handle.signal("message", {"text": "MESSAGE", "message_id": "m2"})

        async def failed() -> bool:
            history = await handle.fetch_history()
            return any(event.HasField("workflow_task_failed_event_attributes") for event in history.events)

        await until(failed)
    async with open_world(
        temporal.address, sqlite_store, FAMILY, settings=with_keys(ONE, TWO), queue=queue
    ) as world:
        world.gemini.script(say("two"))

        async def answered() -> bool:
            return await world.store.event(key, "m2:m1") is not None

        await until(answered)
        assert [event.id for event in await world.log(key)] == ["m1:user", "m1:m1", "m2:user", "m2:m1"]


async def test_what_a_run_hands_to_the_next_is_encrypted(tmp_path: Path) -> None:
    config = {"limit.historyCount.suggestContinueAsNew": 100}
    store = await open_sqlite(tmp_path)
    async with (
        TemporalServer(tmp_path / "temporal", dynamic_config=config) as temporal,
        world_with(temporal, store, ONE) as world,
    ):
        key = world.key("tester")
        play = Play(world, key)
        await PLAYS["continued"](play)
        found = await everything(world, key)
        history = await world.handle(key).fetch_history()
        started = history.events[0].workflow_execution_started_event_attributes
        assert started.continued_execution_run_id, "it is a run that another handed over to"
        assert b"encryption-key-id" in started.input.SerializeToString()
        assert b"number 1" not in found
    await store.close()


def replayer(settings: Settings) -> Replayer:
    return Replayer(
        workflows=[AgentSession, Retention, ScheduledMessage],
        workflow_runner=UnsandboxedWorkflowRunner(),
        data_converter=converter(settings),
        build_id="replay",
    )


async def test_s62_encrypted_histories_replay_with_their_keys_and_not_without(sealed: World) -> None:
    key = sealed.key("tester")
    await PLAYS["tool"](Play(sealed, key))
    history = await sealed.handle(key).fetch_history()
    kept = WorkflowHistory.from_json(key.workflow_id, history.to_json())
    await replayer(with_keys(TWO, ONE)).replay_workflow(kept)
    for settings in (with_keys(), with_keys(TWO)):
        with pytest.raises(Exception, match="UnknownKey"):
            await replayer(settings).replay_workflow(kept)


@pytest.mark.parametrize("file", sorted(FOLDER.glob("**/*.json*")), ids=lambda file: file.name)
async def test_s62_histories_from_before_the_keys_replay_with_them(file: Path) -> None:
    history = recorded(file)
    workflow_id = history["events"][0]["workflowExecutionStartedEventAttributes"]["workflowId"]
    await replayer(with_keys(ONE)).replay_workflow(WorkflowHistory.from_json(workflow_id, history))


# The codec server.


@asynccontextmanager
async def codec_server(folder: Path, *keys: str) -> AsyncIterator[str]:
    """``perdure temporal codec-server``, as an operator starts it; its address."""
    log = folder / "codec.log"
    environment = {**os.environ, **environment_of(with_keys(*keys))}
    command = [sys.executable, "-m", "perdure", "temporal", "codec-server", "--port", "0"]
    command += ["--origin", "http://ui.example"]
    process = Process("codec server", command, log=log, env=environment, cwd=ROOT)
    process.start()

    async def address() -> str:
        assert process.running, process.tail()
        said = log.read_text()
        return said.split()[2] if said.endswith("\n") else ""

    try:
        yield await until(address)
    finally:
        await process.stop(grace=PATIENCE)
    assert process.returncode == 0, process.tail()


def post(address: str, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    return request("POST", address, path, body, headers)[:2]


def request(
    method: str, address: str, path: str, body: bytes, headers: Mapping[str, str] | None = None
) -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=PATIENCE)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        text = response.read().decode()
        told = {name.lower(): value for name, value in response.getheaders()}
        return response.status, json.loads(text) if text.startswith("{") else text, told
    finally:
        connection.close()


async def temporal_cli(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        find_temporal(), *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return out.decode()


async def test_temporals_own_command_reads_through_the_codec_server(
    sealed: World, temporal: TemporalServer, tmp_path: Path
) -> None:
    key = sealed.key("tester")
    sealed.gemini.script(say("one"), say("two"))
    await sealed.runner.ask(key, "MESSAGE-one", message_id="m1")
    where = ["--address", temporal.address, "--workflow-id", key.workflow_id]
    assert "MESSAGE-one" not in await temporal_cli("workflow", "show", *where, "--output", "json")
    async with codec_server(tmp_path, TWO, ONE) as address:
        through = ["--codec-endpoint", address]
        shown = json.loads(await temporal_cli("workflow", "show", *where, *through, "--output", "json"))
        assert "MESSAGE-one" in json.dumps(shown) or b"MESSAGE-one" in b"".join(decoded(shown))
        # And the other way: what an operator sends is encrypted too, under the newest key.
        wanted = json.dumps({"text": "MESSAGE-two", "message_id": "m2"})
        sent = ["--name", "message", "--input", wanted]
        async with open_world(
            temporal.address,
            sealed.store,
            FAMILY,
            settings=with_keys(TWO, ONE),
            queue=sealed.settings.task_queue,
        ):
            await sealed.worker.shutdown()
            await temporal_cli("workflow", "signal", *where, *through, *sent)

            async def taken() -> bool:
                return await sealed.store.event(key, "m2:user") is not None

            await until(taken)
        assert b"MESSAGE" not in await everything_stored(temporal, key)


def decoded(node: Any) -> list[bytes]:
    """The data of every payload in a history's JSON."""
    if isinstance(node, dict):
        own = [base64.b64decode(node["data"])] if isinstance(node.get("data"), str) else []
        return own + [each for value in node.values() for each in decoded(value)]
    return [each for item in node for each in decoded(item)] if isinstance(node, list) else []


async def everything_stored(temporal: TemporalServer, key: SessionKey) -> bytes:
    client = await Client.connect(temporal.address)
    history = await client.get_workflow_handle(key.workflow_id).fetch_history()
    return b"\n".join(event.SerializeToString() for event in history.events)


async def test_the_codec_server_answers_the_uis_pages_and_no_others(tmp_path: Path) -> None:
    codec = converter(with_keys(ONE)).payload_codec
    assert codec is not None
    [payload] = await data_converter.encode(["SECRET"])
    [sealed_payload] = await codec.encode([payload])

    def body(item: Any) -> bytes:
        metadata = {name: base64.b64encode(value).decode() for name, value in item.metadata.items()}
        data = base64.b64encode(item.data).decode()
        return json.dumps({"payloads": [{"metadata": metadata, "data": data}]}).encode()

    async with codec_server(tmp_path, ONE) as address:
        assert address.startswith("http://127.0.0.1:"), "this machine only, unless told otherwise"

        async def ask(*arguments: Any) -> tuple[int, Any]:
            return await asyncio.to_thread(post, address, *arguments)

        status, told = await ask("/decode", body(sealed_payload), {"Origin": "http://ui.example"})
        assert status == 200
        assert base64.b64decode(told["payloads"][0]["data"]) == b'"SECRET"'
        status, told = await ask("/decode", body(sealed_payload), {"Origin": "http://evil.example"})
        assert (status, "payloads" in told) == (403, False)
        status, told = await ask("/decode", b"not json")
        assert status == 400
        other = converter(with_keys(TWO)).payload_codec
        assert other is not None
        [foreign] = await other.encode([payload])
        status, told = await ask("/decode", body(foreign))
        assert status == 400
        assert "UnknownKey" in told["message"]
        assert "'two'" in told["message"]
        for origin, allowed in (("http://ui.example", "http://ui.example"), ("http://evil.example", None)):
            headers = {
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "content-type,x-namespace",
            }
            _, _, told = await asyncio.to_thread(request, "OPTIONS", address, "/decode", b"", headers)
            assert told.get("access-control-allow-origin") == allowed
