"""The OpenAPI document: complete, and true by schemathesis's word."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from embedded.temporal import TemporalServer
from examples import counter
from storage.sessions import SessionStore
from tests.gateway.harness import Gateway, open_gateway
from tests.integration.agents import AGENTS
from tests.integration.harness import open_world

METHODS = ("get", "put", "post", "delete", "patch", "head")
EXAMPLES = 5
"""Requests that are made up for each operation, beside those of the document and of its limits."""
CONFIGURATION = """\
[phases.stateful]
max-steps = 10

[checks.positive_data_acceptance]
# What fits the document may make no sense all the same: a cursor of nobody's, an empty message.
expected-statuses = ["2xx", "3xx", "400", "404", "409", "416"]

[[operations]]
# google-adk's models, which these have, take a number for its text and true for 1; and a part of
# genai's is a file in base64, or an enum, where the document says text. Its combinations are thousands.
include-operation-id = ["adkRun", "adkRunSse", "adkCreateSession", "adkSaveArtifact"]
checks.negative_data_rejection.expected-statuses = ["2xx", "4xx"]
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "409", "422"]
phases.coverage.enabled = false

[[operations]]
# An artifact's name may have slashes in it, so what is here deleted is an artifact named `a/versions`.
include-operation-id = ["adkListVersions", "adkDescribeVersions"]
checks.allow_header_conformance.enabled = false
checks.unsupported_method.enabled = false

[[operations]]
# As above; and links that are guessed lead from the release of Perdure to a version of an artifact.
include-operation-id = ["adkLoadVersion", "adkDescribeVersion"]
checks.allow_header_conformance.enabled = false
checks.unsupported_method.enabled = false
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "422"]

[[operations]]
# What of google-adk is not served says so, whatever it is asked, as google-adk does.
include-operation-id = ["adkFinalizeCredentials"]
checks.not_a_server_error.expected-statuses = ["4xx", "501"]
checks.positive_data_acceptance.expected-statuses = ["501"]
"""


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SessionStore]:
    """One of its own: what other tests left would be found, and change what is tried next."""
    url = f"sqlite:///{tmp_path}/perdure.db"
    store = await SessionStore.open(url, f"file://{tmp_path}/artifacts", migrate=True)
    yield store
    await store.close()


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
            assert "null" not in json.dumps(parameter["schema"]), (
                f"{name}: {parameter['name']} is text or not there"
            )
    assert document["security"] == [{"token": []}]


async def test_every_body_and_every_answer_has_an_example_that_fits(sqlite_gateway: Gateway) -> None:
    document = (await sqlite_gateway.http.get("/openapi.json")).json()
    parts = {"components": document["components"]}
    without = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            bodies = {"request": operation.get("requestBody", {})}
            bodies |= {code: said for code, said in operation["responses"].items() if code.startswith("2")}
            for where, body in bodies.items():
                shown = body.get("content", {}).get("application/json")
                if shown is None or not shown["schema"]:
                    continue  # It says nothing, in no form: null.
                examples = [shown["example"]] if "example" in shown else examples_of(shown["schema"], parts)
                fits = jsonschema_rs.validator_for(shown["schema"] | parts).is_valid
                assert all(map(fits, examples)), f"{method.upper()} {path} {where}"
                if not examples:
                    without.append(f"{method.upper()} {path} {where}")
    assert without == []


def examples_of(schema: Any, parts: Any) -> list[Any]:
    """Those of a schema, or of the one that it names."""
    if "$ref" in schema:
        return examples_of(parts["components"]["schemas"][schema["$ref"].rpartition("/")[2]], parts)
    kinds = [found for kind in schema.get("anyOf", ()) for found in examples_of(kind, parts)]
    return schema.get("examples", []) or kinds


@pytest.mark.timeout(900)
async def test_schemathesis_finds_nothing(store: SessionStore, tmp_path: Path) -> None:
    """All its checks, against the running server. It makes up the same requests each time.

    The examples name sessions, which on a Temporal server of other tests are open workflows of theirs.
    """
    configuration = tmp_path / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    async with (
        TemporalServer(tmp_path / "temporal") as temporal,
        open_world(temporal.address, store, [counter.agent, *AGENTS]) as world,
        open_gateway(world) as gateway,
    ):
        command = [
            *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(configuration)),
            *("run", f"{gateway.url}/openapi.json"),
            *("--header", f"Authorization: {gateway.http.headers['authorization']}"),
            *("--max-examples", str(EXAMPLES), "--generation-deterministic", "--workers", "1"),
            *("--request-timeout", "60", "--no-color", "--warnings", "off"),
        ]
        process = await asyncio.create_subprocess_exec(
            *command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    paths = gateway.app.openapi()["paths"].values()
    count = sum(method in METHODS for methods in paths for method in methods)
    assert f"Tested: {count}\n" in said.decode(), said.decode()
