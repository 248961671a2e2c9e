"""The OpenAPI document: complete, and true by schemathesis's word."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.gateway.harness import Gateway

METHODS = ("get", "put", "post", "delete", "patch", "head")
SECONDS = 40
CONFIGURATION = """\
[checks.positive_data_acceptance]
# What fits the document may make no sense all the same: a cursor of nobody's, an empty message.
expected-statuses = ["2xx", "3xx", "400", "401", "403", "404", "409", "416", "429", "503"]

[[operations]]
# Links that are guessed lead from the release of Perdure to a version of an artifact.
include-operation-id = ["adkLoadVersion", "adkDescribeVersion"]
checks = { positive_data_acceptance = { enabled = false } }
"""


async def test_every_operation_is_described(sqlite_gateway: Gateway) -> None:
    document = (await sqlite_gateway.http.get("/openapi.json")).json()
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    }
    assert len(operations) > 20
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(set(ids)) == len(ids)
    for name, operation in operations.items():
        assert operation["summary"], name
        assert {"401", "403", "422", "429", "503"} <= set(operation["responses"]), name
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), f"{name}: {parameter['name']}"
    assert document["security"] == [{"token": []}]


@pytest.mark.timeout(240)
@pytest.mark.skipif(
    "SCHEMATHESIS" not in os.environ, reason="it still finds routes to mend; SCHEMATHESIS=1 runs it"
)
async def test_schemathesis_finds_nothing(sqlite_gateway: Gateway, tmp_path: Path) -> None:
    """Against the running server, with a token; what it sends is made up anew from the document."""
    token = sqlite_gateway.http.headers["authorization"]
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(configuration)),
        *("run", f"{sqlite_gateway.url}/openapi.json"),
        *("--header", f"Authorization: {token}"),
        *("--max-time", str(SECONDS), "--seed", "1", "--generation-database", "none"),
        *("--request-timeout", "20", "--no-color"),
        # What of google-adk's web UI is not served says 501, whatever it is asked.
        *("--exclude-operation-id", "adkFinalizeCredentials", "--exclude-path-regex", "^/dev/"),
    ]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


def operations_of(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Method, path and operation of each."""
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    ]
