"""Pieces of an answer that a model is giving, put behind each other.

On the wire a piece says behind how many characters of the answer it belongs, thoughts counted
too, and a piece may end in half of a character that UTF-16 has in two. A reader wants text: so
the half is kept back until its other half is there, and characters are those that were given.
"""

from __future__ import annotations

from perdure.client.results import Partial
from perdure.types import JsonObject

__all__ = ["Drafts"]


class Drafts:
    """The answer that is being given. There is one at a time."""

    def __init__(self) -> None:
        self._event_id = ""
        self._held = ""
        """Half of a character, whose other half comes with the next piece."""
        self._clear()

    def add(self, data: JsonObject) -> Partial | None:
        """The next piece, as a reader wants it; None where it is nothing to show yet.

        Args:
            data: the piece as it came.
        """
        if data["id"] != self._event_id:
            self._event_id = data["id"]
            self._clear()
        again = data["offset"] < self._length
        if again:
            self._cut(data["offset"])
        offset, text, thought = self._shown, self._held, ""
        self._held = ""
        for part in data["content"]["parts"]:
            piece = part.get("text") or ""
            thinks = bool(part.get("thought"))
            self._pieces.append((thinks, piece))
            self._length += len(piece)
            if thinks:
                thought += piece
            else:
                text += piece
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._held = text[:-1], text[-1]
        text, thought = _whole(text), _whole(thought)
        self._shown += len(text)
        if not (text or thought or again):
            return None
        return Partial(
            event_id=data["id"],
            invocation_id=data["invocationId"],
            author=data["author"],
            offset=offset,
            text=text,
            thought=thought,
        )

    def _clear(self) -> None:
        self._pieces: list[tuple[bool, str]] = []
        self._length = 0
        """Of the pieces, as the wire counts."""
        self._shown = 0
        """Characters of text that the reader has."""
        self._held = ""

    def _cut(self, length: int) -> None:
        """Keep so much, as the wire counts."""
        while self._length > length:
            thinks, piece = self._pieces.pop()
            self._length -= len(piece)
            if self._length < length:
                kept = piece[: length - self._length]
                self._pieces.append((thinks, kept))
                self._length += len(kept)
        text = "".join(piece for thinks, piece in self._pieces if not thinks)
        self._held = text[-1] if text and "\ud800" <= text[-1] <= "\udbff" else ""
        self._shown = len(_whole(text.removesuffix(self._held) if self._held else text))


def _whole(text: str) -> str:
    """The text with halves of characters joined. A half that has no other becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
