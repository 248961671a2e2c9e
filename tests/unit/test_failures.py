"""Failures of others, as a workflow reads them."""

from __future__ import annotations

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.exceptions import ApplicationError

from activities.conversion import data_converter


def test_details_that_nobody_can_read_stop_no_workflow() -> None:
    failure = Failure(message="no light")
    failure.application_failure_info.type = "TooDark"
    failure.application_failure_info.details.payloads.append(
        Payload(metadata={"encoding": b"json/protobuf", "messageType": b"no.such.Message"}, data=b"{}")
    )
    error = data_converter.failure_converter.from_failure(failure, data_converter.payload_converter)
    assert isinstance(error, ApplicationError)
    assert (error.type, error.message, list(error.details)) == ("TooDark", "no light", [])
    assert failure.application_failure_info.details.payloads, "what was given is left as it is"
