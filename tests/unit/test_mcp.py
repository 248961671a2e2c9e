"""MCP servers as they are declared, and their tools as the model is shown them."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import mcp_types as types
import pytest

from activities.mcp_connection import Connection
from activities.mcp_schema import fitted_schema
from activities.mcp_servers import McpServers
from activities.mcp_tools import mcp_tools
from perdure import Agent, McpServer, ToolContext
from perdure.errors import InvalidAgent, McpUnavailable
from perdure.types import JsonObject

SERVER = McpServer.http("https://user:secret@tickets.example.com/mcp?key=1", headers={"Authorization": "s3"})


async def _answer(name: str, arguments: JsonObject, meta: JsonObject) -> types.CallToolResult:
    assert set(meta) == {"perdure/idempotency-key"}
    return types.CallToolResult(content=[types.TextContent(text=f"{name} {arguments}")])


def _listed(*names: str, schema: JsonObject | None = None) -> list[types.Tool]:
    return [types.Tool(name=name, input_schema=schema or {"type": "object"}) for name in names]


def test_what_is_secret_is_not_shown() -> None:
    assert SERVER.title == "tickets.example.com"
    local = McpServer.stdio("/usr/bin/files", ["--all"], env={"TOKEN": "s3"})
    assert local.title == "files"
    for server in (SERVER, local):
        assert "s3" not in repr(server)


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: McpServer(), "made by McpServer.stdio"),
        (lambda: McpServer.stdio(""), "non-empty string"),
        (lambda: McpServer.http("tickets"), "no URL of http or https"),
        (lambda: McpServer.http("http://a", headers={"A": 1}), "has 'A'"),  # type: ignore[dict-item]
        (lambda: McpServer.http("http://a", prefix="1/"), "prefix is '1/'"),
        (lambda: McpServer.http("http://a", only="close"), "a list of names of tools"),
        (lambda: McpServer.http("http://a", only=["close"], without=["close"]), "leave no tool"),
        (lambda: McpServer.http("http://a", on_timeout="fail"), "say nothing without confirm"),
        (lambda: McpServer.http("http://a", confirm=True, on_timeout="no"), "it is 'refuse', 'approve'"),  # type: ignore[arg-type]
        (lambda: McpServer.http("http://a", retries=-1), "0 or more"),
        (lambda: McpServer.http("http://a", connect_timeout=0), "above 0"),
    ],
)
def test_what_makes_no_sense_is_refused(made: Any, why: str) -> None:
    with pytest.raises(InvalidAgent, match=why):
        made()


def test_an_agent_takes_servers_among_its_tools_and_keeps_them_when_it_is_varied() -> None:
    agent = Agent("helper", tools=[SERVER])
    assert (agent.tools, agent.servers) == ((), (SERVER,))
    assert dataclasses.replace(agent, name="other").servers == (SERVER,)
    with pytest.raises(InvalidAgent, match=r"it is a perdure\.McpServer"):
        Agent("helper", servers=["http://a"])  # type: ignore[list-item]


def test_names_are_made_to_fit_and_stay_different() -> None:
    names = ["search", "look at", "look/at", "1st", "x" * 80, "x" * 81]
    tools = mcp_tools(SERVER, _listed(*names), _answer)
    fitted = [tool.name for tool in tools]
    assert fitted[0] == "search"
    assert len(set(fitted)) == len(names)
    assert all(len(name) <= 64 and (name[0].isalpha() or name[0] == "_") for name in fitted)


def test_the_filter_and_the_prefix() -> None:
    server = dataclasses.replace(SERVER, prefix="t_", without=frozenset({"b"}))
    assert [tool.name for tool in mcp_tools(server, _listed("a", "b", "c"), _answer)] == ["t_a", "t_c"]
    only = dataclasses.replace(SERVER, only=frozenset({"b"}))
    assert [tool.name for tool in mcp_tools(only, _listed("a", "b", "c"), _answer)] == ["b"]
    with pytest.raises(InvalidAgent, match="has no tools named b"):
        mcp_tools(only, _listed("a"), _answer)


def test_a_name_of_perdure_itself_is_refused() -> None:
    with pytest.raises(InvalidAgent, match="as Perdure has itself; give it a prefix"):
        mcp_tools(SERVER, _listed("read_artifact"), _answer)
    [tool] = mcp_tools(dataclasses.replace(SERVER, prefix="t_"), _listed("read_artifact"), _answer)
    assert tool.name == "t_read_artifact"


def test_two_tools_of_one_name_are_refused() -> None:
    [first] = mcp_tools(SERVER, _listed("a"), _answer)
    with pytest.raises(InvalidAgent, match=r"two tools named 'a'.*prefix"):
        Agent("helper").with_tools([first, first])


def test_confirm_by_name_or_by_a_function_of_name_and_arguments() -> None:
    named = McpServer.http("http://a", confirm={"close"}, on_timeout="approve", confirm_timeout=5)
    reads, closes = mcp_tools(named, _listed("read", "close"), _answer)
    assert not reads.needs_approval({})
    assert closes.needs_approval({})
    assert (closes.on_timeout, closes.confirm_timeout) == ("approve", 5)
    asks = McpServer.http("http://a", confirm=lambda name, arguments: name == "pay" and arguments["sum"] > 9)
    read, pay = mcp_tools(asks, _listed("read", "pay"), _answer)
    assert not read.needs_approval({})
    assert not pay.needs_approval({"sum": 9})
    assert pay.needs_approval({"sum": 10})
    assert pay.needs_approval({}), "where it cannot say, a person does"


async def test_the_server_is_called_by_its_own_name_for_the_tool() -> None:
    [tool] = mcp_tools(SERVER, _listed("look/at"), _answer)
    assert await tool.run({"x": 1}, ToolContext()) == {"result": "look/at {'x': 1}"}
    assert not tool.serial


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"content": []}, {"result": []}),
        ({"content": [{"type": "text", "text": "{}"}], "structuredContent": {"a": 1}}, {"a": 1}),
        ({"content": [], "structuredContent": [1]}, {"result": [1]}),
        ({"content": [], "isError": True}, {"error": "The tool failed and does not say why."}),
        (
            {"content": [{"type": "resource_link", "uri": "file:///a", "name": "a"}]},
            {"result": {"resource": {"uri": "file:///a", "name": "a"}}},
        ),
        (
            {"content": [{"type": "resource", "resource": {"uri": "file:///a", "text": "b"}}]},
            {"result": {"resource": {"uri": "file:///a", "text": "b"}}},
        ),
        (
            {
                "content": [{"type": "audio", "mimeType": "audio/wav", "data": "AAAA"}],
                "structuredContent": {"a": 1},
            },
            {"a": 1, "content": [{"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}}]},
        ),
    ],
)
async def test_what_the_model_is_told_of_a_result(result: JsonObject, told: JsonObject) -> None:
    async def answer(name: str, arguments: JsonObject, meta: JsonObject) -> types.CallToolResult:
        return types.CallToolResult.model_validate(result)

    [tool] = mcp_tools(SERVER, _listed("a"), answer)
    assert await tool.run({}, ToolContext()) == told


def test_a_schema_is_made_to_fit() -> None:
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "definitions": {"Id": {"type": "string", "title": "Id"}},
        "properties": {
            "id": {"$ref": "#/definitions/Id"},
            "any": True,
            "both": {"allOf": [{"type": "object", "required": ["a"]}, {"properties": {"a": {"const": 1}}}]},
            "list": {"type": "array", "items": {"$ref": "#/definitions/Id"}},
        },
        "if": {"required": ["id"]},
    }
    assert fitted_schema(schema, "a tool") == {
        "type": "object",
        "properties": {
            "id": {"type": "string"},
            "any": {},
            "both": {"type": "object", "required": ["a"], "properties": {"a": {"enum": [1]}}},
            "list": {"type": "array", "items": {"type": "string"}},
        },
    }


def test_a_schema_that_cannot_be_followed_is_refused() -> None:
    for reference in ("#/properties/b", "https://example.com/schema", "#"):
        with pytest.raises(InvalidAgent, match=r"refers to .*without="):
            fitted_schema({"properties": {"a": {"$ref": reference}}}, "a tool")
    deep: JsonObject = {}
    for _ in range(40):
        deep = {"type": "object", "properties": {"a": deep}}
    with pytest.raises(InvalidAgent, match="more than 32 levels"):
        fitted_schema(deep, "a tool")


async def test_a_server_that_is_not_there() -> None:
    servers = McpServers()
    server = McpServer.stdio("/no/such/program")
    with pytest.raises(McpUnavailable, match="'program' cannot be reached: FileNotFoundError"):
        await servers.equip(Agent("helper", tools=[server]))
    with pytest.raises(McpUnavailable, match="cannot be reached"):
        await Connection(server).call("a", {}, {})
    assert (
        await servers.equip(Agent("helper", tools=[dataclasses.replace(server, optional=True)]))
    ).tools == ()
    await servers.close()


async def test_a_server_that_says_nothing_is_given_up() -> None:
    server = McpServer.stdio("sleep", ["60"], connect_timeout=0.2)
    with pytest.raises(McpUnavailable, match=r"cannot be reached: no answer within 0.2 seconds"):
        await Connection(server).tools()


async def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    servers = McpServers()
    with pytest.raises(InvalidAgent, match=r"pip install 'perdure\[mcp\]'"):
        await servers.equip(Agent("helper", tools=[SERVER]))
    await servers.close()
