"""Words, quotations and numbers in a person's sentence: what the stand-in's rules look at."""

from __future__ import annotations

import re

__all__ = ["camel", "name_words", "numbers", "quoted", "stem", "unquoted", "words"]

_QUOTED = re.compile(
    r"""(?<!\w)'([^'\n]+)'(?!\w)|"([^"\n]+)"|`([^`\n]+)`|“([^”\n]+)”|‘([^’\n]+)’|«([^»\n]+)»"""
)
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w]|\.\d)")
_WORD = re.compile(r"[^\W\d_]+")
_SPELLED = {
    "zero": 0.0,
    "one": 1.0,
    "two": 2.0,
    "three": 3.0,
    "four": 4.0,
    "five": 5.0,
    "six": 6.0,
    "seven": 7.0,
    "eight": 8.0,
    "nine": 9.0,
    "ten": 10.0,
}
_SYNONYMS = {
    "add": "increment",
    "bump": "increment",
    "increase": "increment",
    "display": "show",
    "list": "show",
    "print": "show",
    "what": "show",
    "store": "save",
    "write": "save",
}


def quoted(text: str) -> list[str]:
    """What stands in quotation marks of any kind, in order."""
    return [next(group for group in match.groups() if group is not None) for match in _QUOTED.finditer(text)]


def unquoted(text: str) -> str:
    """The text with its quotations taken out."""
    return _QUOTED.sub(" ", text)


def numbers(text: str) -> list[float]:
    """The numbers in a text without its quotations; those after "by" come first."""
    text = unquoted(text)
    by = [float(found) for found in re.findall(rf"\bby\s+({_NUMBER.pattern})", text)]
    if by:
        return by
    digits = [float(found) for found in _NUMBER.findall(text)]
    return digits or [
        _SPELLED[word] for word in (found.lower() for found in _WORD.findall(text)) if word in _SPELLED
    ]


def words(text: str) -> list[str]:
    """The words of a text as stems, synonyms made one, in order."""
    return [_same(word.lower()) for word in _WORD.findall(text)]


def name_words(name: str) -> list[str]:
    """The words of an identifier, ``save_report`` or ``saveReport``, as stems."""
    return words(camel(name))


def camel(name: str) -> str:
    """An identifier as words: ``counterName`` and ``counter_name`` are both "counter name"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).replace("_", " ").replace("-", " ").lower()


def stem(word: str) -> str:
    """A word without its ending: "saved", "saves" and "saving" are one."""
    for ending in ("ing", "ed", "es", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)]
            break
    return word.removesuffix("e")


_STEMMED = {stem(word): stem(same) for word, same in _SYNONYMS.items()}


def _same(word: str) -> str:
    found = stem(word)
    return _STEMMED.get(found, found)
