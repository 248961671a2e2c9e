"""A request to the stand-in, as it was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from perdure.types import JsonObject

__all__ = ["Kind", "Request", "Turn", "last_user_text", "text_in", "turn_of"]

Kind = Literal["generate", "summarise", "count", "embed"]


@dataclass(kw_only=True)
class Request:
    """One request: what was asked, and what became of it."""

    number: int
    """From 1, in the order of arrival."""
    model: str
    kind: Kind
    path: str
    body: JsonObject
    """The JSON that was sent; ``{}`` if it was none."""
    raw: bytes = field(default=b"", repr=False, compare=False)
    """What was sent, to the letter; only in the process that received it."""
    started: datetime
    finished: datetime | None = None
    status: int | None = None
    """The HTTP status of the response, once there is one."""
    answered: bool = False
    """Whether the response was sent to its end."""
    aborted: bool = False
    """Whether the client went away first."""
    cut: bool = False
    """Whether the stand-in closed the connection in the middle, as it was told."""
    answer: list[JsonObject] = field(default_factory=list[JsonObject])
    """The parts that were answered, or were going to be."""

    @property
    def system(self) -> str:
        """The text of the system instruction."""
        return text_in(_either(self.body, "systemInstruction", "system_instruction") or {})

    @property
    def contents(self) -> list[JsonObject]:
        """The conversation, as it was sent."""
        contents = self.body.get("contents")
        return (
            [content for content in contents if isinstance(content, dict)]
            if isinstance(contents, list)
            else []
        )

    @property
    def last_user_text(self) -> str:
        """What the user said last."""
        return last_user_text(self.contents)

    @property
    def declarations(self) -> list[JsonObject]:
        """The function declarations of all tools."""
        return [
            declaration
            for tool in self.body.get("tools") or ()
            if isinstance(tool, dict)
            for declaration in _either(tool, "functionDeclarations", "function_declarations") or ()
        ]

    @property
    def tools(self) -> list[str]:
        """The names of the declared functions."""
        return [str(declaration.get("name")) for declaration in self.declarations]

    @property
    def text(self) -> str:
        """Everything a person could read in it: system instruction and contents."""
        return "\n".join([self.system, *(text_in(content) for content in self.contents)])

    @property
    def in_flight(self) -> bool:
        """Whether it still waits for the end of its response."""
        return self.finished is None

    def to_json(self) -> JsonObject:
        """The same as plain JSON, for other processes."""
        return {
            "number": self.number,
            "model": self.model,
            "kind": self.kind,
            "path": self.path,
            "body": self.body,
            "started": self.started.isoformat(),
            "finished": self.finished.isoformat() if self.finished else None,
            "status": self.status,
            "answered": self.answered,
            "aborted": self.aborted,
            "cut": self.cut,
            "answer": self.answer,
        }

    @classmethod
    def from_json(cls, record: JsonObject) -> Request:
        """The inverse of :meth:`to_json`."""
        finished = record["finished"]
        return cls(
            **{
                **record,
                "started": datetime.fromisoformat(record["started"]),
                "finished": datetime.fromisoformat(finished) if finished else None,
            }
        )


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The calls of the last step, and their responses, if the conversation ends in them."""

    calls: Sequence[JsonObject]
    responses: Sequence[JsonObject]


def turn_of(contents: Sequence[JsonObject]) -> Turn:
    """The calls and responses since the user spoke last."""
    calls: list[JsonObject] = []
    responses: list[JsonObject] = []
    for content in contents:
        parts = content.get("parts") or ()
        found = [part["functionResponse"] for part in parts if part.get("functionResponse")]
        if content.get("role") == "model":
            calls += [part["functionCall"] for part in parts if part.get("functionCall")]
        elif found:
            responses += found
        else:
            calls, responses = [], []
    return Turn(calls=calls, responses=responses)


def last_user_text(contents: Sequence[JsonObject]) -> str:
    """The text of the last content that a user wrote."""
    for content in reversed(contents):
        if content.get("role", "user") == "user" and (text := text_in(content)):
            return text
    return ""


def text_in(content: JsonObject) -> str:
    """The text of a content, thoughts left out."""
    parts = content.get("parts") or ()
    return "".join(
        part["text"] for part in parts if isinstance(part.get("text"), str) and not part.get("thought")
    )


def _either(record: JsonObject, camel: str, snake: str) -> Any:
    return record.get(camel) if camel in record else record.get(snake)
