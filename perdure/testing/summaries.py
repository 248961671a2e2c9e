"""Summaries by rule: short whatever the input, taking in the one before, keeping the numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from perdure.testing.facts import facts_of, spoken
from perdure.types import JsonObject

__all__ = ["LONGEST_SUMMARY", "asks_for_summary", "summarise"]

LONGEST_SUMMARY = 600
"""Characters that no summary exceeds, whatever it sums up."""

_LONGEST_FACTS = 300
_LONGEST_FILES = 100
_LONGEST_ASKED = 60
_ORDER = re.compile(
    r"\bsummari[sz](e|er|ing)\b|\b(write|give|produce|make|update|return|create)\b[^.]{0,60}\bsummar(y|ies)\b",
    re.IGNORECASE,
)
_USER_LINE = re.compile(r"^user: (.+)$", re.IGNORECASE | re.MULTILINE)
_ASKED_BEFORE = re.compile(r"The user asked: (.*?)\.(?:\s|$)")
_COUNT_BEFORE = re.compile(r"\b(\d+) requests? so far\b")
_FILES = re.compile(r"""\bFiles: ([^\n]*?)\.(?:\s|$)|"(?:filename|file|path)": "([^"]+)\"""")


def asks_for_summary(system: str, last_text: str, *, has_tools: bool) -> bool:
    """Whether a request is for a summary rather than a turn of an agent."""
    return not has_tools and ("summar" in system.lower() or bool(_ORDER.search(last_text)))


def summarise(contents: Sequence[JsonObject]) -> str:
    """At most :data:`LONGEST_SUMMARY` characters about a conversation, an earlier summary in it included."""
    text = "\n".join(_lines(contents))
    asked = _asked(text)
    before = [int(count) for count in _COUNT_BEFORE.findall(text)]
    count = len(_USER_LINE.findall(text)) + (before[-1] if before else 0)
    sentences = [f"Summary of {count} request{'' if count == 1 else 's'} so far."]
    if facts := facts_of(contents):
        sentences.append(f"Counters: {_fitting(spoken(facts).split(', '), _LONGEST_FACTS, ', ')}.")
    if files := _files(text):
        sentences.append(f"Files: {_fitting(files, _LONGEST_FILES, ', ')}.")
    room = LONGEST_SUMMARY - len(" ".join(sentences)) - len(" The user asked: .")
    if asked and room > 0 and (told := _fitting(asked[::-1], room, "; ")):
        sentences.append(f"The user asked: {told}.")
    return " ".join(sentences)[:LONGEST_SUMMARY]


def _lines(contents: Sequence[JsonObject]) -> list[str]:
    """The text of a conversation with the user's own messages marked, if it is not a transcript already."""
    texts = [
        (str(content.get("role")), part["text"])
        for content in contents
        for part in content.get("parts") or ()
        if part.get("text") and not part.get("thought")
    ]
    if any(_USER_LINE.search(text) for _, text in texts):
        return [text for _, text in texts]
    return [
        text if role == "model" or _COUNT_BEFORE.search(text) else f"user: {text}" for role, text in texts
    ]


def _asked(text: str) -> list[str]:
    earlier = [item for found in _ASKED_BEFORE.findall(text)[-1:] for item in reversed(found.split("; "))]
    asked = [*earlier, *(_short(line) for line in _USER_LINE.findall(text))]
    return list(dict.fromkeys(item for item in asked if item))


def _short(line: str) -> str:
    line = re.sub(r"[.;\s]+", " ", line).strip()
    return line if len(line) <= _LONGEST_ASKED else line[: _LONGEST_ASKED - 1] + "…"


def _files(text: str) -> list[str]:
    names = [name for earlier, one in _FILES.findall(text) for name in (*earlier.split(", "), one) if name]
    return list(dict.fromkeys(names))


def _fitting(items: Sequence[str], room: int, separator: str) -> str:
    """As many of the items, from the first, as fit the room."""
    kept: list[str] = []
    for item in items:
        if len(separator.join([*kept, item])) > room:
            break
        kept.append(item)
    return separator.join(kept)
