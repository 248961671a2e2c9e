"""Every error Perdure raises on purpose, in one tree.

    PerdureError
    ├── NotFound
    │   ├── SessionNotFound        no such session for this app and user
    │   ├── InvocationNotFound     the session never had that invocation
    │   ├── CallNotFound           no call of that id waits in the session
    │   ├── ArtifactNotFound       no live version of that name
    │   ├── ArtifactDamaged        its bytes are not those that were saved
    │   └── UnknownAgent           no worker here serves that app
    ├── Conflict
    │   ├── SessionExists          create() of an id that is taken
    │   ├── SessionEnded           the session is closed; reopen it on purpose
    │   ├── VersionMismatch        expected_version is not the actual one
    │   ├── EventConflict          the event id is taken by other content
    │   ├── StaleEpoch             the turn was cancelled or rewound meanwhile
    │   ├── StateConflict          a key changed between read and write
    │   ├── AlreadySettled         the call that waited has had its decision or result
    │   └── InvocationRewound      the invocation is no longer live
    ├── Invalid
    │   ├── InvalidMessage         empty, too large, or not what the handler takes
    │   ├── InvalidContent         text or numbers that JSON or a database cannot hold
    │   ├── InvalidName            an artifact name that could leave its folder
    │   ├── InvalidArguments       a tool's arguments do not fit its signature
    │   ├── InvalidAgent           an agent or tool is declared wrongly
    │   ├── InvalidInstruction     an instruction names a state key that is not set
    │   ├── InvalidOption          a setting that does not exist or makes no sense
    │   ├── InvalidTaskToken       a task token that is none, or was cut or changed
    │   ├── InvalidRequest         an HTTP request that the gateway cannot read
    │   └── TooLarge               an HTTP request with a larger body than the gateway takes
    ├── Denied
    │   ├── Unauthenticated        no token, or one that is unknown, expired or revoked
    │   └── Forbidden              the token does not reach that app or user
    ├── RequestTimeout             the body of an HTTP request stopped coming; send it again
    ├── RateLimited                the token asks too often; ask again later
    ├── Unreadable
    │   ├── UnknownKey             a payload of Temporal's, encrypted under a key that is not here
    │   └── PayloadDamaged         an encrypted payload that is not what was written
    ├── Busy                       the session's inbox is full; send again later
    ├── LimitExceeded              a turn went past one of its agent's limits
    │   └── BudgetExceeded         the session, or the turn, has spent what its agent's budget allows
    ├── TemporalUnavailable        Temporal does not answer, for now
    ├── StorageUnavailable         the database is away, read-only, locked or full, for now
    ├── McpUnavailable             an MCP server is away, or broke off, for now
    ├── GatewayUnavailable         a client finds no gateway, or the connection to it broke
    ├── InternalError              a step failed again and again, and nobody knows why
    └── ModelError
        ├── ModelUnavailable       can succeed later: 429, 5xx, a cut stream, a time-out
        └── ModelRefused           cannot: bad request, blocked, malformed output
            ├── InvalidAnswer      the answer does not fit the output schema, nor does the mended one
            └── PromptTooLong      the conversation is more than the model takes

An error crosses Temporal as an ``ApplicationError`` whose ``type`` is the class name:
:func:`by_name` finds the class again on the other side.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = [
    "AlreadySettled",
    "ArtifactDamaged",
    "ArtifactNotFound",
    "BudgetExceeded",
    "Busy",
    "CallNotFound",
    "Conflict",
    "Denied",
    "EventConflict",
    "Forbidden",
    "GatewayUnavailable",
    "InternalError",
    "Invalid",
    "InvalidAgent",
    "InvalidAnswer",
    "InvalidArguments",
    "InvalidContent",
    "InvalidInstruction",
    "InvalidMessage",
    "InvalidName",
    "InvalidOption",
    "InvalidRequest",
    "InvalidTaskToken",
    "InvocationNotFound",
    "InvocationRewound",
    "LimitExceeded",
    "McpUnavailable",
    "ModelError",
    "ModelRefused",
    "ModelUnavailable",
    "NotFound",
    "PayloadDamaged",
    "PerdureError",
    "PromptTooLong",
    "RateLimited",
    "RequestTimeout",
    "SessionEnded",
    "SessionExists",
    "SessionNotFound",
    "StaleEpoch",
    "StateConflict",
    "StorageUnavailable",
    "TemporalUnavailable",
    "TooLarge",
    "Unauthenticated",
    "UnknownAgent",
    "UnknownKey",
    "Unreadable",
    "VersionMismatch",
    "by_name",
    "code_of",
    "error_of",
]


class PerdureError(Exception):
    """The base of all errors raised on purpose. Catch it at the edge of a service."""


class NotFound(PerdureError):
    """What was named is not there. Check the ids; nothing was changed."""


class SessionNotFound(NotFound):
    """No such session for this app and user, or it was deleted. Create it, or check all three ids."""


class InvocationNotFound(NotFound):
    """The session's log has no such invocation. List its events to find the right id."""


class CallNotFound(NotFound):
    """No call of that id waits in the session: it never did, or its turn is over. See what waits."""


class ArtifactNotFound(NotFound):
    """No live version of that artifact: never saved, rewound, or deleted."""


class ArtifactDamaged(NotFound):
    """The bytes in the artifact store are not those that were saved. Restore the blob from a backup."""


class UnknownAgent(NotFound):
    """This worker serves no agent of that name. Start a worker with ``--agents`` that names it."""


class Conflict(PerdureError):
    """Somebody else changed something first. Nothing was written; read again and decide."""


class SessionExists(Conflict):
    """The session id is taken for this app and user. Use it, or choose another id."""


class SessionEnded(Conflict):
    """The session was ended. Send the message with ``reopen`` set, or start another session."""


class VersionMismatch(Conflict):
    """``expected_version``, or ``expected_head``, is not the session's. Read the session again and retry.

    Args:
        message: what was expected of which session.
        actual: the version the session has now.
    """

    def __init__(self, message: str, *, actual: int | None = None) -> None:
        super().__init__(message)
        self.actual = actual


class EventConflict(Conflict):
    """The event id is in the log with other content. Give the new event an id of its own."""


class StaleEpoch(Conflict):
    """The turn that writes this was cancelled or rewound meanwhile. Drop the write."""


class StateConflict(Conflict):
    """A state key changed between being read and being written. Run the call again."""


class AlreadySettled(Conflict):
    """The call does not wait any more: decided, answered, expired or cancelled. What came first counts."""


class InvocationRewound(Conflict):
    """The invocation was rewound and is not live. Send the message under a new id, or redo the rewind."""


class Invalid(PerdureError):
    """The input is wrong and would be wrong again. Nothing was written; mend the input."""


class InvalidMessage(Invalid):
    """A message that is empty, too large, or lacks what its handler needs."""


class InvalidContent(Invalid):
    """A value that JSON or a database cannot hold: NaN, infinity, U+0000, a lone surrogate."""


class InvalidName(Invalid):
    """An artifact name that is empty, absolute, has ``..`` in it, or holds a NUL."""


class InvalidArguments(Invalid):
    """A tool call's arguments do not fit the tool's signature. The model is told and may mend them."""


class InvalidAgent(Invalid):
    """An agent or tool is declared in a way that cannot work. Mend the declaration."""


class InvalidInstruction(Invalid):
    """The agent's instruction names a state key that is not set. Set it, or make it ``{optional?}``."""


class InvalidOption(Invalid):
    """A setting that does not exist, or has a value it cannot have."""


class InvalidTaskToken(Invalid):
    """No task token, or one that was cut or changed on its way. Send it as ``context.task_token`` had it."""


class InvalidRequest(Invalid):
    """An HTTP request that the gateway cannot read: a field that is missing, of another type, or unknown."""


class TooLarge(Invalid):
    """The body of an HTTP request is larger than the gateway takes. Send less, or save it as an artifact."""


class Denied(PerdureError):
    """The gateway does not do that for whoever asks. Nothing was looked at or changed."""


class Unauthenticated(Denied):
    """The request has no bearer token, or one that is unknown, expired or revoked. Get another."""


class Forbidden(Denied):
    """The token is good, and does not reach that app or user. Ask with one that does."""


class RequestTimeout(PerdureError):
    """The body of an HTTP request stopped coming, or came too slowly. Nothing was done; send it again."""


class RateLimited(PerdureError):
    """The token has asked too often. Nothing was done; ask the same again later.

    Args:
        message: what the limit is.
        retry_after: seconds until the next request is let in.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unreadable(PerdureError):
    """What Temporal stores cannot be decrypted. Nothing is lost; mend the keys and it is read again."""


class UnknownKey(Unreadable):
    """A payload was encrypted under a key that is not here. Add it to ``PERDURE_CODEC_KEYS``, at the end."""


class PayloadDamaged(Unreadable):
    """An encrypted payload is not what was written, or its key's id belonged to another key."""


class Busy(PerdureError):
    """The session cannot take it now: its inbox is full, or its run ends. Send the same again later."""


class LimitExceeded(PerdureError):
    """A turn was ended by its agent's ``Limits``; the session goes on. Raise the limit, or ask for less."""


class BudgetExceeded(LimitExceeded):
    """What the agent's ``Budget`` allows is spent, and the model is not asked. The session goes on.

    Raise the budget in the agent: the next message finds it raised. Or use another session.
    """


class TemporalUnavailable(PerdureError):
    """Temporal does not answer now. Do the same again, under the same ids: then it happens once."""


class StorageUnavailable(PerdureError):
    """The database is away, read-only, locked or full. The message says what to do; then do the same again.

    Whether what failed was done may be unknown; under the same ids it happens once. Sessions wait.
    """

    @property
    def brief(self) -> str:
        """All of it: it quotes nobody."""
        return str(self)


class McpUnavailable(PerdureError):
    """An MCP server cannot be reached, or the connection broke. Start it, or mend what the agent says of it.

    A turn that needs its tools waits; of a call whether it was run is unknown, and the model is told.
    """


class GatewayUnavailable(PerdureError):
    """A client finds no gateway at its URL, or the connection broke, also when it tried again.

    Whether what was asked was done may be unknown. Do the same again, under the same ids: then it
    happens once.

    Args:
        message: what failed.
        request_id: of the message or request that was sent, which the client may have chosen itself.
    """

    def __init__(self, message: str, *, request_id: str | None = None) -> None:
        super().__init__(message)
        self.request_id = request_id


class InternalError(PerdureError):
    """A step failed again and again: a row that cannot be read, or a bug. The worker's log says where.

    The session goes on: rewind to before what cannot be read, or mend it and send a new message.
    """


class ModelError(PerdureError):
    """The model did not answer usefully.

    Args:
        message: what happened, with the words of the model's server.
        brief: the same without those words, for logs and for Temporal: they may quote the
            conversation. None: there are none in the message.
    """

    usage: Mapping[str, Any] | None = None
    """What the call took all the same, as ``usageMetadata``, where the server said so."""

    def __init__(self, message: str, *, brief: str | None = None) -> None:
        super().__init__(message)
        self.brief = brief or message


class ModelUnavailable(ModelError):
    """It may answer later: rate limit, server error, cut stream, time-out.

    Args:
        message: what happened.
        brief: the same without the server's words.
        retry_after: seconds the server asked us to wait, if it did.
    """

    def __init__(self, message: str, *, brief: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, brief=brief)
        self.retry_after = retry_after


class ModelRefused(ModelError):
    """It will not answer this: a bad request, blocked content, output that makes no sense."""


class InvalidAnswer(ModelRefused):
    """The answer does not fit the agent's ``output_schema``, also after the model was told to mend it.

    Both are in the log. Make the schema or the instruction simpler, or ask again.
    """


class PromptTooLong(ModelRefused):
    """The conversation is more than the model takes. Rewind, compact, or set lower ``Limits``."""


def by_name(name: str | None) -> type[PerdureError] | None:
    """The class that an ``ApplicationError`` of this ``type`` stands for, or None if it is not ours."""
    found = globals().get(name) if name in __all__ else None
    return found if isinstance(found, type) and issubclass(found, PerdureError) else None


def code_of(error: type[PerdureError]) -> str:
    """What the gateway calls a class in its problems: ``SessionNotFound`` is ``session-not-found``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", error.__name__).lower()


def error_of(
    code: str, detail: str, *, actual: int | None = None, retry_after: float | None = None
) -> PerdureError:
    """The error behind a problem of the gateway: of its class, or of the base where the code is not known.

    Args:
        code: from :func:`code_of`.
        detail: the message.
        actual: the version that the session has, of a :class:`VersionMismatch`.
        retry_after: seconds to wait, of a :class:`RateLimited` or :class:`ModelUnavailable`.
    """
    kind = _BY_CODE.get(code, PerdureError)
    if issubclass(kind, VersionMismatch):
        return kind(detail, actual=actual)
    if issubclass(kind, (RateLimited, ModelUnavailable)):
        return kind(detail, retry_after=retry_after)
    return kind(detail)


_BY_CODE = {
    code_of(found): found
    for found in list(globals().values())
    if isinstance(found, type) and issubclass(found, PerdureError)
}
