"""The words by which memory is found, and the passages it is kept in."""

from __future__ import annotations

import pytest

from storage.words import excerpt, owner_word, passages, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The cat, the CAT!", ["the", "cat"]),
        ("snake_case and docs/waiting.md", ["snake", "case", "and", "docs", "waiting", "md"]),
        ("Zoë's naïve café", ["zoe", "s", "naive", "cafe"]),
        ("Straße ＦＵＬＬ ﬁle", ["strasse", "full", "file"]),
        ("½ liter", ["1", "2", "liter"]),
        ("बिल्ली", ["बिल्ली"]),
        ("白い猫", ["白", "い", "猫", "白い", "い猫"]),
        ("Python使う", ["python", "使", "う", "使う"]),
        ("\0 \ud800 ?! \U0001f600", []),
        ("", []),
        ("x" * 100, ["x" * 64]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


def test_a_query_without_spaces_asks_for_pairs() -> None:
    assert words_of("白い猫", asked=True) == ["白い", "い猫"]
    assert words_of("猫", asked=True) == ["猫"]


@pytest.mark.parametrize(
    "text", ["it's \"so\" \\ & | ! : * ( ) <-> 'x'", "é'\u0301\u200d\u2019", "ʼn ＇ ＂ ＼"]
)
def test_no_word_has_a_sign_that_a_query_could_take_for_its_own(text: str) -> None:
    assert not set("".join(words_of(text))) & set("'\"\\&|!:*()<>- ")


def test_owners_have_words_of_their_own() -> None:
    names = [("a", "b"), ("a", "c"), ("ab", ""), ("", "ab"), ("b", "a")]
    assert len({owner_word(*each) for each in names}) == len(names)
    assert all(words_of(owner_word(*each)) == [owner_word(*each)] for each in names)


@pytest.mark.parametrize("text", ["", " \n ", "short", "word " * 2_000, "x" * 9_000, "a.\n\n" + "b" * 3_000])
def test_passages_have_all_of_a_text(text: str) -> None:
    pieces = list(passages(text))
    assert all(0 < len(piece) <= 2_000 for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_passages_are_cut_between_sentences() -> None:
    pieces = list(passages("A sentence of some words. " * 200))
    assert len(pieces) > 1
    assert all(piece.endswith(".") for piece in pieces)


def test_an_excerpt_shows_the_word_that_was_asked_for() -> None:
    text = "before " * 100 + "needle " + "behind " * 100
    shown = excerpt(text, ["needle"])
    assert "needle" in shown
    assert len(shown) <= 302
    assert shown[0] == shown[-1] == "…"
    assert excerpt(text, ["nothing"]).startswith("before")
    assert excerpt("short", ["x"]) == "short"
