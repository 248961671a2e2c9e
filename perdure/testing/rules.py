"""How the stand-in answers: by rule, and the same way every time.

It calls a tool that the user's sentence names by its verb, once for each thing named; when
the responses are in, it says in words what they say. It never calls twice for one message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from perdure.testing.arguments import argument_sets, schema_of
from perdure.testing.facts import facts_of, spoken
from perdure.testing.replies import answer_in_words
from perdure.testing.request import last_user_text, turn_of
from perdure.testing.words import name_words, unquoted, words
from perdure.types import JsonObject

__all__ = ["answer_by_rule"]

_STOP = frozenset(
    words("a an all and any are as by for from give in into is it its me my new of on or please the to")
)
_LONGEST_ECHO = 200
_BUILT_IN = "read_artifact"
"""The runtime declares it to nearly every agent: it is called where a sentence says both its words."""
_NO_VERB = 10**6


def answer_by_rule(contents: Sequence[JsonObject], tools: Sequence[Mapping[str, Any]]) -> list[JsonObject]:
    """The parts of the answer to a conversation, given the declared tools."""
    turn = turn_of(contents)
    if turn.responses:
        return [{"text": answer_in_words(turn.calls, turn.responses)}]
    text = last_user_text(contents)
    tool = _choose(tools, text)
    if tool is not None:
        return [{"functionCall": {"name": tool["name"], "args": args}} for args in argument_sets(tool, text)]
    if _asks_for_facts(text) and (facts := facts_of(contents)):
        return [{"text": f"From the conversation: {spoken(facts)}."}]
    return [{"text": _echo(text, tools)}]


def _choose(tools: Sequence[Mapping[str, Any]], text: str) -> Mapping[str, Any] | None:
    """The tool whose verb comes first in the sentence; among those of one verb, the best match."""
    said = words(unquoted(text))
    ranked = []
    for index, tool in enumerate(tools):
        verb, *nouns = name_words(str(tool.get("name", ""))) or [""]
        described = set(words(str(tool.get("description", "")))) - _STOP - {verb, *nouns}
        has_verb = verb in said
        noun_hits = sum(noun in said for noun in nouns)
        hits = len(described & set(said))
        if tool.get("name") == _BUILT_IN and not (has_verb and noun_hits):
            continue
        wants_object = bool(schema_of(tool).get("required"))
        if (has_verb and (noun_hits or not nouns or wants_object)) or (noun_hits and hits >= 2):
            place = said.index(verb) if has_verb else _NO_VERB
            ranked.append((place, -(3 * noun_hits + hits), index, tool))
    return min(ranked, key=lambda entry: entry[:3])[3] if ranked else None


def _asks_for_facts(text: str) -> bool:
    return bool({"show", "tell", "how", "which"} & set(words(text)))


def _echo(text: str, tools: Sequence[Mapping[str, Any]]) -> str:
    said = " ".join(text.split())
    said = said if len(said) <= _LONGEST_ECHO else said[: _LONGEST_ECHO - 1] + "…"
    names = ", ".join(str(tool.get("name")) for tool in tools)
    can = f" I can call: {names}." if names else ""
    return f"I am a stand-in for a model and answer by rule. You said: “{said}”.{can}"
