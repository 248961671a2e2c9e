"""What the stand-in can be told: answer exactly this, or fail in this way, once or n times."""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from perdure.errors import InvalidOption
from perdure.testing.request import Kind, Request
from perdure.types import JsonObject

__all__ = ["Controls", "Fault", "Match", "Script", "call", "say", "think"]

FaultKind = Literal["delay", "hang", "status", "garbage", "cut", "block", "finish", "huge"]
_KINDS = ("delay", "hang", "status", "garbage", "cut", "block", "finish", "huge")

Parts = JsonObject | Sequence[JsonObject]


def say(text: str, *, signature: bytes | None = None, **fields: Any) -> JsonObject:
    """A text part, with further fields of the wire form if given."""
    return _part({"text": text}, signature, fields)


def think(text: str, *, signature: bytes | None = None) -> JsonObject:
    """A thought."""
    return _part({"text": text, "thought": True}, signature, {})


def call(
    tool: str, /, *, call_id: str | None = None, signature: bytes | None = None, **args: Any
) -> JsonObject:
    """A function call. The first one of an answer gets a signature, unless it is given one."""
    named: JsonObject = {"id": call_id} if call_id is not None else {}
    return _part({"functionCall": {**named, "name": tool, "args": args}}, signature, {})


@dataclass(frozen=True, kw_only=True)
class Match:
    """Which requests something is for. Both must hold."""

    contains: str | None = None
    """A text that the last message of the user contains."""
    kind: Kind | None = None

    def fits(self, request: Request) -> bool:
        """Whether the request is one of them; those that count tokens or embed never are unless named."""
        if request.kind in ("count", "embed") and self.kind is None:
            return False
        if request.kind != (self.kind or request.kind):
            return False
        return self.contains is None or self.contains in request.last_user_text


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to fail; see the methods of :class:`Controls` for what the fields mean."""

    kind: FaultKind
    seconds: float = 0
    after: int | None = None
    status: int = 503
    message: str = ""
    retry_after: str | None = None
    retry_delay: float | None = None
    reason: str = ""
    text: str = ""
    size: int = 0
    match: Match = field(default_factory=Match)

    @property
    def replaces_answer(self) -> bool:
        """Whether the answer that would have come stays in its queue."""
        return self.kind not in ("delay", "hang", "cut")


@dataclass(frozen=True, kw_only=True)
class Script:
    """One answer, in parts."""

    parts: list[JsonObject]
    match: Match = field(default_factory=lambda: Match(kind="generate"))


class Controls(ABC):
    """What can be told to a stand-in, in this process or over HTTP.

    Each method takes ``times`` (how many requests it is for), ``contains`` (a text that the
    user's last message must contain) and ``kind`` (``generate`` or ``summarise``). What was
    told first is used first; a request takes at most one fault and one scripted answer.
    """

    @abstractmethod
    def add(self, items: Sequence[Fault | Script]) -> None:
        """Queue faults and scripted answers."""

    def script(self, *answers: Parts, contains: str | None = None, kind: Kind = "generate") -> None:
        """Answer exactly this: each argument is one answer, a part or a list of parts."""
        match = Match(contains=contains, kind=kind)
        self.add(
            [Script(parts=[part] if isinstance(part, dict) else list(part), match=match) for part in answers]
        )

    def slow(self, seconds: float, **which: Any) -> None:
        """Wait so many seconds before the first byte, or until ``release``."""
        self._fault("delay", which, seconds=seconds)

    def hang(self, after: int | None = None, **which: Any) -> None:
        """Say nothing until ``release`` or until the client goes; ``after`` that many chunks, if given."""
        self._fault("hang", which, after=after)

    def fail(
        self,
        status: int = 503,
        message: str = "",
        *,
        retry_after: str | float | None = None,
        retry_delay: float | None = None,
        **which: Any,
    ) -> None:
        """Answer an HTTP error, with a ``Retry-After`` header or a ``RetryInfo`` of so many seconds."""
        header = None if retry_after is None else str(retry_after)
        options: JsonObject = {"retry_after": header, "retry_delay": retry_delay}
        self._fault("status", which, status=status, message=message, **options)

    def garble(self, text: str = 'data: {"candidates": [{"content": {"par\r\n\r\n', **which: Any) -> None:
        """Answer 200 with this text as the whole body."""
        self._fault("garbage", which, text=text)

    def cut(self, after: int = 1, **which: Any) -> None:
        """Close the connection after so many chunks, at the latest before the last."""
        self._fault("cut", which, after=after)

    def block(self, reason: str = "SAFETY", message: str = "", **which: Any) -> None:
        """Block the prompt: ``promptFeedback`` and no candidate."""
        self._fault("block", which, reason=reason, message=message)

    def finish(self, reason: str, text: str = "", message: str = "", **which: Any) -> None:
        """End with this finish reason, after this text."""
        self._fault("finish", which, reason=reason, text=text, message=message)

    def empty(self, **which: Any) -> None:
        """End with STOP and nothing in it."""
        self.finish("STOP", **which)

    def malformed_call(self, **which: Any) -> None:
        """End as Gemini does when it wrote a call that cannot be parsed."""
        said = "Malformed function call: print(default_api.increment_counter(counter_name='visits'"
        self.finish("MALFORMED_FUNCTION_CALL", message=said, **which)

    def huge(self, size: int = 3_000_000, **which: Any) -> None:
        """Answer with so many characters of text."""
        self._fault("huge", which, size=size)

    def _fault(self, fault: FaultKind, which: JsonObject, **options: Any) -> None:
        self.add(faults_from({"fault": fault, **options, **which}))


def faults_from(told: JsonObject) -> list[Fault]:
    """Faults from plain JSON: ``fault``, its options, ``times``, ``contains`` and ``kind``.

    Raises:
        InvalidOption: a name or a kind that does not exist.
    """
    options = dict(told)
    fault, times = options.pop("fault", None), options.pop("times", 1)
    match = Match(contains=options.pop("contains", None), kind=options.pop("kind", None))
    if fault not in _KINDS:
        raise InvalidOption(f"no fault {fault!r}: there are {', '.join(_KINDS)}")
    try:
        return [Fault(kind=fault, match=match, **options)] * int(times)
    except TypeError as error:
        raise InvalidOption(f"fault {fault}: {error}") from error


def script_from(told: JsonObject) -> list[Script]:
    """Scripted answers from plain JSON: ``answers``, each a list of parts; ``contains``, ``kind``."""
    match = Match(contains=told.get("contains"), kind=told.get("kind", "generate"))
    answers = told.get("answers")
    if not isinstance(answers, list) or not all(isinstance(parts, list) for parts in answers):
        raise InvalidOption("a script needs answers: a list of lists of parts")
    return [Script(parts=parts, match=match) for parts in answers]


def told_by(item: Fault | Script) -> tuple[str, JsonObject]:
    """The control path and the JSON that tell another process the same."""
    match = asdict(item.match)
    if isinstance(item, Script):
        return "script", {"answers": [item.parts], **match}
    options = {key: value for key, value in asdict(item).items() if key not in ("kind", "match")}
    return "faults", {"fault": item.kind, **options, **match}


def _part(part: JsonObject, signature: bytes | None, fields: JsonObject) -> JsonObject:
    if signature is not None:
        part["thoughtSignature"] = base64.b64encode(signature).decode()
    return {**part, **fields}
