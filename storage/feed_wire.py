"""How the feed's messages travel in PostgreSQL's notifications. Nothing in here knows a connection.

A notification has less than 8,000 bytes of text in the database's own encoding. So messages are
JSON in ASCII, which can be cut anywhere and says U+0000 and half a surrogate pair, too; and one
that is too long goes in pieces, ``number/index/count:``. Of notifications with the same text
that one transaction sends only one arrives: so a partial says where it belongs, the same text
twice is not the same message, and what is the same message may be lost.

=======  ====================================================================================
``l``    the log: ``l57`` has an event 57, ``l`` alone says that there is more than that
``p``    a partial, ``p`` and its JSON
``f``    a piece of one of those
=======  ====================================================================================
"""

from __future__ import annotations

import hashlib
import itertools
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from perdure.types import JsonObject, SessionKey
from storage.feed import Answering

__all__ = ["Change", "Piece", "Pieces", "Writer", "asks", "asks_channel", "channel_of", "read"]

LIMIT = 7_900
"""Bytes of one notification, with room for what numbers a piece."""
_HEADER = 60


@dataclass(frozen=True, slots=True)
class Change:
    """The log has an event ``seq``; None: there is more than that to read."""

    seq: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A piece of an answer, which begins behind ``offset`` characters of it."""

    answering: Answering
    offset: int
    parts: Sequence[JsonObject]
    over: bool
    """Nothing more of this answer will come."""


def channel_of(schema: str, key: SessionKey) -> str:
    """A session's channel: a digest, because names have 63 bytes. All schemas of a database share them."""
    return "perdure_" + hashlib.blake2b(f"{schema}\n{key}".encode(), digest_size=16).hexdigest()


def asks_channel(schema: str) -> str:
    """Where readers ask for what has been said so far."""
    return "perdure_asks_" + hashlib.blake2b(schema.encode(), digest_size=8).hexdigest()


def asks(channels: Sequence[str]) -> Iterator[str]:
    """Notifications that name these channels."""
    at_once = LIMIT // 50
    for start in range(0, len(channels), at_once):
        yield " ".join(channels[start : start + at_once])


class Writer:
    """Writes what one process sends."""

    def __init__(self) -> None:
        self._name = secrets.token_hex(4)
        self._numbers = itertools.count(1)

    def change(self, seq: int | None) -> Iterator[str]:
        """A change."""
        yield "l" if seq is None else f"l{seq}"

    def piece(self, piece: Piece) -> Iterator[str]:
        """A piece of an answer."""
        told = piece.answering
        said: JsonObject = {
            "i": told.event_id,
            "v": told.invocation_id,
            "a": told.author,
            "e": told.epoch,
            "s": told.after,
            "t": told.attempt,
            "r": told.run,
            "o": piece.offset,
            "p": piece.parts,
        }
        if piece.over:
            said["x"] = 1
        yield from self._cut("p" + json.dumps(said, separators=(",", ":")))

    def _cut(self, text: str) -> Iterator[str]:
        if len(text) <= LIMIT:
            yield text
            return
        size = LIMIT - _HEADER
        number, count = next(self._numbers), -(-len(text) // size)
        for index in range(count):
            cut = text[index * size : (index + 1) * size]
            yield f"f{self._name}.{number}/{index}/{count}:{cut}"


class Pieces:
    """Puts together what came in pieces on one channel. They come one after the other, or not at all."""

    def __init__(self) -> None:
        self._name = ""
        self._texts: list[str] = []

    def add(self, payload: str) -> str | None:
        """The whole message, if this was its last piece; what was not in pieces as it is."""
        if not payload.startswith("f"):
            return payload
        header, _, text = payload[1:].partition(":")
        name, index, count = header.split("/")
        if index == "0":
            self._name, self._texts = name, []
        elif name != self._name or int(index) != len(self._texts):
            self._name, self._texts = "", []  # its beginning was missed
            return None
        self._texts.append(text)
        if len(self._texts) < int(count):
            return None
        whole, self._name, self._texts = "".join(self._texts), "", []
        return whole


def read(message: str) -> Change | Piece:
    """A message that is whole.

    Raises:
        ValueError: it is none of ours.
    """
    kind, rest = message[:1], message[1:]
    if kind == "l":
        return Change(int(rest) if rest else None)
    if kind != "p":
        raise ValueError(f"a notification begins with {kind!r}, which no Perdure sends")
    try:
        said = json.loads(rest)
        answering = Answering(
            event_id=said["i"],
            invocation_id=said["v"],
            author=said["a"],
            epoch=said["e"],
            after=said["s"],
            attempt=said["t"],
            run=said["r"],
        )
        return Piece(answering=answering, offset=said["o"], parts=said["p"], over="x" in said)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"a notification that no Perdure sends: {error!r}") from error
