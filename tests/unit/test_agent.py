"""Agents are checked where they are made, and the messages say what to do."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from examples import counter
from perdure import Agent, Compaction, Limits, Memory, Tool, ToolContext, tool
from perdure.context import Artifact
from perdure.errors import ArtifactNotFound, InvalidAgent
from perdure.sources import Source


def look_up(word: str) -> str:
    """Look a word up."""
    return word


@tool(parallel=True)
def remember(word: str, context: ToolContext) -> None:
    """Remember a word."""


def test_defaults() -> None:
    agent = Agent("plain")
    assert agent.name == "plain"
    assert agent.model == "gemini-3-flash-preview"
    assert (agent.instruction, agent.description, agent.tools) == ("", "", ())
    assert agent.compaction is None
    assert agent.limits == Limits()
    assert agent.generation is None
    assert agent.memory is None


@pytest.mark.parametrize(
    "given",
    [
        {"on_end": 1},
        {"embedding_model": ""},
        {"dimensions": 7},
        {"dimensions": 3_073},
        {"dimensions": "8"},
        {"preload": -1},
        {"preload": 21},
    ],
)
def test_a_memory_that_makes_no_sense(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidAgent, match=rf"Memory\.{next(iter(given))}"):
        Memory(**given)


def test_tools_become_a_tuple_of_tools() -> None:
    agent = Agent("a", tools=[look_up, remember])
    assert agent.tools == (tool(look_up), remember)
    assert all(isinstance(item, Tool) for item in agent.tools)
    assert agent.tool("remember") is remember
    assert agent.tool("look_up") == tool(look_up)
    assert agent.tool("forget") is None
    assert Agent("a", tools=(item for item in [look_up])).tools == (tool(look_up),)


def test_equality_hash_and_repr() -> None:
    one = Agent("a", tools=[look_up], generation={"temperature": 0.5})
    two = Agent("a", tools=[look_up], generation={"temperature": 0.5})
    assert one == two
    assert hash(one) == hash(two)
    assert one != Agent("a", tools=[look_up])
    assert one != Agent("a", tools=[remember], generation={"temperature": 0.5})
    assert repr(one) == "Agent('a', model='gemini-3-flash-preview', tools=[look_up])"


def test_it_is_frozen_and_can_be_varied() -> None:
    agent = Agent("a", tools=[look_up], compaction=Compaction(interval=3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        agent.name = "b"  # type: ignore[misc]  # the point
    varied = dataclasses.replace(agent, name="b")
    assert (varied.name, varied.tools, varied.compaction) == ("b", agent.tools, agent.compaction)


def test_generation_is_a_copy_in_json() -> None:
    given: dict[str, Any] = {"thinking_config": {"thinking_budget": 0}, "stop_sequences": ("x",)}
    agent = Agent("a", generation=given)
    given["thinking_config"]["thinking_budget"] = 5
    assert agent.generation == {"thinking_config": {"thinking_budget": 0}, "stop_sequences": ["x"]}


@pytest.mark.parametrize("name", ["a", "_a", "shop.assistant-2", "x" * 64])
def test_good_names(name: str) -> None:
    assert Agent(name).name == name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": ""}, "'' cannot be the name of an agent"),
        ({"name": None}, "None cannot be the name of an agent"),
        ({"name": "a/b"}, "'a/b' cannot be the name of an agent: up to 64 ASCII letters"),
        ({"name": "x" * 65}, "cannot be the name of an agent"),
        ({"name": "user"}, "an agent cannot be named 'user'"),
        ({"name": "Perdure"}, "an agent cannot be named 'Perdure'"),
        ({"model": " "}, "agent 'a': model is ' '; it is a non-empty string"),
        ({"model": None}, "agent 'a': model is None"),
        ({"instruction": None}, "agent 'a': instruction is None; it is a string"),
        ({"instruction": "a\x00"}, r"agent 'a': instruction contains U\+0000"),
        ({"description": 5}, "agent 'a': description is 5"),
        ({"tools": [5]}, "agent 'a': 5 in tools is not a function"),
        ({"tools": "look_up"}, "agent 'a': tools is 'look_up'; it is a list of functions"),
        ({"tools": look_up}, "agent 'a': tools is <function look_up.*it is a list of functions"),
        ({"tools": [look_up, look_up]}, "agent 'a' has two tools named 'look_up'.*rename one"),
        ({"tools": [lambda: 1]}, "'<lambda>' cannot be the name of a tool"),
        ({"compaction": 3}, "agent 'a': compaction is 3; it is a perdure.Compaction"),
        ({"limits": {"steps": 1}}, "agent 'a': limits is {'steps': 1}; it is a perdure.Limits"),
        ({"generation": [1]}, r"agent 'a': generation is \[1\]; it is a dict"),
        ({"generation": {"tools": []}}, r"generation has 'tools', which the runtime sets; use tools="),
        ({"generation": {"system_instruction": ""}}, "generation has 'system_instruction'.*use instruction="),
        ({"generation": {"systemInstruction": ""}}, "generation has 'systemInstruction'"),
        ({"generation": {"temperature": math.nan}}, r"agent 'a': generation\['temperature'\] is nan"),
    ],
)
def test_what_cannot_be_an_agent_says_why(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidAgent, match=message):
        Agent(**{"name": "a", **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"interval": 0}, "Compaction.interval is 0; it is a whole number, 1 or more"),
        ({"interval": True}, "Compaction.interval is True"),
        ({"interval": 2.5}, "Compaction.interval is 2.5"),
        ({"interval": 3, "overlap": -1}, "Compaction.overlap is -1; it is a whole number, 0 or more"),
        (
            {"interval": 3, "overlap": 3},
            r"Compaction\(interval=3, overlap=3\).*overlap must be less than interval",
        ),
        ({"interval": 3, "model": ""}, "Compaction.model is ''"),
        ({"interval": 3, "prompt": 5}, "Compaction.prompt is 5"),
    ],
)
def test_compaction_is_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidAgent, match=message):
        Compaction(**arguments)


def test_compaction() -> None:
    assert Compaction(interval=1) == Compaction(interval=1, overlap=0, model=None, prompt=None)
    assert Compaction(interval=3, overlap=2).overlap == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "Limits.steps is 0; it is a whole number, 1 or more"),
        ({"model_attempts": "3"}, "Limits.model_attempts is '3'"),
        ({"tool_attempts": 0}, "Limits.tool_attempts is 0"),
        ({"model_timeout": 0}, "Limits.model_timeout is 0; it is a number of seconds above 0"),
        ({"model_timeout": math.nan}, "Limits.model_timeout is nan"),
        ({"tool_timeout": math.inf}, "Limits.tool_timeout is inf"),
        ({"tokens": 0}, "Limits.tokens is 0"),
        ({"turn_timeout": 0}, "Limits.turn_timeout is 0"),
    ],
)
def test_limits_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidAgent, match=message):
        Limits(**arguments)


class Shelf:
    """Artifacts in a dict."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    async def save(self, name: str, data: Source, mime_type: str) -> int:
        assert isinstance(data, bytes)
        self.files[name] = data
        return 1

    async def load(
        self, name: str, version: int | None, *, start: int = 0, length: int | None = None
    ) -> Artifact:
        raise ArtifactNotFound(name)

    async def names(self) -> list[str]:
        return sorted(self.files)


def test_the_counter_example_is_declared_as_it_should_be() -> None:
    agent = counter.agent
    assert agent.name == "counter"
    assert agent.compaction == Compaction(interval=3, overlap=1)
    assert [(item.name, item.serial) for item in agent.tools] == [
        ("increment_counter", True),
        ("show_counters", True),
        ("save_counter_report", True),
    ]
    assert counter.increment_counter.parameters == {
        "type": "object",
        "properties": {
            "counter_name": {"type": "string", "description": "Name of the counter."},
            "amount": {"type": "integer", "description": "Amount to increment.", "default": 1},
        },
        "required": ["counter_name"],
        "additionalProperties": False,
    }


async def test_the_counter_example_counts() -> None:
    context = ToolContext(state={}, artifacts=(shelf := Shelf()))
    first = await counter.increment_counter.call({"counter_name": "visits"}, context)
    assert first == {"counter_name": "visits", "old_value": 0, "new_value": 1, "increment": 1}
    await counter.increment_counter.call({"counter_name": "visits", "amount": 100.0}, context)
    await counter.increment_counter.call({"counter_name": "logins"}, context)
    assert await counter.show_counters.call({}, context) == {"visits": 101, "logins": 1}
    assert context.state.delta == {"counters": {"visits": 101, "logins": 1}}
    saved = await counter.save_counter_report.call({"filename": "counter-report.txt"}, context)
    assert saved == {"success": True, "filename": "counter-report.txt", "version": 1, "counters_count": 2}
    assert shelf.files == {"counter-report.txt": b"visits: 101\nlogins: 1"}


async def test_the_counter_example_has_a_report_of_nothing() -> None:
    await counter.save_counter_report("r.txt", ToolContext(artifacts=(shelf := Shelf())))
    assert shelf.files == {"r.txt": b"No counters found"}
