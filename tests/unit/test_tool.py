"""Tools: declared by ``@tool``, called with what a model sent."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, cast
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, field_validator

from perdure import Tool, ToolContext, tool
from perdure.errors import InvalidAgent, InvalidArguments, InvalidContent


class Point(BaseModel):
    x: int
    y: int = 0


class Colour(Enum):
    RED = "red"


@dataclass
class Size:
    width: int
    at: Point


@tool
def add(a: int, b: int = 1) -> int:
    """Add two numbers."""
    return a + b


def test_the_function_is_callable_as_before() -> None:
    assert add(1) == 2
    assert add(1, b=5) == 6
    assert getattr(add, "__name__") == "add"  # noqa: B009 - mypy does not see it
    assert add.__doc__ == "Add two numbers."
    assert add.__module__ == __name__
    assert list(inspect.signature(add).parameters) == ["a", "b"]
    assert repr(add) == "<Tool add(a, b)>"


async def test_an_async_function_is_awaitable_as_before() -> None:
    @tool
    async def double(a: int) -> int:
        return 2 * a

    assert await double(2) == 4
    assert double.is_async
    assert not add.is_async
    assert await double.call({"a": 3}) == {"result": 6}


def test_options() -> None:
    @tool(name="other", description="Says so.", parallel=True, timeout=5, retries=2)
    def f(context: ToolContext) -> None:
        """Ignored."""

    assert (f.name, f.description, f.parallel, f.timeout, f.retries, f.attempts) == (
        "other", "Says so.", True, 5, 2, 3,
    )  # fmt: skip
    assert (add.parallel, add.timeout, add.retries, add.attempts) == (False, None, 0, 1)


def test_serial_are_those_that_can_write_state() -> None:
    def f(context: ToolContext) -> None: ...

    assert tool(f).serial
    assert not tool(f, parallel=True).serial
    assert not add.serial


def test_a_tool_of_a_tool_is_a_tool_of_its_function() -> None:
    again = tool(add, name="plus")
    assert again.name == "plus"
    assert again.function is add.function


def test_equality() -> None:
    assert tool(add.function) == add
    assert hash(tool(add.function)) == hash(add)
    assert tool(add.function, retries=1) != add
    assert add != add.function


class Adder:
    """Adds to what it was made with."""

    def __init__(self, base: int) -> None:
        self.base = base

    def method(self, a: int) -> int:
        """Add to the base."""
        return self.base + a

    @classmethod
    def of_class(cls, a: int) -> int:
        return a

    @staticmethod
    def static(a: int) -> int:
        return a

    def __call__(self, a: int) -> int:
        return self.base + a


class AsyncAdder:
    async def __call__(self, a: int) -> int:
        """Add 1."""
        return a + 1


def decorated(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


async def plus_ten(a: int) -> int:
    return a + 10


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (tool(Adder(10).method), 11),
        (tool(Adder.of_class), 1),
        (tool(Adder.static), 1),
        (tool(Adder(10), name="adder"), 11),
        (tool(AsyncAdder(), name="adder"), 2),
        (tool(functools.partial(add.function, b=10)), 11),
        (tool(functools.partial(plus_ten)), 11),
        (tool(decorated(add.function)), 2),
        (tool(decorated(plus_ten)), 11),
    ],
)
async def test_all_kinds_of_callables(function: Tool, result: int) -> None:
    assert await function.call({"a": 1}) == {"result": result}


def test_descriptions_of_callables() -> None:
    assert tool(Adder(1).method).description == "Add to the base."
    assert tool(Adder(1), name="adder").description == "Adds to what it was made with."
    assert tool(AsyncAdder(), name="adder").description == "Add 1."


def generator() -> Any:
    yield 1


async def async_generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tool(lambda: 1), "'<lambda>' cannot be the name of a tool"),
        (lambda: tool(Adder(1)), "has no name; give it one"),
        (lambda: tool(Adder), "is not a function"),
        (lambda: tool(cast("Any", 5)), "5 is not a function"),
        (lambda: tool(generator), "'generator' is a generator"),
        (lambda: tool(async_generator), "'async_generator' is a generator"),
        (lambda: tool(name="1x")(add.function), "'1x' cannot be the name of a tool"),
        (lambda: tool(name="")(add.function), "'' cannot be the name of a tool"),
        (lambda: tool(name="x" * 65)(add.function), "cannot be the name of a tool"),
        (lambda: tool(name="é")(add.function), "cannot be the name of a tool"),
        (lambda: tool(timeout=0)(add.function), "'add': timeout is 0; it is a number of seconds"),
        (lambda: tool(timeout=math.inf)(add.function), "timeout is inf"),
        (lambda: tool(timeout=True)(add.function), "timeout is True"),
        (lambda: tool(retries=-1)(add.function), "retries is -1; it is a whole number, 0 or more"),
        (lambda: tool(retries=cast("Any", 1.5))(add.function), "retries is 1.5"),
        (lambda: tool(description="\x00")(add.function), "U\\+0000"),
    ],
)
def test_what_cannot_be_a_tool_says_why(make: Any, message: str) -> None:
    with pytest.raises(InvalidAgent, match=message):
        make()


@pytest.mark.parametrize("name", ["a", "_a", "a.b:c-d_1", "x" * 64])
def test_names_that_gemini_takes(name: str) -> None:
    assert tool(name=name)(add.function).name == name


@tool
def order(
    item: str,
    at: Point,
    day: date,
    tags: set[str],
    count: Annotated[int, Field(ge=1)] = 1,
    colour: Colour | None = None,
    size: Literal["s", "l"] = "s",
    points: list[Point] = [],  # noqa: B006 - pydantic copies it
) -> list[Any]:
    return [item, at, day, sorted(tags), count, colour, size, points]


ORDER = {"item": "tea", "at": {"x": 1}, "day": "2026-11-22", "tags": ["b", "a"]}


async def test_arguments_arrive_as_their_types() -> None:
    seen = order.function
    given = {**ORDER, "count": 2.0, "colour": "red", "size": "l", "points": [{"x": 1, "y": 2}]}
    args, kwargs = order._signature.bind(given, None)
    assert args == []
    assert seen(**kwargs) == [
        "tea", Point(x=1), date(2026, 11, 22), ["a", "b"], 2, Colour.RED, "l", [Point(x=1, y=2)],
    ]  # fmt: skip
    assert isinstance(kwargs["count"], int)
    _, defaults = order._signature.bind(ORDER, None)
    assert (defaults["count"], defaults["colour"], defaults["size"], defaults["points"]) == (1, None, "s", [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"^add was not run: argument 'a' is missing\.$"),
        ({"a": 1, "c": 2}, r"there is no argument 'c' \(there are: a, b\)"),
        ({"a": "many"}, r"argument 'a': Input should be a valid integer.*, not 'many'"),
        (
            {"a": 1.5},
            r"argument 'a': Input should be a valid integer, got a number with a fractional part, not 1\.5",
        ),
        ({"a": None}, r"argument 'a': Input should be a valid integer, not None"),
        ({"a": 1, "argument_1": 2}, r"there is no argument 'argument_1'"),
        ({"b": "x", "c": 1}, r"'a' is missing; argument 'b': .*; there is no argument 'c'"),
    ],
)
async def test_arguments_that_do_not_fit_are_explained(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArguments, match=message) as caught:
        await add.call(arguments)
    assert "pydantic" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"at": {"y": 1}}, "argument 'at.x' is missing"),
        ({"at": 5}, "argument 'at': Input should be"),
        ({"points": [{"x": 1}, {"x": "no"}]}, r"argument 'points\[1\].x': Input should be a valid integer"),
        ({"colour": "green"}, "argument 'colour': Input should be 'red', not 'green'"),
        ({"size": "m"}, "argument 'size': Input should be 's' or 'l', not 'm'"),
        ({"count": 0}, "argument 'count': Input should be greater than or equal to 1, not 0"),
        ({"day": "soon"}, "argument 'day': .*date"),
        ({"item": "x" * 10, "tags": "y" * 500}, "argument 'tags': .*…"),
    ],
)
async def test_nested_arguments_are_named_by_their_path(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArguments, match=message) as caught:
        await order.call({**ORDER, **arguments})
    assert len(str(caught.value)) < 400


async def test_a_union_s_branches_are_not_named() -> None:
    @tool
    def f(value: int | list[int]) -> None: ...

    with pytest.raises(InvalidArguments, match=r"argument 'value': .*; argument 'value'") as caught:
        await f.call({"value": "x"})
    assert "value.int" not in str(caught.value)


async def test_an_author_s_own_check_reaches_the_model() -> None:
    class Even(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def even(cls, n: int) -> int:
            if n % 2:
                raise ValueError("must be even")
            return n

    def f(value: Any) -> None: ...

    f.__annotations__["value"] = Even
    with pytest.raises(InvalidArguments, match=r"argument 'value\.n': Value error, must be even, not 3"):
        await tool(f).call({"value": {"n": 3}})


async def test_an_alias_is_taken_back_to_its_parameter() -> None:
    @tool
    def f(counter_name: Annotated[str, Field(alias="counterName")]) -> str:
        return counter_name

    assert await f.call({"counterName": "visits"}) == {"result": "visits"}
    with pytest.raises(InvalidArguments, match="no argument 'counter_name'"):
        await f.call({"counter_name": "visits"})


async def test_a_default_given_by_field_is_used() -> None:
    @tool
    def f(value: int = Field(3, ge=1), values: list[int] = Field(default_factory=list)) -> list[Any]:  # noqa: B008 - pydantic's own way
        values.append(value)
        return values

    assert await f.call({}) == {"result": [3]}
    assert await f.call({}) == {"result": [3]}


def positional(context: ToolContext, a: int, /, b: int, *, c: int = 3) -> list[Any]:
    return [context.call_id, a, b, c]


def optional_context(a: int, context: ToolContext | None = None) -> bool:
    return context is None


async def test_the_context_is_passed() -> None:
    assert await tool(positional).call({"a": 1, "b": 2}, ToolContext()) == {"result": ["call", 1, 2, 3]}
    assert await tool(optional_context).call({"a": 1}, ToolContext()) == {"result": False}
    assert await add.call({"a": 1}, ToolContext()) == {"result": 2}
    with pytest.raises(InvalidArguments, match="no argument 'context'"):
        await tool(optional_context).call({"a": 1, "context": {}}, ToolContext())
    with pytest.raises(TypeError, match="takes a ToolContext and was called without one"):
        await tool(positional).call({"a": 1, "b": 2})


VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


async def test_a_sync_function_runs_in_a_thread_with_the_task_s_contextvars() -> None:
    @tool
    def where() -> list[Any]:
        return [threading.current_thread().name, VARIABLE.get()]

    VARIABLE.set("set")
    name, value = (await where.call({}))["result"]
    assert name != threading.current_thread().name
    assert value == "set"
    with ThreadPoolExecutor(1, thread_name_prefix="tools") as executor:
        name, value = (await where.call({}, executor=executor))["result"]
    assert name.startswith("tools")
    assert value == "set"


async def test_an_async_function_runs_on_the_loop() -> None:
    @tool
    async def where() -> bool:
        return threading.current_thread() is threading.main_thread()

    assert await where.call({}) == {"result": True}


async def test_what_the_function_raises_comes_through() -> None:
    @tool
    def fail() -> None:
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        await fail.call({})


async def test_a_stop_iteration_does_not_hang_the_call() -> None:
    @tool
    def first() -> int:
        return next(iter([]))

    async with asyncio.timeout(30):
        with pytest.raises(RuntimeError, match="StopIteration"):
            await first.call({})


@pytest.mark.parametrize(
    ("returned", "result"),
    [
        (None, {"result": None}),
        ("text", {"result": "text"}),
        (1.5, {"result": 1.5}),
        ([1, (2, 3)], {"result": [1, [2, 3]]}),
        ({"a": 1}, {"a": 1}),
        ({}, {}),
        ({1: "a"}, {"1": "a"}),
        (Point(x=1), {"x": 1, "y": 0}),
        ([Point(x=1)], {"result": [{"x": 1, "y": 0}]}),
        (Size(1, Point(x=2)), {"width": 1, "at": {"x": 2, "y": 0}}),
        (Colour.RED, {"result": "red"}),
        (date(2026, 11, 22), {"result": "2026-11-22"}),
        ({"id": UUID(int=1), "price": Decimal("1.10")}, {"id": str(UUID(int=1)), "price": "1.10"}),
        ({"a"}, {"result": ["a"]}),
    ],
)
async def test_results_become_json_objects(returned: Any, result: dict[str, Any]) -> None:
    @tool
    def f() -> Any:
        return returned

    assert await f.call({}) == result


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (b"pdf", r"the result of f is bytes.*save_artifact"),
        ({"file": [b"pdf"]}, r"the result of f\['file'\]\[0\] is bytes"),
        ({"file": Size(1, b"x")}, r"the result of f\['file'\]\['at'\] is bytes"),  # type: ignore[arg-type]
        (object(), "the result of f is a object, which has no JSON form"),
        ([threading.Lock()], r"the result of f\[0\] is a lock"),
        (math.nan, "the result of f is nan"),
        ("a\x00b", r"the result of f contains U\+0000"),
        ([10**4_400], r"the result of f\[0\] has an integer of more than 4,000 digits"),
        ({10**4_400: 1}, "the result of f has an integer of more than 4,000 digits"),
        ({(1, 2): 3}, r"has the key \(1, 2\)"),
    ],
)
async def test_results_that_json_cannot_hold_are_typed_errors(returned: Any, message: str) -> None:
    @tool
    def f() -> Any:
        return returned

    with pytest.raises(InvalidContent, match=message):
        await f.call({})


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"activity": "render"}, "say nothing without task_queue"),
        ({"start_timeout": 5}, "say nothing without task_queue"),
        ({"task_queue": "gpu", "heartbeat_timeout": 5}, "says nothing without activity"),
        ({"task_queue": "gpu", "activity": "render", "long_running": True}, "drop long_running"),
        ({"task_queue": ""}, "non-empty string"),
        ({"task_queue": "gpu", "start_timeout": 0}, "above 0"),
    ],
)
def test_a_place_that_makes_no_sense_is_refused(given: dict[str, Any], why: str) -> None:
    def render(scene: str) -> str:
        return scene

    with pytest.raises(InvalidAgent, match=why):
        tool(render, **given)


def test_an_activity_takes_no_context() -> None:
    def render(scene: str, context: ToolContext) -> str:
        return scene

    assert tool(render, task_queue="gpu").serial
    with pytest.raises(InvalidAgent, match="cannot be given a ToolContext"):
        tool(render, task_queue="gpu", activity="render")
