"""From the JSON Schema that pydantic writes to the part of it that Gemini reads.

Gemini documents a subset: it ignores or refuses the rest, and a node with ``$ref`` may
carry nothing else. So references are replaced by what they refer to, unless that refers
to itself; ``const`` becomes an ``enum`` of one; exclusive bounds become inclusive ones
(validation still excludes them); and ``title``, which only repeats the name, goes.
"""

from __future__ import annotations

from typing import Any

from perdure.types import JsonObject

__all__ = ["simplify"]

_KEPT = (
    frozenset({"type", "format", "description", "enum", "default", "nullable", "pattern", "anyOf"})
    | {"items", "prefixItems", "minItems", "maxItems", "minimum", "maximum", "minLength", "maxLength"}
    | {"properties", "required", "additionalProperties", "minProperties", "maxProperties"}
)
_RENAMED = {"oneOf": "anyOf", "exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
_REF = "#/$defs/"


def simplify(schema: JsonObject) -> JsonObject:
    """The same schema in Gemini's subset. ``$defs`` remain only for types that contain themselves."""
    definitions: dict[str, JsonObject] = schema.get("$defs", {})
    recursive = {name for name in definitions if name in _reachable(definitions[name], definitions, set())}
    simple = _Simplifier(definitions, recursive)
    result: JsonObject = simple.node(schema)
    used = _reachable(result, {name: simple.node(definitions[name]) for name in recursive}, set())
    if used:
        result["$defs"] = {name: simple.node(definitions[name]) for name in sorted(used)}
    return result


class _Simplifier:
    def __init__(self, definitions: dict[str, JsonObject], recursive: set[str]) -> None:
        self._definitions = definitions
        self._recursive = recursive

    def node(self, schema: Any) -> Any:
        if not isinstance(schema, dict):  # additionalProperties may be true or false
            return schema
        if "$ref" in schema:
            return self._reference(schema)
        if "allOf" in schema and len(schema["allOf"]) == 1:
            return self.node({**schema["allOf"][0], **{k: v for k, v in schema.items() if k != "allOf"}})
        simple: JsonObject = {}
        for keyword, value in schema.items():
            name = _RENAMED.get(keyword, keyword)
            if keyword == "const":
                simple["enum"] = [value]
            elif name in _KEPT:
                simple.setdefault(name, self._value(name, value))
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
            return {name: self.node(schema) for name, schema in value.items()}
        if keyword in ("anyOf", "prefixItems"):
            return [self.node(schema) for schema in value]
        if keyword in ("items", "additionalProperties"):
            return self.node(value)
        return value


def _reachable(schema: Any, definitions: dict[str, JsonObject], found: set[str]) -> set[str]:
    """The names of the definitions that a schema refers to, directly or through others."""
    if isinstance(schema, dict):
        reference = schema.get("$ref")
        if isinstance(reference, str) and (name := reference.removeprefix(_REF)) not in found:
            found.add(name)
            _reachable(definitions[name], definitions, found)
        for keyword, value in schema.items():
            if keyword not in ("$defs", "default", "enum", "const", "examples"):
                _reachable(value, definitions, found)
    elif isinstance(schema, list):
        for item in schema:
            _reachable(item, definitions, found)
    return found
