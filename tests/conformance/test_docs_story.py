"""docs/data-model.md says what is: its rows come from a run, and its queries find what they say."""

from __future__ import annotations

import re
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from storage.sessions import SessionStore
from tests.conformance import story

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "data-model.md").read_text("utf-8")
SHOWN = dict(re.findall(r"^<!-- rows: ([\w ]+) -->\n```text\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL))
QUERIES = re.findall(r"^<!-- complete -->\n```sql\n(.*?);\n```$", PAGE, re.MULTILINE | re.DOTALL)

USED = {"items": 99, "mode": None, "sale": True}
WAS = {"items": 1, "mode": "test", "sale": None}


def part(kind: str) -> dict[str, Any]:
    """A part of a content, by a word."""
    return {
        "call": {"functionCall": {"name": "add", "args": {}}},
        "response": {"functionResponse": {"name": "add", "response": {"ok": True}}},
    }.get(kind, {"text": kind})


def said(role: str, kind: str) -> dict[str, Any]:
    return {"role": role, "parts": [part(kind)]}


FOUND: list[tuple[str, story.Rows]] = [
    (
        "conversation now",
        [
            [1, "small-one", "user", "Add milk", None],
            [2, "small-one", "agent", None, None],
            [3, "small-one", "agent", None, {"items": 1}],
            [4, "small-one", "agent", "Done.", None],
            [9, "undo-1", "perdure", None, WAS],
        ],
    ),
    (
        "who said what",
        [
            [1, "user", said("user", "Add milk"), True],
            [2, "agent", said("model", "call"), True],
            [3, "agent", said("user", "response"), True],
            [4, "agent", said("model", "Done."), True],
            [5, "user", said("user", "Add all there is"), False],
            [6, "agent", said("model", "call"), False],
            [7, "agent", said("user", "response"), False],
            [8, "agent", said("model", "Done."), False],
        ],
    ),
    ("rewound", [[9, "undo-1", "big-one", 5, "a time"]]),
    (
        "who changed the state",
        [
            [3, "agent", {"items": None}, {"items": 1}],
            [7, "agent", WAS, USED],
            [9, "perdure", USED, WAS],
        ],
    ),
    ("state before", [["items", "99"], ["sale", "true"]]),
    (
        "which version",
        [
            ["list.txt", 1, "text/plain", 4, "small-one:t1.0", "agent", True],
            ["list.txt", 2, "text/plain", 3, "big-one:t1.0", "agent", False],
        ],
    ),
    ("tokens", [["a day", "counter", "ada", 100]]),
    ("went wrong", []),
]


def plain(value: Any) -> Any:
    """Times by a word; SQLite's booleans are 0 and 1, which Python takes for equal."""
    if isinstance(value, datetime):
        return "a time"
    if isinstance(value, date):
        return "a day"
    if isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\d", value):
        return "a day" if len(value) == 10 else "a time"
    return value


async def test_the_rows_of_the_page_are_those_of_a_run(store: SessionStore) -> None:
    assert await story.play(store) == SHOWN


async def test_the_queries_of_the_page_find_what_they_say(store: SessionStore) -> None:
    await story.play(store, redo=False)
    assert len(QUERIES) == len(FOUND)
    for statement, (what, expected) in zip(QUERIES, FOUND, strict=True):
        found = [[plain(value) for value in row] for row in await story.query(store, statement)]
        assert found == expected, what


@pytest.mark.parametrize("seq", range(1, 11))
async def test_the_state_before_any_event_can_be_asked_for(store: SessionStore, seq: int) -> None:
    await story.play(store)
    [statement] = [query for query in QUERIES if "WITH found" in query]
    found = await story.query(store, statement.replace(">= 9", f">= {seq}"))
    early, late = {"mode": '"test"'}, {"items": "99", "sale": "true"}
    expected = early if seq <= 3 else late if seq in (8, 9) else {**early, "items": "1"}
    assert sorted(map(tuple, found)) == sorted(expected.items())
