"""A request as a record, and what paths and bodies are made of. Nothing in here sends one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import quote

from perdure.client.failures import Reply
from perdure.errors import GatewayUnavailable, InvalidContent, InvalidName, InvalidOption
from perdure.jsonvalues import json_copy
from perdure.types import JsonObject, SessionKey, given

__all__ = [
    "Call",
    "app_path",
    "artifact_name",
    "artifact_path",
    "body_of",
    "header_of",
    "session_path",
    "step_of",
    "text_of",
]

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, kw_only=True, slots=True)
class Call(Generic[T_co]):
    """One request, and how its answer is read."""

    method: str
    path: str
    """Percent-encoded, from the gateway's root."""
    parse: Callable[[Reply], T_co]
    query: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    content: bytes | None = field(default=None, repr=False)
    id: str | None = None
    """Under which it happens once, however often it is sent."""
    repeatable: bool = True
    """Whether it may be sent again where nobody knows if it was done."""
    wait: float = 0.0
    """Seconds that the gateway was asked to keep it waiting."""

    @property
    def what(self) -> str:
        """It in words, for errors."""
        return f"{self.method} {self.path}"

    def result(self, reply: Reply) -> T_co:
        """What an answer that is no failure says.

        Raises:
            GatewayUnavailable: it says nothing that a gateway would.
        """
        try:
            return self.parse(reply)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise GatewayUnavailable(
                f"what answers {self.what} is no gateway, or one of another release; check the URL",
                request_id=self.id,
            ) from error


def app_path(app: str, rest: str) -> str:
    """The path of something of an app.

    Raises:
        InvalidContent, InvalidOption: no path could name the app.
    """
    return f"/apps/{step_of(app, 'the app')}{rest}"


def session_path(key: SessionKey, rest: str = "") -> str:
    """The path of a session, or of what is below it.

    Raises:
        InvalidContent, InvalidOption: no path could name a part of the key.
    """
    user, session = step_of(key.user_id, "the user's id"), step_of(key.session_id, "the session's id")
    return app_path(key.app, f"/users/{user}/sessions/{session}{rest}")


def artifact_path(key: SessionKey, name: str) -> str:
    """The path of an artifact.

    Raises:
        InvalidName: no request could name it.
    """
    steps = quote(artifact_name(name)).split("/")
    return session_path(key, f"/files/{'/'.join(_dots_encoded(step) for step in steps)}")


def artifact_name(name: str) -> str:
    """The name, if it is text.

    Raises:
        InvalidName: it is not.
    """
    try:
        return text_of(name, "the artifact's name")
    except InvalidContent as error:
        raise InvalidName(str(error)) from None


def step_of(value: str, what: str, *, slash: bool = False) -> str:
    """A name as a step of a path, percent-encoded.

    Args:
        value: the name.
        what: what it names, for errors.
        slash: whether it may have a slash in it.

    Raises:
        InvalidContent: it is empty, or no text.
        InvalidOption: it has a slash in it, or is ``.`` or ``..``.
    """
    text = text_of(value, what)
    if not text:
        raise InvalidContent(f"{what} is empty; give it")
    if not slash and ("/" in text or text in (".", "..")):
        raise InvalidOption(f"{what} is {text[:80]!r}, which no path can name; choose another")
    return _dots_encoded(quote(text, safe=""))


def text_of(value: str, what: str) -> str:
    """The value, if it is text that a database can hold.

    Raises:
        InvalidContent: it is not.
    """
    if not isinstance(value, str):
        raise InvalidContent(f"{what} is a {type(value).__name__}; give a string")
    json_copy(value, what)
    return value


def header_of(value: str, what: str) -> str:
    """The value, if a header can carry it.

    Raises:
        InvalidContent: it cannot.
    """
    if not (value and value.isascii() and value.isprintable()):
        raise InvalidContent(f"{what} {value[:80]!a} cannot stand in a header; give printable ASCII")
    return value


def body_of(fields: JsonObject) -> bytes:
    """Fields that are not None as a body of JSON.

    Raises:
        InvalidContent: something in it that JSON or a database cannot hold, named by its path.
    """
    copy = {name: json_copy(value, name) for name, value in given(**fields).items()}
    return json.dumps(copy, ensure_ascii=False, separators=(",", ":")).encode()


def _dots_encoded(step: str) -> str:
    """A step that is only dots would be taken for one up, or for none."""
    return step if step.strip(".") else step.replace(".", "%2E")
