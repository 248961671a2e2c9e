"""What several routes read from a request: the idempotency key, and preferences."""

from __future__ import annotations

from typing import Annotated

from fastapi import Header, Query

from gateway.runner import new_id
from perdure.errors import InvalidOption
from perdure.types import SessionKey

__all__ = [
    "AfterQuery",
    "IdempotencyKey",
    "LimitQuery",
    "PreferHeader",
    "Preferences",
    "chosen_id",
    "path_of",
]

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="Names the request. Sent again under the same key, it happens once.",
        min_length=1,
        max_length=128,
        pattern=r"^[ -~]+$",
        examples=["6f1c2b"],
    ),
]
PreferHeader = Annotated[
    str | None,
    Header(
        alias="Prefer",
        description="`respond-async` doesn't wait for the turn; `wait=30` waits so many seconds at most.",
        pattern=r"^[ -~]*$",
        examples=["respond-async"],
    ),
]
LimitQuery = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
AfterQuery = Annotated[int, Query(ge=0, le=2**53, description="Only what comes behind this seq in the log.")]


class Preferences:
    """What a ``Prefer`` header says (RFC 7240), as far as it is known here.

    Args:
        header: the header; None if there is none.
    """

    def __init__(self, header: str | None) -> None:
        said = dict(_preference(part) for part in (header or "").split(",") if part.strip())
        self.respond_async = "respond-async" in said
        wait = said.get("wait", "")
        self.wait = int(wait) if wait.isdecimal() and len(wait) < 9 else None
        """Seconds, or None."""


def _preference(part: str) -> tuple[str, str]:
    name, _, value = part.partition(";")[0].partition("=")
    return name.strip().lower(), value.strip().strip('"')


def chosen_id(header: str | None, given: str | None) -> str:
    """The id of a request: of its header, of its body, or a new one.

    Raises:
        InvalidOption: the two differ.
    """
    if header is not None and given is not None and header != given:
        raise InvalidOption("the Idempotency-Key and the id in the body differ; send one of them")
    return header or given or new_id()


def path_of(key: SessionKey) -> str:
    """The path of a session."""
    app, user, session = key.workflow_id.split("/")
    return f"/apps/{app}/users/{user}/sessions/{session}"
