"""Says in words what tools returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perdure.testing.facts import new_value, number_map
from perdure.testing.words import camel
from perdure.types import JsonObject

__all__ = ["answer_in_words"]

_IRREGULAR = {"get": "got", "set": "set", "send": "sent", "write": "written", "read": "read", "run": "run"}
_LONGEST = 300


def answer_in_words(calls: Sequence[JsonObject], responses: Sequence[JsonObject]) -> str:
    """One sentence or two for each response, in call order.

    Args:
        calls: the ``functionCall`` objects of the turn.
        responses: the ``functionResponse`` objects, one for each.
    """
    sentences = []
    for index, response in enumerate(responses):
        call = calls[index] if index < len(calls) else {}
        body = response.get("response")
        sentences.append(
            _sentence(str(response.get("name", "")), call, body if isinstance(body, Mapping) else {})
        )
    return " ".join(sentences)


def _sentence(tool: str, call: JsonObject, response: Mapping[str, Any]) -> str:
    if response.get("error"):
        return f"The tool {tool} failed: {_cut(_why(response['error']))}"
    verb, _, noun = camel(tool).partition(" ")
    if found := new_value(response):
        return _changed(verb, noun, found, call.get("args") or {}, response)
    if (file := _file(response)) is not None:
        return f"I've {_past(verb)} the {noun or 'file'} to {file}.{_holding(response)}"
    if (named := number_map(response)) is not None:
        listed = ", ".join(f"{name} {value}" for name, value in sorted(named.items()))
        noun = noun.removeprefix("all ") or "values"
        be = "are" if noun.endswith("s") else "is"
        return f"The {noun} {be}: {listed}." if listed else f"There are no {noun} yet."
    if not response and noun.endswith("s"):
        return f"There are no {noun} yet."
    if set(response) == {"result"}:
        return f"The result of {tool} is {_plain(response['result'])}."
    said = ", ".join(f"{camel(key)} {_plain(value)}" for key, value in response.items())
    return f"I called {tool}: {said or 'it returned nothing'}."


def _changed(
    verb: str, noun: str, found: tuple[str, int | float], args: JsonObject, response: Mapping[str, Any]
) -> str:
    name, value = found
    amount = next(
        (source[key] for source in (response, args) for key in ("increment", "amount") if key in source), 1
    )
    by = f" by {amount}" if verb in ("increment", "decrement", "increase", "decrease") else ""
    return f"I've {_past(verb)} the '{name}' {noun or 'value'}{by}. The new value is {value}."


def _file(response: Mapping[str, Any]) -> str | None:
    return next(
        (response[key] for key in ("filename", "file", "path") if isinstance(response.get(key), str)), None
    )


def _holding(response: Mapping[str, Any]) -> str:
    for key, value in response.items():
        what, _, last = camel(key).rpartition(" ")
        if last == "count" and what and isinstance(value, int) and not isinstance(value, bool):
            return f" The file contains {value} {what if value != 1 else what.removesuffix('s')}."
    return ""


def _past(verb: str) -> str:
    if verb in _IRREGULAR:
        return _IRREGULAR[verb]
    return verb + "d" if verb.endswith("e") else verb + "ed"


def _why(error: Any) -> str:
    return str(error.get("message") or error) if isinstance(error, Mapping) else str(error)


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return _cut(", ".join(_plain(item) for item in value)) or "empty"
    if isinstance(value, Mapping):
        return _cut(", ".join(f"{key} {_plain(item)}" for key, item in value.items())) or "empty"
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
