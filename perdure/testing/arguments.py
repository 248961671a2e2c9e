"""Fills a tool's arguments from a sentence, by its JSON schema."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from perdure.testing.words import camel, name_words, numbers, quoted, unquoted, words
from perdure.types import JsonObject

__all__ = ["argument_sets", "schema_of"]

_FILE = re.compile(r"[\w-]+(?:/[\w-]+)*\.[A-Za-z][A-Za-z0-9]{0,4}\b")
_BOUNDARY = frozenset(
    ["as", "at", "by", "for", "from", "in", "into", "please", "show", "so", "then", "to", "with"]
)
_FILLER = frozenset(
    {
        "a",
        "all",
        "an",
        "and",
        "current",
        "each",
        "every",
        "it",
        "its",
        "me",
        "my",
        "of",
        "our",
        "that",
        "the",
        "these",
        "this",
        "those",
        "us",
        "value",
        "values",
        "your",
    }
)
_NOT = re.compile(r"\b(no|not|don't|do not|without|never|off|false)\b", re.IGNORECASE)


@dataclass(kw_only=True)
class _Found:
    """What a sentence offers; each is used once."""

    text: str
    strings: list[str] = field(default_factory=list[str])
    numbers: list[float] = field(default_factory=list[float])

    def take_string(self, name: str) -> str | None:
        files = [value for value in self.strings if _FILE.fullmatch(value)]
        wants_file = any(word in camel(name) for word in ("file", "path", "document"))
        chosen = next(iter(files if wants_file and files else self.strings), None)
        if chosen is not None:
            self.strings.remove(chosen)
        return chosen


def argument_sets(declaration: Mapping[str, Any], text: str) -> list[JsonObject]:
    """The arguments of each call that the sentence asks for: several names, several calls."""
    schema = schema_of(declaration)
    properties: dict[str, JsonObject] = schema.get("properties") or {}
    required = set(schema.get("required") or ())
    strings = quoted(text) or _names(declaration, text)
    amounts = numbers(text)
    plain = [name for name, prop in properties.items() if _kind(prop) == "string" and "enum" not in prop]
    listed = any(_kind(prop) == "array" for prop in properties.values())
    if len(plain) == 1 and len(strings) > 1 and not listed:
        each = amounts if len(amounts) == len(strings) else []
        founds = [
            _Found(text=text, strings=[value], numbers=[each[index]] if each else list(amounts))
            for index, value in enumerate(strings)
        ]
    else:
        founds = [_Found(text=text, strings=list(strings), numbers=list(amounts))]
    return [_fill(properties, required, found) for found in founds]


def schema_of(declaration: Mapping[str, Any]) -> JsonObject:
    """The parameters of a function declaration as one JSON schema, references resolved."""
    forms = ("parametersJsonSchema", "parameters_json_schema", "parameters")
    schema: Any = next((declaration[form] for form in forms if declaration.get(form)), {})
    resolved = _resolve(schema, schema.get("$defs") or {}, depth=0)
    return resolved if isinstance(resolved, dict) else {}


def _resolve(node: Any, defs: Mapping[str, Any], depth: int) -> Any:
    if isinstance(node, list):
        return [_resolve(item, defs, depth) for item in node]
    if not isinstance(node, dict) or depth > 20:
        return node
    if "$ref" in node:
        return _resolve(defs.get(str(node["$ref"]).rsplit("/", 1)[-1], {}), defs, depth + 1)
    found = {key: _resolve(value, defs, depth + 1) for key, value in node.items() if key != "$defs"}
    variants = [one for one in found.get("anyOf") or () if str(one.get("type")).lower() != "null"]
    return {**found, **variants[0]} if variants else found


def _kind(prop: Mapping[str, Any]) -> str:
    kind = prop.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), "string")
    return str(kind or ("object" if "properties" in prop else "string")).lower()


def _fill(properties: Mapping[str, JsonObject], required: set[str], found: _Found) -> JsonObject:
    args: JsonObject = {}
    for name, prop in properties.items():
        value = _value(name, prop, found, needed=name in required)
        if value is not None:
            args[name] = value
    return args


def _value(name: str, prop: JsonObject, found: _Found, *, needed: bool) -> Any:
    kind = _kind(prop)
    if "enum" in prop:
        return _choice(prop["enum"], found.text, needed=needed)
    if kind in ("integer", "number"):
        if found.numbers:
            number = found.numbers.pop(0)
            return int(number) if number.is_integer() else number
        return 1 if needed else None
    if kind == "boolean":
        named = any(word in words(found.text) for word in name_words(name))
        return not _NOT.search(found.text) if named or needed else None
    if kind == "array":
        return _many(prop, found, needed=needed)
    if kind == "object":
        inner = _fill(prop.get("properties") or {}, set(prop.get("required") or ()), found)
        return inner if inner or needed else None
    return found.take_string(name) or (found.text.strip() if needed else None)


def _many(prop: JsonObject, found: _Found, *, needed: bool) -> list[Any] | None:
    source: list[Any] = found.strings
    if _kind(prop.get("items") or {}) in ("integer", "number"):
        source = found.numbers
    values = [int(value) if isinstance(value, float) and value.is_integer() else value for value in source]
    source.clear()
    return values if values or needed else None


def _choice(options: list[Any], text: str, *, needed: bool) -> Any:
    lower = text.lower()
    named = next((option for option in options if str(option).lower() in lower), None)
    return named if named is not None or not needed else options[0]


def _names(declaration: Mapping[str, Any], text: str) -> list[str]:
    """Names that stand in the sentence without quotation marks: "increment logins and clicks by 2"."""
    text = unquoted(text)
    if files := _FILE.findall(text):
        return files
    if named := re.findall(r"\b(?:named|called)\s+([\w-]+)", text):
        return named
    known = set(name_words(str(declaration.get("name", ""))))
    after = _after_verb(text, known)
    segments = re.split(r",|\band\b", after)
    names = [" ".join(word for word in segment.split() if _is_name(word, known)) for segment in segments]
    return [name for name in names if name]


def _after_verb(text: str, known: set[str]) -> str:
    tokens = re.findall(r"[\w-]+|[,.;!?]", text)
    start = next((i + 1 for i, token in enumerate(tokens) if set(words(token)) & known), 0)
    kept: list[str] = []
    for token in tokens[start:]:
        if token.lower() in _BOUNDARY or token in ".;!?":
            break
        kept.append(token)
    return " ".join(kept)


def _is_name(word: str, known: set[str]) -> bool:
    return word.lower() not in _FILLER and not set(words(word)) & known and not word.isdigit()
