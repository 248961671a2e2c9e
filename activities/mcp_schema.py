"""The schema of an MCP server's tool, in the part of JSON Schema that Gemini reads.

A server writes what it likes. So whatever is no schema is left out, references are followed wherever in the
schema they point, and one that would grow without end is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from perdure.errors import InvalidAgent
from perdure.jsonschema import simplify
from perdure.types import JsonObject

__all__ = ["fitted_schema"]

_DEEPEST = 32
_MOST_DEFINITIONS = 500
_REF = "#/$defs/"
_SCHEMAS = frozenset({"items", "additionalProperties"})
_LISTS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_TEXTS = frozenset({"format", "description", "pattern"})
_NUMBERS = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "minLength", "maxLength"}
) | frozenset({"minItems", "maxItems", "minProperties", "maxProperties"})
_ANY = frozenset({"default", "const"})
_FOREIGN = re.compile(r"[^A-Za-z0-9_.-]")


def fitted_schema(schema: JsonObject, what: str) -> JsonObject:
    """The schema of a tool's arguments, as the model can be shown it.

    References are followed, ``allOf`` is merged, and what Gemini does not read is left out: the server
    checks the arguments by the whole.

    Args:
        schema: as the server lists it.
        what: the tool, for errors.

    Raises:
        InvalidAgent: it refers to what is not in it, is nested too deep, or is too large once its references
            are followed.
    """
    try:
        return _Fitting(schema, what).fitted()
    except InvalidAgent as error:
        raise InvalidAgent(f"{error}; leave it out with without=[...]") from None


class _Fitting:
    def __init__(self, schema: JsonObject, what: str) -> None:
        self._schema = schema
        self._what = what
        self._names: dict[str, str] = {}
        """What is referred to, by the names that it gets."""
        self._found: list[tuple[str, Any]] = []
        """What was referred to and is still to be made to fit."""

    def fitted(self) -> JsonObject:
        plain = self._plain(self._schema, 0)
        definitions: dict[str, Any] = {}
        while self._found:
            name, node = self._found.pop()
            definitions[name] = self._plain(node, 0)
        for name in definitions:
            if _refers_to_itself(name, definitions):
                definitions[name] = {}
        return simplify({"type": "object", **plain, "$defs": definitions}, self._what)

    def _plain(self, node: Any, depth: int) -> JsonObject:
        """The node with what is sound of it, references in one form, and one schema for ``allOf``."""
        if depth > _DEEPEST:
            raise InvalidAgent(f"{self._what} has a schema of more than {_DEEPEST} levels")
        if not isinstance(node, Mapping):
            return {}
        plain: JsonObject = {}
        for keyword, value in node.items():
            if keyword == "properties" and isinstance(value, Mapping):
                plain[keyword] = {name: self._plain(each, depth + 1) for name, each in value.items()}
            elif keyword in _LISTS and isinstance(value, list):
                plain[keyword] = [self._plain(each, depth + 1) for each in value]
            elif keyword == "additionalProperties" and isinstance(value, bool):
                plain[keyword] = value
            elif keyword in _SCHEMAS:
                plain[keyword] = self._plain(value, depth + 1)
            elif keyword == "$ref" and isinstance(value, str):
                plain[keyword] = _REF + self._name_of(value)
            elif _is_sound(keyword, value):
                plain[keyword] = value
        return _merged(plain) if plain.get("allOf") else plain

    def _name_of(self, reference: str) -> str:
        known = self._names.get(reference)
        if known is not None:
            return known
        if len(self._names) >= _MOST_DEFINITIONS:
            raise InvalidAgent(f"{self._what} has a schema with more than {_MOST_DEFINITIONS} definitions")
        node = self._at(reference)
        last = _FOREIGN.sub("_", reference.rpartition("/")[2].strip("#")) or "root"
        name, taken = last, set(self._names.values())
        while name in taken:
            name = f"{last}_{len(taken)}_{len(name)}"
        self._names[reference] = name
        self._found.append((name, node))
        return name

    def _at(self, reference: str) -> Any:
        """What a reference points to.

        Raises:
            InvalidAgent: that is not in the schema.
        """
        missing = InvalidAgent(f"{self._what} has a schema that refers to {reference!r}, which is not in it")
        root, *steps = unquote(reference).split("/")
        if root != "#":
            raise missing
        node: Any = self._schema
        for step in steps:
            key = step.replace("~1", "/").replace("~0", "~")
            try:
                node = node[int(key)] if isinstance(node, list) else node[key]
            except (LookupError, TypeError, ValueError):
                raise missing from None
        return node


def _is_sound(keyword: str, value: Any) -> bool:
    """Whether it says something, and in the form that it has to have."""
    if keyword in _TEXTS:
        return isinstance(value, str)
    if keyword in _NUMBERS:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if keyword == "type":
        return isinstance(value, str) or (isinstance(value, list) and _all_texts(value))
    if keyword == "required":
        return isinstance(value, list) and _all_texts(value)
    if keyword == "enum":
        return isinstance(value, list)
    return keyword in _ANY or (keyword == "nullable" and isinstance(value, bool))


def _all_texts(values: list[Any]) -> bool:
    return all(isinstance(each, str) for each in values)


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


def _refers_to_itself(name: str, definitions: Mapping[str, Any]) -> bool:
    """Whether there is nothing to it but references that lead back to it."""
    seen = {name}
    while reference := definitions[name].get("$ref"):
        name = reference.removeprefix(_REF)
        if name in seen:
            return True
        seen.add(name)
    return False
