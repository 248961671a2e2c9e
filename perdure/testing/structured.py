"""Answers that are JSON of a schema, as the stand-in gives them when the request wants that."""

from __future__ import annotations

import re
from typing import Any

from perdure.testing.request import Request
from perdure.types import Json, JsonObject

__all__ = ["problem_with_schema", "value_of", "wanted_schema"]

JSON = "application/json"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_GENERATION = re.compile(r"gemini-(\d+)")


def wanted_schema(request: Request) -> JsonObject | None:
    """The schema that the answer is to fit, where the request names one."""
    config = _config(request)
    for name in ("responseJsonSchema", "responseSchema"):
        if isinstance(schema := config.get(name), dict):
            return schema
    return None


def problem_with_schema(request: Request) -> str | None:
    """What Gemini would answer 400 with for how JSON is asked for."""
    mime_type = _config(request).get("responseMimeType")
    if wanted_schema(request) is not None and mime_type != JSON:
        field = "GenerateContentRequest.generation_config.response_schema"
        return f"* {field}: only allowed with response_mime_type {JSON}\n"
    found = _GENERATION.match(request.model)
    if mime_type == JSON and request.tools and found is not None and int(found[1]) < 3:
        return f"Function calling with a response mime type: '{JSON}' is unsupported"
    return None


def value_of(schema: JsonObject, text: str) -> Json:
    """A value that fits a schema, made of a text: whatever it says, and its numbers in their order."""
    numbers = iter(_NUMBER.findall(text))

    def number(kind: type[int] | type[float]) -> Json:
        return kind(float(next(numbers, "0")))

    def make(node: JsonObject) -> Json:
        node = _resolved(node, schema)
        if node.get("enum"):
            return node["enum"][0]
        kind = node.get("type")
        if kind == "object":
            fields = node.get("properties") or {}
            return {name: make(fields[name]) for name in node.get("required") or ()}
        if kind == "array":
            return [make(node.get("items") or {}) for _ in range(node.get("minItems", 1))]
        if kind in ("integer", "number"):
            return max(number(int if kind == "integer" else float), node.get("minimum", float("-inf")))
        if kind in ("boolean", "null"):
            return True if kind == "boolean" else None
        return text[: node.get("maxLength")]

    return make(schema)


def _resolved(node: JsonObject, schema: JsonObject) -> JsonObject:
    if "$ref" in node:
        return _resolved(schema["$defs"][node["$ref"].rpartition("/")[2]], schema)
    if choices := node.get("anyOf"):
        return _resolved(choices[0], schema)
    return node


def _config(request: Request) -> dict[str, Any]:
    config = request.body.get("generationConfig")
    return config if isinstance(config, dict) else {}
