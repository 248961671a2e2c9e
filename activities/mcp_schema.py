"""The schema of an MCP server's tool, in the part of JSON Schema that Gemini reads."""

from __future__ import annotations

from typing import Any

from perdure.errors import InvalidAgent
from perdure.jsonschema import simplify
from perdure.types import JsonObject

__all__ = ["fitted_schema"]

_DEEPEST = 32
_FROM = ("#/$defs/", "#/definitions/")
_SCHEMAS = frozenset({"items", "additionalProperties"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})


def fitted_schema(schema: JsonObject, what: str) -> JsonObject:
    """The schema of a tool's arguments, as the model can be shown it.

    References are followed, ``allOf`` is merged, and what Gemini does not read is left out: the server
    checks the arguments by the whole.

    Args:
        schema: as the server lists it.
        what: the tool, for errors.

    Raises:
        InvalidAgent: it refers to what is not in it, or is nested without end.
    """
    definitions = {**(schema.get("definitions") or {}), **(schema.get("$defs") or {})}
    plain = _plain({name: value for name, value in schema.items() if name != "definitions"}, what, 0)
    plain["$defs"] = {name: _plain(value, what, 0) for name, value in definitions.items()}
    _check_references(plain, frozenset(definitions), what)
    return simplify({"type": "object", **plain})


def _plain(node: Any, what: str, depth: int) -> Any:
    """The node with references in one form, one schema for ``allOf``, and objects where booleans stood."""
    if depth > _DEEPEST:
        raise InvalidAgent(
            f"{what} has a schema of more than {_DEEPEST} levels; leave it out with without=[...]"
        )
    if not isinstance(node, dict):
        return {}
    plain: JsonObject = {}
    for keyword, value in node.items():
        if keyword == "properties" and isinstance(value, dict):
            plain[keyword] = {name: _plain(each, what, depth + 1) for name, each in value.items()}
        elif keyword in _LISTS and isinstance(value, list):
            plain[keyword] = [_plain(each, what, depth + 1) for each in value]
        elif keyword in _SCHEMAS and not (isinstance(value, bool) and keyword == "additionalProperties"):
            plain[keyword] = _plain(value, what, depth + 1)
        elif keyword == "$ref" and isinstance(value, str):
            plain[keyword] = value.replace(_FROM[1], _FROM[0], 1) if value.startswith(_FROM[1]) else value
        elif keyword != "$defs":
            plain[keyword] = value
    return _merged(plain) if len(plain.get("allOf", ())) > 1 else plain


def _merged(node: JsonObject) -> JsonObject:
    """One schema for those that all have to hold; of what two say, the first counts."""
    merged: JsonObject = {name: value for name, value in node.items() if name != "allOf"}
    for each in node["allOf"]:
        for keyword, value in each.items():
            if keyword == "properties":
                merged[keyword] = {**value, **merged.get(keyword, {})}
            elif keyword == "required":
                merged[keyword] = list(dict.fromkeys([*merged.get(keyword, ()), *value]))
            else:
                merged.setdefault(keyword, value)
    return merged


def _check_references(node: Any, known: frozenset[str], what: str) -> None:
    if isinstance(node, list):
        for each in node:
            _check_references(each, known, what)
    if not isinstance(node, dict):
        return
    reference = node.get("$ref")
    if isinstance(reference, str) and reference.removeprefix(_FROM[0]) not in known:
        raise InvalidAgent(
            f"{what} has a schema that refers to {reference!r}, which is not in it; "
            "leave it out with without=[...]"
        )
    for value in node.values():
        _check_references(value, known, what)
