"""Every error Perdure raises on purpose, in one tree.

    PerdureError
    ├── NotFound
    │   ├── SessionNotFound        no such session for this app and user
    │   ├── InvocationNotFound     the session never had that invocation
    │   ├── ArtifactNotFound       no live version of that name
    │   └── UnknownAgent           no worker here serves that app
    ├── Conflict
    │   ├── SessionExists          create() of an id that is taken
    │   ├── SessionEnded           the session is closed; reopen it on purpose
    │   ├── VersionMismatch        expected_version is not the actual one
    │   ├── EventConflict          the event id is taken by other content
    │   ├── StaleEpoch             the turn was cancelled or rewound meanwhile
    │   ├── StateConflict          a key changed between read and write
    │   └── InvocationRewound      the invocation is no longer live
    ├── Invalid
    │   ├── InvalidMessage         empty, too large, or not what the handler takes
    │   ├── InvalidContent         text or numbers that JSON or a database cannot hold
    │   ├── InvalidName            an artifact name that could leave its folder
    │   ├── InvalidArguments       a tool's arguments do not fit its signature
    │   ├── InvalidAgent           an agent or tool is declared wrongly
    │   ├── InvalidInstruction     an instruction names a state key that is not set
    │   └── InvalidOption          a setting that does not exist or makes no sense
    ├── Busy                       the session's inbox is full; send again later
    └── ModelError
        ├── ModelUnavailable       can succeed later: 429, 5xx, a cut stream, a time-out
        └── ModelRefused           cannot: bad request, blocked, malformed output

An error crosses Temporal as an ``ApplicationError`` whose ``type`` is the class name:
:func:`by_name` finds the class again on the other side.
"""

from __future__ import annotations

__all__ = [
    "ArtifactNotFound",
    "Busy",
    "Conflict",
    "EventConflict",
    "Invalid",
    "InvalidAgent",
    "InvalidArguments",
    "InvalidContent",
    "InvalidInstruction",
    "InvalidMessage",
    "InvalidName",
    "InvalidOption",
    "InvocationNotFound",
    "InvocationRewound",
    "ModelError",
    "ModelRefused",
    "ModelUnavailable",
    "NotFound",
    "PerdureError",
    "SessionEnded",
    "SessionExists",
    "SessionNotFound",
    "StaleEpoch",
    "StateConflict",
    "UnknownAgent",
    "VersionMismatch",
    "by_name",
]


class PerdureError(Exception):
    """The base of all errors raised on purpose. Catch it at the edge of a service."""


class NotFound(PerdureError):
    """What was named is not there. Check the ids; nothing was changed."""


class SessionNotFound(NotFound):
    """No such session for this app and user, or it was deleted. Create it, or check all three ids."""


class InvocationNotFound(NotFound):
    """The session's log has no such invocation. List its events to find the right id."""


class ArtifactNotFound(NotFound):
    """No live version of that artifact: never saved, or saved after the point of a rewind."""


class UnknownAgent(NotFound):
    """This worker serves no agent of that name. Start a worker with ``--agents`` that names it."""


class Conflict(PerdureError):
    """Somebody else changed something first. Nothing was written; read again and decide."""


class SessionExists(Conflict):
    """The session id is taken for this app and user. Use it, or choose another id."""


class SessionEnded(Conflict):
    """The session was ended. Send the message with ``reopen`` set, or start another session."""


class VersionMismatch(Conflict):
    """``expected_version`` is not the session's version. Read the session again and retry.

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


class Busy(PerdureError):
    """The session's inbox is full. Nothing was accepted; send the same message again later."""


class ModelError(PerdureError):
    """The model did not answer usefully."""


class ModelUnavailable(ModelError):
    """It may answer later: rate limit, server error, cut stream, time-out.

    Args:
        message: what happened.
        retry_after: seconds the server asked us to wait, if it did.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ModelRefused(ModelError):
    """It will not answer this: a bad request, blocked content, output that makes no sense."""


def by_name(name: str | None) -> type[PerdureError] | None:
    """The class that an ``ApplicationError`` of this ``type`` stands for, or None if it is not ours."""
    found = globals().get(name) if name in __all__ else None
    return found if isinstance(found, type) and issubclass(found, PerdureError) else None
