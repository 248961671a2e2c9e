"""The words by which memory is found: cut and written here, so that every database finds the same.

A database's own word-cutting knows one language at a time, and each knows others. So there is no
stemming and there are no stop words: a word is found as it was written, but for case, accents and
width. What is written without spaces (Chinese, Japanese, Thai …) is found by pairs of characters.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator

__all__ = ["excerpt", "owner_word", "passages", "words_of"]

LONGEST_PASSAGE = 2_000
"""Characters of one passage: some paragraphs, and what models make one vector of."""
LONGEST_WORD = 64
EXCERPT = 300
"""Characters of an excerpt."""

_ASCII = re.compile(r"[0-9A-Za-z]+")
_ACCENTS = re.compile("[\u0300-\u036f]")
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003134f]+"
)
_ENDS = ("\n\n", "\n", ". ", "? ", "! ", "。", " ")


def words_of(text: str, *, asked: bool = False) -> list[str]:
    """The words of a text, each once, in order.

    Args:
        text: anything, also what no database could store.
        asked: it is a query. Of what is written without spaces that has only the pairs.
    """
    found = (word for _, run in _runs(text) for word in _words_of_run(run, asked))
    return list(dict.fromkeys(found))


def owner_word(app: str, user_id: str) -> str:
    """The word that every passage of a user has, so that an index looks at no other's."""
    names = f"{app}\0{user_id}".encode("utf-8", "surrogatepass")
    return f"o{hashlib.sha256(names).hexdigest()[:32]}"


def passages(text: str) -> Iterator[str]:
    """A text in pieces that are not too long, cut between paragraphs, sentences or words where it has any."""
    text = text.strip()
    while len(text) > LONGEST_PASSAGE:
        at = _place_to_cut(text)
        yield text[:at].rstrip()
        text = text[at:].lstrip()
    if text:
        yield text


def excerpt(text: str, words: Iterable[str]) -> str:
    """The part of a passage around the first of these words that it has, or its beginning."""
    if len(text) <= EXCERPT:
        return text
    wanted = set(words)
    hits = (at for at, run in _runs(text) if wanted & set(_words_of_run(run, False)))
    start = max(next(hits, 0) - EXCERPT // 4, 0)
    start = min(start, len(text) - EXCERPT)
    if start:  # at a word's beginning, where one is near
        start = max(text.find(" ", start, start + 30), start)
    shown = text[start : start + EXCERPT].strip()
    return f"{'…' if start else ''}{shown}{'…' if start + EXCERPT < len(text) else ''}"


def _runs(text: str) -> Iterator[tuple[int, str]]:
    """Where letters, digits and marks follow each other, and what they are."""
    if text.isascii():
        for found in _ASCII.finditer(text):
            yield found.start(), found.group()
        return
    start: int | None = None
    for at, character in enumerate(text):
        if unicodedata.category(character)[0] in "LNM":
            start = at if start is None else start
        elif start is not None:
            yield start, text[start:at]
            start = None
    if start is not None:
        yield start, text[start:]


def _words_of_run(run: str, asked: bool) -> Iterator[str]:
    if run.isascii():
        yield run.lower()[:LONGEST_WORD]
        return
    folded = unicodedata.normalize("NFKC", run).casefold()
    plain = unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", folded)))
    for _, part in _runs(plain):  # one half, as a fraction, is two numbers by now
        at = 0
        for dense in _WITHOUT_SPACES.finditer(part):
            yield from _word(part[at : dense.start()])
            yield from _pairs(dense.group(), asked)
            at = dense.end()
        yield from _word(part[at:])


def _word(word: str) -> Iterator[str]:
    if word:
        yield word[:LONGEST_WORD]


def _pairs(dense: str, asked: bool) -> Iterator[str]:
    if not asked or len(dense) == 1:
        yield from dense
    yield from (dense[at : at + 2] for at in range(len(dense) - 1))


def _place_to_cut(text: str) -> int:
    for end in _ENDS:
        at = text.rfind(end, LONGEST_PASSAGE // 2, LONGEST_PASSAGE)
        if at > 0:
            return at + len(end)
    return LONGEST_PASSAGE
