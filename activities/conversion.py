"""How records and failures become what Temporal keeps: plain JSON, and as few words as can be."""

from __future__ import annotations

from typing import Literal

from temporalio.api.failure.v1 import Failure as FailureProto
from temporalio.contrib.pydantic import PydanticPayloadConverter, ToJsonOptions
from temporalio.converter import DataConverter, DefaultFailureConverter, PayloadConverter
from temporalio.exceptions import FailureError

from perdure.errors import PerdureError

__all__ = ["SealableFailureConverter", "data_converter"]

FOREIGN_MESSAGE = 300
"""Characters that the history keeps of an outage's error."""

FailureKind = Literal["application_failure_info", "canceled_failure_info", "timeout_failure_info"]

_OUTAGES = frozenset({"asyncpg", "botocore", "sqlalchemy", "sqlite3"})
"""Packages whose errors tell of an outage in their first line."""


_DETAILS: dict[FailureKind, str] = {
    "application_failure_info": "details",
    "canceled_failure_info": "details",
    "timeout_failure_info": "last_heartbeat_details",
}
"""Where the failures of each kind have their details."""


class _PayloadConverter(PydanticPayloadConverter):
    def __init__(self) -> None:
        super().__init__(ToJsonOptions(exclude_unset=True))


class _FailureConverter(DefaultFailureConverter):
    """An error's type and message; the rest is in the worker's log.

    A stack trace and a chain of causes are kilobytes of history at each try. And an error that
    is not ours may quote anything: only one of the network, the disk or the database keeps its
    first line, which tells of an outage; the second may quote what could not be written.
    """

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: FailureProto
    ) -> None:
        super().to_failure(exception, payload_converter, failure)
        failure.stack_trace = ""
        if failure.HasField("application_failure_info"):
            failure.ClearField("cause")
            if not isinstance(exception, FailureError):
                failure.message = _first_line(exception)

    def from_failure(self, failure: FailureProto, payload_converter: PayloadConverter) -> BaseException:
        # Nobody reads them; and those of an activity of somebody else's might be of no form that we know.
        plain = FailureProto()
        plain.CopyFrom(failure)
        for kind, details in _DETAILS.items():
            if plain.HasField(kind):
                getattr(plain, kind).ClearField(details)
        return super().from_failure(plain, payload_converter)


class SealableFailureConverter(_FailureConverter):
    """The same, with the message where a codec encrypts it."""

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: FailureProto
    ) -> None:
        super().to_failure(exception, payload_converter, failure)
        # Also one that came from the history, and has its words in the clear since it was read.
        common = {"message": failure.message, "stack_trace": failure.stack_trace}
        failure.encoded_attributes.CopyFrom(payload_converter.to_payloads([common])[0])
        failure.message = "Encoded failure"
        failure.stack_trace = ""


def _first_line(error: BaseException) -> str:
    kind = type(error)
    if isinstance(error, PerdureError):
        return str(error)
    if isinstance(error, OSError) or kind.__module__.partition(".")[0] in _OUTAGES:
        return str(error).partition("\n")[0][:FOREIGN_MESSAGE]
    return f"{kind.__name__} in a worker; its log says where"


data_converter = DataConverter(
    payload_converter_class=_PayloadConverter, failure_converter_class=_FailureConverter
)
"""Plain JSON, fields left unset not sent. Every client and worker of Perdure uses it."""
