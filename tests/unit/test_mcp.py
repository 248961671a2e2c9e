"""MCP servers as they are declared, and their tools as the model is shown them."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import sys
from collections.abc import Iterable
from typing import Any

import mcp_types as types
import pytest
from google.genai import types as genai
from hypothesis import given
from hypothesis import strategies as st

from activities import mcp_connection, mcp_servers
from activities.mcp_connection import Connection
from activities.mcp_schema import fitted_schema
from activities.mcp_servers import McpServers
from activities.mcp_tools import mcp_tools
from activities.windows import prompt_tokens
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


def test_references_are_followed_wherever_they_point() -> None:
    schema = {
        "properties": {
            "from": {"type": "object", "properties": {"x/y": {"type": "number"}}},
            "to": {"$ref": "#/properties/from", "description": "where to"},
            "default": {"$ref": "#/properties/from/properties/x~1y"},
            "child": {"$ref": "#"},
            "nothing": {"$ref": "#/$defs/a"},
        },
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}, "unused": {"$ref": "nowhere"}},
    }
    place = {"type": "object", "properties": {"x/y": {"type": "number"}}}
    properties = {
        "from": place,
        "to": {**place, "description": "where to"},
        "default": {"type": "number"},
        "child": {"$ref": "#/$defs/root"},
        "nothing": {},
    }
    fitted = fitted_schema(schema, "a tool")
    assert fitted["properties"] == properties
    assert fitted["$defs"] == {"root": {"properties": properties}}


def test_a_schema_that_cannot_be_followed_is_refused() -> None:
    for reference in ("#/properties/b", "https://example.com/schema", "#/properties/a/$ref/0"):
        with pytest.raises(InvalidAgent, match=r"refers to .*without="):
            fitted_schema({"properties": {"a": {"$ref": reference}}}, "a tool")
    deep: JsonObject = {}
    for _ in range(40):
        deep = {"type": "object", "properties": {"a": deep}}
    with pytest.raises(InvalidAgent, match=r"more than 32 levels.*without="):
        fitted_schema(deep, "a tool")


def test_a_schema_that_grows_without_end_is_refused() -> None:
    twice: JsonObject = {"0": {"type": "string"}}
    for n in range(1, 30):
        twice[str(n)] = {"properties": {name: {"$ref": f"#/$defs/{n - 1}"} for name in "ab"}}
    with pytest.raises(InvalidAgent, match=r"more than 250000 characters.*without="):
        fitted_schema({"properties": {"x": {"$ref": "#/$defs/29"}}, "$defs": twice}, "a tool")
    for length, why in ((100, "more than 64 levels"), (3_000, "more than 500 definitions")):
        chain = {str(n): {"items": {"$ref": f"#/$defs/{n + 1}"}} for n in range(length)} | {str(length): {}}
        with pytest.raises(InvalidAgent, match=rf"{why}.*without="):
            fitted_schema({"properties": {"x": {"$ref": "#/$defs/0"}}, "$defs": chain}, "a tool")
    with pytest.raises(InvalidAgent, match="more than 250000 characters"):
        fitted_schema({"properties": {"x": {"description": "long " * 60_000}}}, "a tool")


def test_what_is_no_schema_is_left_out() -> None:
    odd = {
        "properties": {
            "old": {"type": "integer", "exclusiveMinimum": True, "minimum": 0, "required": True},
            "empty": {"type": "object", "properties": []},
            "list": [],
            "wrong": {"type": 5, "enum": "a", "description": ["b"], "anyOf": {}, "$ref": 1, "allOf": 2},
        },
        "$defs": [],
        "required": ["old", 1],
    }
    assert fitted_schema(odd, "a tool") == {
        "type": "object",
        "properties": {
            "old": {"type": "integer", "minimum": 0},
            "empty": {"type": "object"},
            "list": {},
            "wrong": {},
        },
    }


_KEYWORDS = st.sampled_from(
    [
        *("type", "properties", "items", "required", "enum", "const", "default", "description", "minimum"),
        *("$ref", "$defs", "definitions", "allOf", "anyOf", "oneOf", "exclusiveMinimum", "a"),
        "additionalProperties",
    ]
)
_TEXTS = st.sampled_from(["object", "a", "#", "#/$defs/a", "#/properties/a"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYWORDS, inner, max_size=4),
    max_leaves=30,
)


@given(st.dictionaries(_KEYWORDS, _VALUES, max_size=6))
def test_whatever_a_server_lists_is_made_to_fit_or_refused(schema: JsonObject) -> None:
    try:
        fitted = fitted_schema(schema, "a tool")
    except InvalidAgent:
        return
    genai.FunctionDeclaration(name="a", parameters_json_schema=fitted)
    assert fitted_schema(fitted, "a tool") == fitted


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


async def test_one_that_is_optional_is_not_tried_in_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0

    async def tools(connection: Connection, *, refresh: bool = False) -> list[types.Tool]:
        nonlocal tried
        tried += 1
        raise McpUnavailable("away")

    monkeypatch.setattr(Connection, "tools", tools)
    agent = Agent("helper", tools=[McpServer.stdio("/no/such/program", optional=True)])
    servers = McpServers()
    for _ in range(3):
        assert (await servers.equip(agent)).tools == ()
        assert (await servers.with_tool(agent, "a")).tools == (), "a call of none is not held up, either"
    assert tried == 1
    monkeypatch.setattr(mcp_servers, "AWAY", 0.0)
    servers = McpServers()
    for _ in range(2):
        await servers.equip(agent)
    assert tried == 3


async def test_those_who_wait_for_a_silent_server_wait_once(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Connection(McpServer.stdio("sh", ["-c", "while read said; do :; done"], connect_timeout=0.2))
    started: list[object] = []
    made = mcp_connection._Held

    def make(*args: Any) -> Any:
        started.append(args)
        return made(*args)

    monkeypatch.setattr(mcp_connection, "_Held", make)
    waiting = [connection.tools() for _ in range(10)] + [connection.call("a", {}, {}) for _ in range(10)]
    failed = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(each) for each in failed} == {McpUnavailable}
    assert len(started) == 1
    with pytest.raises(McpUnavailable):
        await connection.tools()
    assert len(started) == 2, "who comes later tries it again"


async def test_a_tool_that_two_servers_have_by_now_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model was offered it by one; the other may not ask a person first."""
    listed = {"a": _listed("pay", "look"), "b": _listed("find")}

    async def tools(connection: Connection, *, refresh: bool = False) -> list[types.Tool]:
        return listed[connection._server.title]

    monkeypatch.setattr(Connection, "tools", tools)
    agent = Agent("helper", tools=[McpServer.http("http://a", confirm=True), McpServer.http("http://b")])
    servers = McpServers()
    assert (await servers.with_tool(agent, "pay")).tool("pay") is not None
    listed["b"] = _listed("find", "pay")
    assert (await servers.with_tool(agent, "pay")).tool("pay") is None
    assert (await servers.with_tool(agent, "look")).tool("look") is not None


async def test_their_tools_count_when_a_prompt_is_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    async def tools(connection: Connection, *, refresh: bool = False) -> list[types.Tool]:
        return [types.Tool(name=f"t{n}", description="word " * 100, input_schema={}) for n in range(10)]

    monkeypatch.setattr(Connection, "tools", tools)
    agent, servers = Agent("helper", tools=[SERVER]), McpServers()
    bare = prompt_tokens(agent, None, [])
    assert servers.known(agent) == (agent, ["tickets.example.com"])
    await servers.equip(agent)
    known, unknown = servers.known(agent)
    assert unknown == []
    assert prompt_tokens(known, None, []) > bare + 10 * 500 / 4


def test_what_no_model_takes_is_refused() -> None:
    many = _listed(*(f"t{n}" for n in range(600)))
    with pytest.raises(InvalidAgent, match=r"has 600 tools, and a model takes 512.*only="):
        mcp_tools(SERVER, many, _answer)
    some = dataclasses.replace(SERVER, only=frozenset({"t1", "t2"}))
    assert [tool.name for tool in mcp_tools(some, many, _answer)] == ["t1", "t2"]
    told = types.Tool(name="a", description="word " * 20_000, input_schema={})
    with pytest.raises(InvalidAgent, match=r"description of 99999 characters.*without="):
        mcp_tools(SERVER, [told], _answer)


async def test_a_server_that_says_nothing_is_given_up() -> None:
    server = McpServer.stdio("sh", ["-c", "while read said; do :; done"], connect_timeout=0.2)
    with pytest.raises(McpUnavailable, match=r"'sh' cannot be reached: no answer within 0.2 seconds"):
        await Connection(server).tools()


async def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    servers = McpServers()
    with pytest.raises(InvalidAgent, match=r"pip install 'perdure\[mcp\]'"):
        await servers.equip(Agent("helper", tools=[SERVER]))
    await servers.close()


class _Pages:
    """A client of a server that lists a tool on each page, and then says what the next one's cursor is."""

    def __init__(self, cursors: Iterable[str]) -> None:
        self._cursors = iter(cursors)
        self.asked: list[str | None] = []

    async def list_tools(self, *, cursor: str | None) -> types.ListToolsResult:
        self.asked.append(cursor)
        return types.ListToolsResult(
            tools=_listed(f"t{len(self.asked)}"), next_cursor=next(self._cursors, None)
        )


async def _all_tools(pages: _Pages) -> list[types.Tool]:
    return await mcp_connection._all_tools(pages, SERVER)  # type: ignore[arg-type]  # all that is asked of it


async def test_a_list_has_a_hundred_pages_at_most() -> None:
    found = await _all_tools(_Pages(str(n) for n in range(99)))
    assert [each.name for each in found] == [f"t{n}" for n in range(1, 101)]
    endless = _Pages(str(n) for n in itertools.count())
    with pytest.raises(InvalidAgent, match=r"'tickets\.example\.com' lists .* on more than 100 pages"):
        await _all_tools(endless)
    assert len(endless.asked) == 100


async def test_an_empty_cursor_is_none() -> None:
    pages = _Pages(["a", ""])
    await _all_tools(pages)
    assert pages.asked == [None, "a"]


async def test_a_list_whose_cursor_comes_again_is_given_up_there() -> None:
    circle = _Pages(itertools.cycle(["a", "b"]))
    with pytest.raises(InvalidAgent, match=r"'tickets\.example\.com' lists its tools in a circle"):
        await _all_tools(circle)
    assert circle.asked == [None, "a", "b"]
