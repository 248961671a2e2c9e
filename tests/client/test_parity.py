"""The two faces are one: what the one can do, the other can, in the same words; and both are typed."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import assert_type

import pytest

import perdure
import perdure.client
from perdure import AsyncClient, Client
from perdure.client import (
    Answer,
    ArtifactInfo,
    AsyncFoundSession,
    FoundSession,
    Partial,
    Rewind,
    Rewound,
    UpdateOutcome,
)
from perdure.context import Artifact
from perdure.types import Event, Json, Session
from tests.client.faces import counterpart

PAIRS = [
    "Client",
    "Sessions",
    "SessionHandle",
    "FoundSession",
    "Artifacts",
    "UserMemory",
    "TurnStream",
    "SessionStream",
]
OTHERS = {
    "__enter__": "__aenter__",
    "__exit__": "__aexit__",
    "__iter__": "__aiter__",
    "__next__": "__anext__",
}


def members(kind: type) -> dict[str, object]:
    return {
        name: value
        for base in reversed(kind.__mro__)
        for name, value in vars(base).items()
        if (not name.startswith("_") or name in OTHERS or name in OTHERS.values())
    }


@pytest.mark.parametrize("name", PAIRS)
def test_what_one_can_do_the_other_can(name: str) -> None:
    one = getattr(perdure.client, name)
    other = counterpart(one)
    assert other is not None
    renamed = {OTHERS.get(member, member) for member in members(one)}
    streams = name.endswith("Stream")
    assert renamed - ({"close"} if streams else set()) == set(members(other)) - (
        {"aclose"} if streams else set()
    )
    for member, value in members(one).items():
        if not inspect.isfunction(value) or member in OTHERS or (streams and member == "close"):
            continue
        mine = inspect.signature(value)
        theirs = inspect.signature(getattr(other, member))
        assert str(mine.replace(return_annotation=None)) == as_blocking(theirs), member
        assert (value.__doc__ or "").split() == words_of(getattr(other, member)), member


def as_blocking(signature: inspect.Signature) -> str:
    shown = str(signature.replace(return_annotation=None))
    shown = re.sub(r"'str \| Source'", "'str | SyncSource'", shown)
    return shown.replace("Async", "")


def words_of(function: object) -> list[str]:
    said = (function.__doc__ or "").replace("Async", "").replace("an async iterable", "an iterable")
    return said.split()


def test_the_names_are_those_of_the_package() -> None:
    assert perdure.Client is Client
    assert perdure.AsyncClient is AsyncClient
    assert sorted(perdure.client.__all__, key=str.lower) == sorted(set(perdure.client.__all__), key=str.lower)
    for name in perdure.client.__all__:
        assert getattr(perdure.client, name).__doc__


def blocking_types(client: Client, made: FoundSession) -> None:
    """Nobody calls it: the type checker reads it."""
    assert_type(client.apps(), list[str])
    assert_type(client.sessions.create("counter", "ann", state={"a": 1}), FoundSession)
    assert_type(client.sessions.list("counter"), Iterator[FoundSession])
    assert_type(client.sessions.batch_update("counter", []), Sequence[UpdateOutcome])
    assert_type(made.state["a"], Json)
    assert_type(made.ask("hi"), Answer)
    assert_type(made.send("hi"), str)
    assert_type(made.update(state={"a": None}), Session)
    assert_type(made.rewind("m1"), Rewind)
    assert_type(made.artifacts.list(), Sequence[ArtifactInfo])
    assert_type(made.artifacts.load("a"), Artifact)
    for item in made.stream("hi"):
        assert_type(item, Event | Partial)
        assert_type(item.text, str)
    for event in made.events():
        assert_type(event, Event)
    with made.follow() as stream:
        assert_type(next(stream), Event | Partial | Rewound)


async def awaited_types(client: AsyncClient, made: AsyncFoundSession) -> None:
    """Nobody calls it: the type checker reads it."""
    assert_type(await client.apps(), list[str])
    assert_type(await client.sessions.create("counter", "ann", state={"a": 1}), AsyncFoundSession)
    assert_type(client.sessions.list("counter"), AsyncIterator[AsyncFoundSession])
    assert_type(await made.ask("hi"), Answer)
    assert_type(await made.rewind("m1"), Rewind)
    assert_type(await made.artifacts.load("a"), Artifact)
    async for item in made.stream("hi"):
        assert_type(item, Event | Partial)
        if item.partial:
            assert_type(item, Event | Partial)
    async for event in made.events():
        assert_type(event, Event)
    async with made.follow() as stream:
        assert_type(await anext(stream), Event | Partial | Rewound)
