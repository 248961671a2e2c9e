"""Reads a streamed answer as it came over the wire, beside the SDK.

The SDK turns each chunk into its own types and drops every field that its release does not
know; a thought signature once was such a field, and a model that does not get it back
answers worse or not at all. What we store and send again is therefore the JSON that the
server sent, letter by letter. The SDK still does everything else: it builds the request,
authenticates, reports errors and says when the answer is complete.

:class:`Wire` listens to the bytes that the SDK reads from the HTTP response and
:class:`Reading` puts the chunks together into one content.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from perdure.types import JsonObject

__all__ = ["Reading", "Wire"]

_PLAIN_TEXT = frozenset({"text", "thought"})


class Wire:
    """The chunks of one model call, in the order in which the SDK hands them out."""

    def __init__(self) -> None:
        self.answering = False
        """Whether a response has begun to arrive."""
        self._responses: list[Any] = []
        self._chunks: list[JsonObject] = []
        self._taken = 0

    def listen(self, response: Any) -> None:
        """Have every byte that is read from an httpx response pass through here as well."""
        self.answering = True
        self._responses.append(response)
        if response.status_code == 200:
            response.aiter_bytes = self._tee(response.aiter_bytes)

    def take(self, dump: Callable[[], JsonObject]) -> JsonObject:
        """The next chunk; ``dump`` gives it as the SDK understood it, if we could not read it."""
        self._taken += 1
        return self._chunks[self._taken - 1] if len(self._chunks) >= self._taken else dump()

    async def close(self) -> None:
        """Let go of the connection, also when the answer was not read to its end."""
        for response in self._responses:
            await response.aclose()

    def _tee(self, read: Callable[..., AsyncIterator[bytes]]) -> Callable[..., AsyncIterator[bytes]]:
        async def reading(*args: Any, **kwargs: Any) -> AsyncIterator[bytes]:
            lines = _Lines(self._chunks)
            async for data in read(*args, **kwargs):
                lines.feed(data)
                yield data
            lines.end()

        return reading


class Reading:
    """One content, put together from the chunks of a stream."""

    def __init__(self) -> None:
        self.finish_message: str | None = None
        self._rest: JsonObject = {}
        self._parts: list[JsonObject] = []

    def add(self, chunk: JsonObject) -> JsonObject:
        """Take in a chunk and return the content in it, which may have no parts."""
        candidate = _first(chunk.get("candidates"))
        self.finish_message = candidate.get("finishMessage") or self.finish_message
        content = candidate.get("content")
        if not isinstance(content, dict):
            content = {}
        for key, value in content.items():
            if key != "parts":
                self._rest.setdefault(key, value)
        parts = [part for part in content.get("parts") or () if isinstance(part, dict)]
        for part in parts:
            self._append(part)
        return {"role": "model", **content, "parts": parts}

    @property
    def content(self) -> JsonObject:
        """The content so far, in wire form."""
        return {"role": "model", **self._rest, "parts": list(self._parts)}

    @property
    def usable(self) -> bool:
        """Whether there is anything in it but thoughts."""
        return any(not part.get("thought") and _says_something(part) for part in self._parts)

    def _append(self, part: JsonObject) -> None:
        if not _says_something(part) and "thoughtSignature" not in part:
            return
        last = self._parts[-1] if self._parts else {}
        if (
            part.keys() <= _PLAIN_TEXT
            and last.keys() == part.keys()
            and last.get("thought") == part.get("thought")
        ):
            self._parts[-1] = {**last, "text": last["text"] + part["text"]}
        else:
            self._parts.append(part)


class _Lines:
    """Splits server-sent events at CR, LF and CRLF, nowhere else, and collects their JSON."""

    def __init__(self, chunks: list[JsonObject]) -> None:
        self._chunks = chunks
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            self._line(line.rstrip(b"\r"))

    def end(self) -> None:
        self._line(self._rest)
        self._line(b"")

    def _line(self, line: bytes) -> None:
        if line.startswith(b"data: "):
            self._data.append(line[len(b"data: ") :])
        elif not line and self._data:
            event, self._data = b"\n".join(self._data), []
            self._event(event)

    def _event(self, event: bytes) -> None:
        try:
            chunk = json.loads(event)
        except ValueError:
            return  # The SDK reads the same bytes and reports it.
        if isinstance(chunk, dict):
            self._chunks.append(chunk)


def _first(candidates: Any) -> JsonObject:
    found = candidates[0] if isinstance(candidates, list) and candidates else {}
    return found if isinstance(found, dict) else {}


def _says_something(part: JsonObject) -> bool:
    return any(
        value not in ("", None) for key, value in part.items() if key not in ("thought", "thoughtSignature")
    )
