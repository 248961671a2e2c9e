"""Named numbers in a conversation, and their latest values: what a summary must not lose."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from perdure.types import JsonObject

__all__ = ["facts_in_text", "facts_of", "new_value", "number_map", "spoken"]

Facts = dict[str, int | float]

_NAME_KEYS = ("counter_name", "counterName", "counter", "name", "key")
_VALUE_KEYS = ("new_value", "newValue", "value", "total", "count")
_SENTENCE = re.compile(r"'([^'\n]{1,80})' \w+ by -?[\d.]+\. The new value is (-?\d+(?:\.\d+)?)")
_LISTED = re.compile(r"\b(?:counters|values|numbers)(?: are)?: ([^\n]*?)(?:\.(?:\s|$)|$)", re.IGNORECASE)
_PAIR = re.compile(r"(?:and )?([^,:={}\"']{1,80}?)(?: is |: |=| = | )(-?\d+(?:\.\d+)?)")


def facts_of(contents: Sequence[JsonObject]) -> Facts:
    """The latest value of each named number in a conversation."""
    facts: Facts = {}
    for content in contents:
        for part in content.get("parts") or ():
            response = (part.get("functionResponse") or {}).get("response")
            if isinstance(response, Mapping):
                _take_response(facts, response)
            elif isinstance(part.get("text"), str) and not part.get("thought"):
                facts.update(facts_in_text(part["text"]))
    return facts


def facts_in_text(text: str) -> Facts:
    """The same for a transcript, a reply, or an earlier summary."""
    facts: Facts = {}
    for line in text.splitlines():
        for value in _json_in(line):
            _take_response(facts, value)
        for name, number in _SENTENCE.findall(line):
            _put(facts, name, number)
        for listing in _LISTED.findall(line):
            for item in listing.split(", "):
                if pair := _PAIR.fullmatch(item.strip()):
                    _put(facts, *pair.groups())
    return facts


def new_value(response: Mapping[str, Any]) -> tuple[str, int | float] | None:
    """The name and the number in a response such as ``{"counter_name": "visits", "new_value": 1}``."""
    name = next((response[key] for key in _NAME_KEYS if isinstance(response.get(key), str)), None)
    value = next((response[key] for key in _VALUE_KEYS if _is_number(response.get(key))), None)
    return (name, value) if name is not None and value is not None else None


def number_map(response: Mapping[str, Any]) -> Facts | None:
    """The mapping of names to numbers that a response is, or holds as its only value."""
    if len(response) == 1:
        inner = next(iter(response.values()))
        if isinstance(inner, Mapping):
            return number_map(inner) if inner else {}
        if "result" in response:
            return None  # What a tool returned that returned no object.
    if response and all(_is_number(value) for value in response.values()):
        return dict(response)
    return None


def spoken(facts: Mapping[str, int | float]) -> str:
    """Facts in words, sorted: "clicks 2, visits 5"."""
    return ", ".join(f"{name} {value}" for name, value in sorted(facts.items()))


def _take_response(facts: Facts, response: Mapping[str, Any]) -> None:
    if found := new_value(response):
        facts[found[0]] = found[1]
    elif found_map := number_map(response):
        facts.update(found_map)
    else:
        for value in response.values():
            if isinstance(value, Mapping):
                _take_response(facts, value)


def _json_in(line: str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects in a line such as ``show_counters returned {...}``; not the arguments of a call."""
    start = line.find("{")
    while start >= 0:
        try:
            value, end = json.JSONDecoder().raw_decode(line, start)
        except ValueError:
            start = line.find("{", start + 1)
            continue
        if isinstance(value, dict) and not line[:start].endswith("("):
            yield value
        start = line.find("{", end)


def _put(facts: Facts, name: str, number: str) -> None:
    facts[name.strip()] = float(number) if "." in number else int(number)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
