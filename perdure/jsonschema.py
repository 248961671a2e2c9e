"""From the JSON Schema that pydantic writes to the part of it that Gemini reads.

Gemini documents a subset: it ignores or refuses the rest, and a node with ``$ref`` may
carry nothing else. So references are replaced by what they refer to, unless that refers
to itself; ``const`` becomes an ``enum`` of one; exclusive bounds become inclusive ones
(validation still excludes them); and ``title``, which only repeats the name, goes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from perdure.errors import InvalidAgent
from perdure.types import JsonObject

__all__ = ["LARGEST", "simplify"]

LARGEST = 250_000
"""Characters of one schema. A few definitions that refer to one another twice each come to millions."""

_DEEPEST = 64

_KEPT = (
    frozenset({"type", "format", "description", "enum", "default", "nullable", "pattern", "anyOf"})
    | {"items", "prefixItems", "minItems", "maxItems", "minimum", "maximum", "minLength", "maxLength"}
    | {"properties", "required", "additionalProperties", "minProperties", "maxProperties"}
)
_RENAMED = {"oneOf": "anyOf", "exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
_REF = "#/$defs/"


def simplify(schema: JsonObject, what: str) -> JsonObject:
    """The same schema in Gemini's subset. ``$defs`` remain only for types that contain themselves.

    Args:
        schema: as pydantic writes it.
        what: whose it is, for errors.

    Raises:
        InvalidAgent: it is too large, or too deep, once references are replaced by what they refer to.
    """
    definitions: dict[str, JsonObject] = schema.get("$defs", {})
    graph = {name: frozenset(_references(node)) for name, node in definitions.items()}
    recursive = {name for name in definitions if name in _reachable(graph[name], graph)}
    simple = _Simplifier(definitions, recursive, what)
    result: JsonObject = simple.node(schema)
    used = _reachable(_references(result), graph) & recursive
    if used:
        result["$defs"] = {name: simple.node(definitions[name]) for name in sorted(used)}
    return result


class _Simplifier:
    def __init__(self, definitions: dict[str, JsonObject], recursive: set[str], what: str) -> None:
        self._definitions = definitions
        self._recursive = recursive
        self._what = what
        self._depth = 0
        self._size = 0

    def node(self, schema: Any) -> Any:
        if not isinstance(schema, dict):  # additionalProperties may be true or false
            return schema
        self._depth += 1
        if self._depth > _DEEPEST:
            raise InvalidAgent(f"{self._what} has a schema of more than {_DEEPEST} levels")
        simple = self._node(schema)
        self._depth -= 1
        return simple

    def _node(self, schema: JsonObject) -> Any:
        if "$ref" in schema:
            return self._reference(schema)
        if "allOf" in schema and len(schema["allOf"]) == 1:
            return self.node({**schema["allOf"][0], **{k: v for k, v in schema.items() if k != "allOf"}})
        simple: JsonObject = {}
        for keyword, value in schema.items():
            name = _RENAMED.get(keyword, keyword)
            if keyword == "const":
                simple["enum"] = [self._counted(value)]
            elif name in _KEPT:
                simple.setdefault(name, self._value(name, value))
        self._count(sum(map(len, simple)))
        return simple

    def _reference(self, schema: JsonObject) -> JsonObject:
        name = schema["$ref"].removeprefix(_REF)
        if name in self._recursive:
            return {"$ref": schema["$ref"]}
        beside = {keyword: value for keyword, value in schema.items() if keyword != "$ref"}
        simple: JsonObject = self.node({**self._definitions[name], **beside})
        return simple

    def _value(self, keyword: str, value: Any) -> Any:
        if keyword == "properties":
            return {self._counted(name): self.node(schema) for name, schema in value.items()}
        if keyword in ("anyOf", "prefixItems"):
            return [self.node(schema) for schema in value]
        if keyword in ("items", "additionalProperties"):
            return self.node(value)
        return self._counted(value)

    def _counted(self, value: Any) -> Any:
        self._count(len(value) if isinstance(value, str) else len(json.dumps(value)))
        return value

    def _count(self, characters: int) -> None:
        self._size += characters
        if self._size > LARGEST:
            raise InvalidAgent(
                f"{self._what} has a schema of more than {LARGEST} characters, its references followed"
            )


def _reachable(names: Iterable[str], graph: Mapping[str, Iterable[str]]) -> set[str]:
    """The definitions that these names lead to, directly or through others."""
    found: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(graph[name])
    return found


def _references(schema: Any) -> Iterator[str]:
    """The names of the definitions that a schema refers to."""
    if isinstance(schema, dict):
        if isinstance(reference := schema.get("$ref"), str):
            yield reference.removeprefix(_REF)
        for keyword, value in schema.items():
            if keyword == "properties" and isinstance(value, dict):  # whatever they are called
                yield from _references(list(value.values()))
            elif keyword not in ("$defs", "default", "enum", "const", "examples"):
                yield from _references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _references(item)
