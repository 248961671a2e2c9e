"""A client of server-sent events, for tests: as strict as a browser's, and a little more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

__all__ = ["Message", "Stream", "opened", "text_of"]

PATIENCE = 60.0
"""Seconds in which a test expects something to happen."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message, or a comment."""

    event: str = ""
    id: str | None = None
    data: Any = None
    comment: str | None = None

    @property
    def partial(self) -> bool:
        return self.event == "" and self.comment is None and bool(self.data.get("partial"))

    @property
    def stored(self) -> bool:
        return self.event == "" and self.comment is None and not self.partial

    @property
    def text(self) -> str:
        """The text of the event's content."""
        return "".join(part.get("text", "") for part in (self.data.get("content") or {}).get("parts", []))


class Stream:
    """The messages of one response."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self.seen: list[Message] = []
        self._messages = _messages(response)

    async def next(self, *, comments: bool = False) -> Message | None:
        """The next message; None at the end of the stream."""
        async with asyncio.timeout(PATIENCE):
            async for message in self._messages:
                self.seen.append(message)
                if comments or message.comment is None:
                    return message
        return None

    async def until(self, enough: Callable[[Message], bool]) -> Message:
        """Read on to a message that is enough."""
        while (message := await self.next(comments=True)) is not None:
            if enough(message):
                return message
        raise AssertionError(f"the stream ended after {self.seen}")

    async def rest(self) -> list[Message]:
        """All that comes up to the end of the stream."""
        found = []
        while (message := await self.next()) is not None:
            found.append(message)
        return found

    async def events(self, count: int) -> list[int]:
        """The seqs of the next so many stored events."""
        return [(await self.until(lambda message: message.stored)).data["seq"] for _ in range(count)]


@asynccontextmanager
async def opened(
    http: httpx2.AsyncClient, path: str, *, last: int | str | None = None, body: Any = None
) -> AsyncIterator[Stream]:
    """A stream: of a GET, or of a POST where there is a body."""
    headers = {"accept": "text/event-stream"}
    if last is not None:
        headers["last-event-id"] = str(last)
    more = {} if body is None else {"json": body}
    async with http.stream("GET" if body is None else "POST", path, headers=headers, **more) as response:
        if response.status_code == 200:
            assert response.headers["content-type"].startswith("text/event-stream")
        else:
            await response.aread()
        yield Stream(response)


def text_of(messages: list[Message]) -> str:
    """What a client shows after these pieces of one answer."""
    shown = ""
    for message in messages:
        if message.partial:
            assert message.data["offset"] <= len(shown), "a gap"
            shown = shown[: message.data["offset"]] + message.text
    return shown


async def _messages(response: httpx2.Response) -> AsyncIterator[Message]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if line == "":
            if "data" in fields:
                data = json.loads(fields["data"])
                yield Message(event=fields.get("event", ""), id=fields.get("id"), data=data)
            fields = {}
        elif name == "":
            yield Message(comment=value)
        elif name == "data" and "data" in fields:
            fields["data"] += f"\n{value}"
        else:
            fields[name] = value
