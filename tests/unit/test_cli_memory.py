"""``perdure memory`` over a real database: what is found, and what is forgotten."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from perdure.types import Event, SessionKey
from tests.unit.command import Run, dev_folder

KEY = SessionKey(app="friend", user_id="ada b", session_id="one")


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """A folder as `perdure dev` leaves it, with one session that was remembered; Temporal is away."""
    folder = tmp_path / ".perdure"
    folder.mkdir()
    store = await dev_folder(folder)
    await store.create(KEY)
    said = {"role": "user", "parts": [{"text": "My cat is called Mia.\nShe is old."}]}
    await store.append(KEY, Event(id="m1:user", invocation_id="m1", author="user", content=said))
    await store.remember(KEY)
    await store.close()
    return folder


def test_a_search_prints_what_it_finds(perdure: Run, data: Path) -> None:
    found = perdure("memory", "search", "friend/ada%20b", "what is my cat called?", "--data", str(data))
    assert found.code == 0
    lines = found.out.splitlines()
    assert lines[0] == "friend/ada%20b/one  m1:user"
    assert lines[1].startswith("  user, 20")
    assert lines[2:] == ["  My cat is called Mia.", "  She is old."]
    nothing = perdure("memory", "search", "friend/bob", "cat", "--data", str(data))
    assert nothing.out == "nothing of it is remembered\n"
    as_json = perdure("memory", "search", "friend/ada%20b", "cat", "--json", "--data", str(data))
    [passage] = json.loads(as_json.out)["passages"]
    assert (passage["session_id"], passage["seq"]) == ("one", 1)


@pytest.mark.parametrize("whose", ["friend/ada%20b", "friend/ada%20b/one"])
def test_forgetting_asks_first(perdure: Run, data: Path, monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert perdure("memory", "forget", whose, "--data", str(data)).code == 1
    for count in (1, 0):
        done = perdure("memory", "forget", whose, "--yes", "--data", str(data))
        assert done.out == f"{whose} is forgotten; sessions of which there was something: {count}\n"
    assert perdure("memory", "search", "friend/ada%20b", "cat", "--data", str(data)).out.startswith("nothing")


def test_what_is_no_user_is_said(perdure: Run, data: Path) -> None:
    for command in (("search", "friend", "cat"), ("forget", "friend", "--yes")):
        done = perdure("memory", *command, "--data", str(data))
        assert done.code == 1
        assert "InvalidOption: 'friend' names no user" in done.err


def test_remembering_needs_temporal(perdure: Run, data: Path) -> None:
    done = perdure("memory", "remember", str(KEY), "--data", str(data))
    assert done.code == 1
    assert "NotReachable: Temporal does not answer" in done.err
