"""The base of what a session's handlers take: plain JSON, read here so that a refusal is a typed one."""

from __future__ import annotations

from typing import Self

from pydantic import ValidationError

from activities.protocol import Record
from perdure.errors import InvalidMessage

__all__ = ["BLOB_LENGTH", "LEVELS_ABOVE", "MESSAGE_BYTES", "Request"]

MESSAGE_BYTES = 256 * 1024
"""The largest message that Temporal carries, in bytes of its JSON. A larger one travels as a blob."""

BLOB_LENGTH = 1_000
"""Characters of the key of a blob."""

LEVELS_ABOVE = 16
"""Levels of a payload that what somebody sent may stand under: where it is carried, or handed on, it has
more above it than where it came in, and a payload that is nested too deeply cannot be read."""

ID_LENGTH = 128
CALL_ID_LENGTH = 192
"""The id of a call is that of its invocation, and a little more."""


class Request(Record):
    """What a handler takes. Handlers get plain JSON and read it here, so that the refusal is a typed one."""

    @classmethod
    def of(cls, payload: object) -> Self:
        """The request that a payload is; one that is missing is an empty object.

        Raises:
            InvalidMessage, InvalidContent: it is of another shape, or :meth:`check` refuses it.
        """
        try:
            request = cls.model_validate({} if payload is None else payload)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'payload'}: {item['msg']}" for item in error.errors()
            )
            raise InvalidMessage(f"this is no {cls.__name__}: {wrong}") from None
        request.check()
        return request

    def check(self) -> None:
        """Refuse what could not be carried out.

        Raises:
            InvalidMessage: an id that no database key could hold.
        """
        for name in ("message_id", "request_id", "invocation_id", "before", "notification_id", "left_as"):
            _check_id(getattr(self, name, None), ID_LENGTH)
        _check_id(getattr(self, "call_id", None), CALL_ID_LENGTH)


def _check_id(given: str | None, length: int) -> None:
    if given is not None and not (0 < len(given) <= length and given.isprintable()):
        raise InvalidMessage(f"an id has 1 to {length} printable characters; {given[:80]!r} does not")
