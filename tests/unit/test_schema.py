"""Declarations: what the model is told of a function's parameters."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from google.genai import types as genai
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from perdure import ToolContext, tool
from perdure.docstrings import parse
from perdure.errors import InvalidAgent
from perdure.types import JsonObject

if TYPE_CHECKING:
    from collections.abc import Mapping as OnlyForTypeCheckers


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    """A place."""

    x: int
    y: int = 0


class Line(BaseModel):
    title: str
    start: Point
    end: Point = Field(description="where it ends")


class Tree(BaseModel):
    value: int
    children: list[Tree] = []


class Options(TypedDict, total=False):
    loud: bool


@dataclass
class Size:
    width: float


def properties(function: Callable[..., Any]) -> JsonObject:
    found: JsonObject = tool(function).parameters["properties"]
    return found


def only(function: Callable[..., Any]) -> JsonObject:
    (found,) = properties(function).values()
    assert isinstance(found, dict)
    return found


def test_a_declaration_is_what_google_genai_takes() -> None:
    def book(city: str, nights: int = 1) -> str:
        """Book a hotel.

        Any hotel.

        Args:
            city: Where
                to stay.
            nights: How long.

        Returns:
            The booking.
        """
        return f"{city} {nights}"

    declaration = tool(book).declaration
    assert declaration == {
        "name": "book",
        "description": "Book a hotel.\n\nAny hotel.",
        "parametersJsonSchema": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Where to stay."},
                "nights": {"type": "integer", "description": "How long.", "default": 1},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    }
    parsed = genai.FunctionDeclaration.model_validate(declaration)
    assert parsed.model_dump(by_alias=True, exclude_none=True) == declaration
    assert list(properties(book)) == ["city", "nights"]


def test_without_parameters_there_is_no_schema() -> None:
    def ping() -> None: ...

    assert tool(ping).declaration == {"name": "ping"}


def any_value(value: Any) -> None: ...
def text(value: str) -> None: ...
def number(value: float) -> None: ...
def flag(value: bool) -> None: ...
def optional(value: str | None = None) -> None: ...
def items(value: list[int]) -> None: ...
def mapping(value: dict[str, int]) -> None: ...
def pair(value: tuple[int, str]) -> None: ...
def names(value: set[str]) -> None: ...
def colour(value: Colour = Colour.RED) -> None: ...
def mode(value: Literal["fast", "slow"]) -> None: ...
def single(value: Literal["only"]) -> None: ...
def day(value: date) -> None: ...
def union(value: int | list[str]) -> None: ...
def described(value: Annotated[int, Field(description="a number", ge=1, lt=10)]) -> None: ...
def by_default(value: int = Field(3, description="a number", gt=1)) -> None: ...
def point(value: Point) -> None: ...
def options(value: Options) -> None: ...
def size(value: Size) -> None: ...
def odd_default(value: Any = print) -> None: ...


@pytest.mark.parametrize(
    ("function", "schema"),
    [
        (any_value, {}),
        (text, {"type": "string"}),
        (number, {"type": "number"}),
        (flag, {"type": "boolean"}),
        (optional, {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}),
        (items, {"type": "array", "items": {"type": "integer"}}),
        (mapping, {"type": "object", "additionalProperties": {"type": "integer"}}),
        (
            pair,
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (names, {"type": "array", "items": {"type": "string"}}),
        (colour, {"type": "string", "enum": ["red", "blue"], "default": "red"}),
        (mode, {"type": "string", "enum": ["fast", "slow"]}),
        (single, {"type": "string", "enum": ["only"]}),
        (day, {"type": "string", "format": "date"}),
        (union, {"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "string"}}]}),
        (described, {"type": "integer", "description": "a number", "minimum": 1, "maximum": 10}),
        (by_default, {"type": "integer", "description": "a number", "minimum": 1, "default": 3}),
        (
            point,
            {
                "type": "object",
                "description": "A place.",
                "properties": {"x": {"type": "integer"}, "y": {"type": "integer", "default": 0}},
                "required": ["x"],
            },
        ),
        (
            options,
            {"type": "object", "properties": {"loud": {"type": "boolean"}}, "additionalProperties": False},
        ),
        (
            size,
            {
                "type": "object",
                "properties": {"width": {"type": "number"}},
                "required": ["width"],
                "additionalProperties": False,
            },
        ),
        (odd_default, {}),
    ],
)
def test_types(function: Callable[..., Any], schema: JsonObject) -> None:
    assert only(function) == schema


def test_nested_models_are_inlined_and_a_property_may_be_called_title() -> None:
    def draw(line: Line) -> None:
        """Draw.

        Args:
            line: What to draw.
        """

    schema = tool(draw).parameters
    assert "$ref" not in json.dumps(schema)
    assert "$defs" not in schema
    line = schema["properties"]["line"]
    assert line["description"] == "What to draw."
    assert line["properties"]["title"] == {"type": "string"}
    assert line["properties"]["start"]["description"] == "A place."
    assert line["properties"]["end"]["description"] == "where it ends"
    assert line["properties"]["end"]["properties"]["y"] == {"type": "integer", "default": 0}


def test_a_type_that_contains_itself_keeps_its_reference() -> None:
    def plant(tree: Tree, near: Point) -> None: ...

    schema = tool(plant).parameters
    assert schema["properties"]["tree"] == {"$ref": "#/$defs/Tree"}
    assert list(schema["$defs"]) == ["Tree"]
    assert schema["$defs"]["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}
    assert schema["properties"]["near"]["type"] == "object"


def test_discriminated_unions_become_any_of() -> None:
    class Cat(BaseModel):
        kind: Literal["cat"]

    class Dog(BaseModel):
        kind: Literal["dog"]

    def adopt(pet: Any) -> None: ...

    adopt.__annotations__["pet"] = Annotated[Cat | Dog, Field(discriminator="kind")]
    schema = only(adopt)
    assert set(schema) == {"anyOf"}
    assert [pet["properties"]["kind"]["enum"] for pet in schema["anyOf"]] == [["cat"], ["dog"]]


def numpy_style(a: int, b: int) -> None:
    """Add.

    Parameters
    ----------
    a : int
        The first.
    b : int
        The second
        one.
    """


def sphinx_style(a: int, b: int) -> None:
    """Add.

    :param a: The first.
    :param int b: The second
        one."""


def google_style(a: int, b: int) -> None:
    """Add.

    Args:
        a (int): The first.
        b: The second
            one.
    """


@pytest.mark.parametrize("function", [numpy_style, sphinx_style, google_style])
def test_docstring_styles(function: Callable[..., Any]) -> None:
    declared = tool(function)
    assert declared.description == "Add."
    assert {name: schema["description"] for name, schema in properties(function).items()} == {
        "a": "The first.",
        "b": "The second one.",
    }


@pytest.mark.parametrize("docstring", [None, "", "   \n "])
def test_no_docstring(docstring: str | None) -> None:
    assert parse(docstring) == ("", {})


def test_the_text_before_the_first_section_is_the_description() -> None:
    assert parse("One: two.\n\nThree.\n\nNote:\n    No.\n\nArgs:\n    x: It.\n\nAfter.") == (
        "One: two.\n\nThree.",
        {"x": "It."},
    )


def test_the_annotation_s_description_wins_over_the_docstring_s() -> None:
    def f(x: Annotated[int, Field(description="from the annotation")]) -> None:
        """Do.

        Args:
            x: from the docstring
        """

    assert only(f)["description"] == "from the annotation"


def test_an_alias_is_the_name_the_model_sees() -> None:
    def f(counter_name: Annotated[str, Field(alias="counterName")]) -> str:
        return counter_name

    assert list(properties(f)) == ["counterName"]


def test_names_that_pydantic_keeps_for_itself_are_good_names() -> None:
    def f(model_config: int, copy: int, json: int, _private: int, schema: int = 1) -> None: ...

    assert list(properties(f)) == ["model_config", "copy", "json", "_private", "schema"]


def with_context(a: int, context: ToolContext) -> None: ...
def with_optional_context(a: int, context: ToolContext | None = None) -> None: ...
def with_annotated_context(a: int, context: Annotated[ToolContext, "it"]) -> None: ...
def with_positional_context(context: ToolContext, a: int, /) -> None: ...


@pytest.mark.parametrize(
    "function", [with_context, with_optional_context, with_annotated_context, with_positional_context]
)
def test_the_context_is_found_by_its_annotation_and_not_declared(function: Callable[..., Any]) -> None:
    assert list(properties(function)) == ["a"]
    assert tool(function).takes_context


def test_a_context_that_is_imported_for_type_checkers_only_is_found() -> None:
    namespace: dict[str, Any] = {}
    exec("def f(a: 'int', context: 'ToolContext', b: 'int' = 1): ...", namespace)
    declared = tool(namespace["f"])
    assert declared.takes_context
    assert list(declared.parameters["properties"]) == ["a", "b"]


def test_a_return_type_for_type_checkers_only_does_no_harm() -> None:
    def f(a: int) -> OnlyForTypeCheckers[str, int]:
        return {"a": a}

    assert list(properties(f)) == ["a"]


def test_what_a_partial_binds_is_not_declared() -> None:
    def f(a: int, b: int, c: int = 3) -> None:
        """Do it."""

    assert list(properties(functools.partial(f, 1, c=4))) == ["b"]
    assert tool(functools.partial(f, 1)).description == "Do it."


def star(*values: int) -> None: ...
def stars(**values: int) -> None: ...
def untyped(value) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001, RUF100
def method(self, value: int) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001, RUF100
def two_contexts(a: ToolContext, b: ToolContext) -> None: ...
def unresolved(value: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - the point
def nested_unresolved(value: list[Nowhere]) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - the point
def foreign(value: Path | doctest) -> None: ...  # type: ignore[name-defined]  # noqa: F821 - the point
def function_typed(value: Callable[[int], int]) -> None: ...
def unicode_name(größe: int) -> None: ...  # noqa: PLC2401, RUF100
def bad_alias(value: Annotated[int, Field(alias="a-b")]) -> None: ...
def not_a_type(value: 1 + 1) -> None: ...  # type: ignore[valid-type]


class Strange:
    pass


def arbitrary(value: Strange) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (star, "parameter 'values' of tool 'star' takes any number of arguments.*name each parameter"),
        (stars, "parameter 'values' of tool 'stars' takes any number of arguments"),
        (untyped, "parameter 'value' of tool 'untyped' has no type; annotate it"),
        (method, r"parameter 'self' of tool 'method' has no type; declare methods when they are bound"),
        (two_contexts, "two ToolContext parameters, 'a' and 'b'"),
        (unresolved, "annotated 'Nowhere', but there is no 'Nowhere' in its module"),
        (nested_unresolved, "there is no 'Nowhere' in its module"),
        (foreign, "there is no 'doctest' in its module"),
        (function_typed, "parameter of tool 'function_typed' has no JSON Schema"),
        (unicode_name, "parameter 'größe' of tool 'unicode_name': Gemini takes names"),
        (bad_alias, "has the alias 'a-b'; Gemini takes names"),
        (not_a_type, "has a type that pydantic cannot check: Unable to generate pydantic-core schema for 2;"),
        (arbitrary, "parameter of tool 'arbitrary' has a type that pydantic cannot check"),
    ],
)
def test_what_cannot_be_declared_says_why(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(InvalidAgent, match=message) as caught:
        tool(function)
    assert "errors.pydantic.dev" not in str(caught.value)


def test_a_model_with_a_field_that_cannot_be_resolved() -> None:
    class Broken(BaseModel):
        other: Nowhere  # type: ignore[name-defined]  # noqa: F821 - the point

    def f(value: Any) -> None: ...

    f.__annotations__["value"] = Broken
    with pytest.raises(InvalidAgent, match="tool 'f' needs the type 'Nowhere', which is not defined"):
        tool(f)
