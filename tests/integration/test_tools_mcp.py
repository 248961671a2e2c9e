"""MCP servers as tools: a real server, over stdio and over streamable HTTP."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from activities import mcp_connection
from activities.mcp_connection import Connection
from activities.mcp_servers import McpServers
from embedded.ports import Claims, free_port
from embedded.temporal import TemporalServer
from perdure import Agent, McpServer, ToolContext
from perdure.errors import McpUnavailable
from perdure.testing import call, say
from storage.sessions import SessionStore
from tests.gateway.harness import open_gateway, path_of
from tests.integration.harness import PATIENCE, World, open_world, until

PROGRAM = str(Path(__file__).with_name("mcp_server.py"))


@dataclass
class Warehouse:
    """A server that notes what it is asked."""

    notes: Path

    @property
    def asked(self) -> list[str]:
        """All that it was asked so far."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def stdio(self, **options: Any) -> McpServer:
        """The server as each worker starts it."""
        return McpServer.stdio(
            sys.executable, [PROGRAM], env={"MCP_NOTES": str(self.notes)}, name="warehouse", **options
        )


class HttpServer:
    """The same over HTTP; it can be stopped and started again."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._environment = {**os.environ, "MCP_NOTES": str(warehouse.notes)}
        self._claims = Claims()
        self.port = free_port(take=self._claims.take)
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Until it takes connections."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, PROGRAM, str(self.port), env=self._environment
        )

        async def answers() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return False
            writer.close()
            await writer.wait_closed()
            return True

        await until(answers)

    async def kill(self) -> None:
        """Without a word."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGKILL)
            await self._process.wait()

    async def stop(self) -> None:
        """For good."""
        await self.kill()
        self._claims.release()


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    return Warehouse(tmp_path_factory.mktemp("mcp") / "notes")


@pytest_asyncio.fixture(scope="module")
async def http(warehouse: Warehouse) -> AsyncIterator[HttpServer]:
    server = HttpServer(warehouse)
    await server.start()
    yield server
    await server.stop()


@pytest_asyncio.fixture(scope="module")
async def world(
    temporal: TemporalServer, sqlite_store: SessionStore, warehouse: Warehouse, http: HttpServer
) -> AsyncIterator[World]:
    there = McpServer.http(
        f"http://127.0.0.1:{http.port}/mcp", prefix="there_", only=["stock", "die"], headers={"X-Shop": "1"}
    )
    agents = [
        Agent("keeper", tools=[warehouse.stdio(confirm=["throw_away"], retries=1)]),
        Agent("both", tools=[warehouse.stdio(only=["stock"]), there]),
        Agent("mistaken", tools=[warehouse.stdio(confirm=["throw_way"])]),
        Agent("alone", tools=[_nowhere()]),
        Agent("content", tools=[_nowhere(optional=True)]),
    ]
    async with open_world(temporal.address, sqlite_store, agents) as opened:
        yield opened


def _nowhere(**options: Any) -> McpServer:
    return McpServer.stdio("/no/such/program", name="nowhere", **options)


async def test_its_tools_are_declared_and_called_and_listed_once(world: World, warehouse: Warehouse) -> None:
    before = warehouse.asked.count("list")
    for number in range(3):
        told = await _told(world, "keeper", call("stock", article="nails", shelf=number))
        assert told == {"result": f"7 nails on shelf {number}"}
    assert warehouse.asked.count("list") <= before + 1
    functions = {one["name"]: one for one in world.gemini.model_calls()[-1].declarations}
    assert "'shelf': {'default': 1, 'type': 'integer'}" in str(functions["stock"])
    assert any(name.startswith("look_at_it_") for name in functions), "Gemini takes no slash in a name"


async def test_two_ways_to_a_server_and_a_prefix(world: World, warehouse: Warehouse) -> None:
    assert await _told(world, "both", call("there_stock", article="bolts")) == {
        "result": "7 bolts on shelf 1"
    }
    assert await _told(world, "both", call("stock", article="nuts")) == {"result": "7 nuts on shelf 1"}
    told = await _told(world, "both", call("throw_away", article="nuts"))
    assert "There is no tool named 'throw_away'" in told["error"], "it was not given that one"
    assert "throw_away nuts" not in warehouse.asked


async def test_what_it_throws_away_a_person_approves_of(world: World, warehouse: Warehouse) -> None:
    key = world.key("keeper")
    world.gemini.script(call("throw_away", article="glass"), say("Gone."))
    assert (await world.runner.ask(key, "Throw it away.", message_id="m1")).status == "waiting"
    assert "throw_away glass" not in warehouse.asked
    await world.runner.approve(key, "m1:t1.0", by="boss")
    assert (await world.runner.ask(key, "Throw it away.", message_id="m1")).text == "Gone."
    assert warehouse.asked.count("throw_away glass") == 1


async def test_a_name_that_the_server_does_not_have_is_a_mistake(world: World) -> None:
    answer = await world.runner.ask(world.key("mistaken"), "Go on.")
    assert answer.status == "failed"
    assert answer.failure is not None
    assert answer.failure.type == "InvalidAgent"
    assert "has no tools named throw_way" in answer.failure.message


async def test_an_error_of_the_tool_is_told_once(world: World, warehouse: Warehouse) -> None:
    told = await _told(world, "keeper", call("fails"))
    assert "the shelf is locked" in told["error"]
    assert warehouse.asked.count("fails") == 1, "the server has answered; that is no reason to try again"


async def test_pictures_and_long_texts_become_artifacts(world: World) -> None:
    key = world.key("keeper")
    world.gemini.script(say("Hello."))
    await world.runner.ask(key, "Hello.")
    [look] = [name for name in world.gemini.model_calls()[-1].tools if name.startswith("look_at_it")]
    told = await _told(world, "keeper", call(look, article="nails"))
    text, picture = told["result"]
    assert text == "nails"
    assert picture["mime_type"] == "image/png"
    assert picture["bytes"] == 100_004
    assert (await _told(world, "keeper", call("much")))["artifact"].startswith("results/")


async def test_a_server_that_dies_in_a_call_is_started_again(world: World, warehouse: Warehouse) -> None:
    before = warehouse.asked.count("die")
    told = await _told(world, "keeper", call("die"))
    assert told["error"].startswith("McpUnavailable: MCP server 'warehouse' broke off the call of die")
    assert warehouse.asked.count("die") == before + 2, "it is tried again, as often as retries says"
    assert await _told(world, "keeper", call("stock", article="rope")) == {"result": "7 rope on shelf 1"}


async def test_a_server_that_went_away_meanwhile_is_found_again(world: World, http: HttpServer) -> None:
    assert await _told(world, "both", call("there_stock", article="a")) == {"result": "7 a on shelf 1"}
    await http.kill()
    await http.start()
    assert await _told(world, "both", call("there_stock", article="b")) == {"result": "7 b on shelf 1"}


async def test_a_server_that_went_away_unnoticed_is_asked_again(http: HttpServer) -> None:
    """What there is then, and what changes from then on. A call is held up meanwhile, and not refused."""
    agent = Agent(
        "both", tools=[McpServer.http(f"http://127.0.0.1:{http.port}/mcp", connect_timeout=PATIENCE)]
    )
    servers = McpServers()
    assert "weigh" not in {tool.name for tool in (await servers.equip(agent)).tools}
    await http.kill()

    async def held_up() -> bool:
        try:
            await servers.with_tool(agent, "stock")
        except McpUnavailable:
            return True
        return False

    await until(held_up)
    await http.start()
    learn = (await servers.with_tool(agent, "learn")).tool("learn")
    assert learn is not None
    await learn.run({}, ToolContext())

    async def heard() -> bool:
        return "weigh" in {tool.name for tool in (await servers.equip(agent)).tools}

    await until(heard)
    await servers.close()


async def test_a_call_over_http_may_be_silent_for_as_long_as_it_takes(
    http: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_connection, "QUIET", 0.3)
    connection = Connection(McpServer.http(f"http://127.0.0.1:{http.port}/mcp"))
    told = await connection.call("dawdle", {"seconds": 1.5}, {})
    assert told.structured_content == {"result": "done"}
    await connection.close()


async def test_the_gateway_beside_a_worker_shows_the_tools_that_the_worker_knows(
    world: World, warehouse: Warehouse
) -> None:
    agent = Agent("keeper", tools=[warehouse.stdio()])
    key, servers = world.key("keeper"), McpServers()
    world.gemini.script(say("Hello."))
    await world.runner.ask(key, "Hello.")
    async with open_gateway(world, agents=[agent], servers=servers) as gateway:
        before = (await gateway.http.get(path_of(key, "/context"))).json()
        assert (before["leftOut"], before["request"].get("tools")) == (["warehouse"], None)
        await servers.equip(agent)
        after = (await gateway.http.get(path_of(key, "/context"))).json()
        assert "leftOut" not in after
        assert "throw_away" in str(after["request"]["tools"])
    await servers.close()


async def test_new_tools_are_heard_of(world: World, warehouse: Warehouse) -> None:
    told = await _told(world, "keeper", call("learn"))
    assert told == {"result": "I can weigh now."}
    assert await _told(world, "keeper", call("weigh", article="rope")) == {"result": "rope: 3 kg"}


@pytest.mark.parametrize("rewound", [False, True], ids=["cancelled", "rewound"])
async def test_s13_a_cancel_or_rewind_ends_the_call_and_not_the_connection(
    world: World, warehouse: Warehouse, rewound: bool
) -> None:
    key, article = world.key("keeper"), f"tea-{rewound}"
    world.gemini.script(call("wait_long", article=article))
    asking = asyncio.create_task(world.runner.ask(key, "Wait.", message_id="m1"))
    await until(_noted(warehouse, f"wait_long {article}"))
    await (world.runner.rewind(key, "m1") if rewound else world.runner.cancel(key))
    assert (await asking).status == "cancelled"
    assert [event.id for event in await world.log(key) if "call" in event.meta] == []
    lists = warehouse.asked.count("list")
    assert await _told(world, "keeper", call("stock", article="tea")) == {"result": "7 tea on shelf 1"}
    assert warehouse.asked.count("list") == lists


async def test_a_turn_waits_for_a_server_that_cannot_be_reached(world: World) -> None:
    key = world.key("alone")
    await world.runner.message(key, "Go on.", message_id="m1")

    async def held_up() -> str | None:
        work = await world.runner.status(key)
        return work.held_up.message if work.held_up and work.held_up.type == "McpUnavailable" else None

    assert "MCP server 'nowhere' cannot be reached: FileNotFoundError" in str(await until(held_up))
    await world.runner.cancel(key)
    assert (await world.runner.ask(key, "Go on.", message_id="m1")).status == "cancelled"


async def test_one_that_is_optional_is_done_without(world: World) -> None:
    world.gemini.script(say("I have no tools."))
    assert (await world.runner.ask(world.key("content"), "Go on.")).text == "I have no tools."


def _noted(warehouse: Warehouse, what: str) -> Callable[[], Any]:
    async def look() -> bool:
        return what in warehouse.asked

    return look


async def _told(world: World, agent: str, wanted: Any) -> Any:
    """What the model is told of a call."""
    key = world.key(agent)
    world.gemini.script(wanted, say("Done."))
    assert (await world.runner.ask(key, "Do it.")).text == "Done."
    [event] = [event for event in await world.log(key) if "call" in event.meta]
    assert event.content is not None
    return event.content["parts"][0]["functionResponse"]["response"]
