"""docs/http.md: its examples run, in their order, by curl."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path

import pytest

from gateway.problems import STATUSES
from perdure.errors import code_of
from tests.gateway.harness import Gateway

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text("utf-8")
EXAMPLES = re.findall(r"^<!-- run -->\n```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


async def test_the_examples_run(sqlite_gateway: Gateway) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl command")
    # Ann's sessions may be there from a test before; here she begins anew.
    token = sqlite_gateway.tokens.give(apps={"counter"})
    for session in ("s1", "s2"):
        key = sqlite_gateway.world.key().__class__(app="counter", user_id="ann", session_id=session)
        await sqlite_gateway.world.runner.delete(key)
    assert len(EXAMPLES) >= 4
    said = []
    for example in EXAMPLES:
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-euc", example),
            env={"URL": sqlite_gateway.url, "TOKEN": token, "PATH": "/usr/bin:/bin", "NO_PROXY": "*"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, errors = await process.communicate()
        assert process.returncode == 0, f"{example}\n{out.decode()}\n{errors.decode()}"
        said.append(out.decode())
    answer = json.loads(said[0])
    assert answer.pop("spent")["modelCalls"] == 2
    assert answer == {
        "invocationId": "m1",
        "status": "answered",
        "seq": 4,
        "text": "I've incremented the 'one' counter by 1. The new value is 1.",
    }
    assert json.dumps(answer).removesuffix("}") in PAGE
    assert '"forkedFrom"' in said[2]
    assert "ten" in said[3]


def test_every_code_in_it_is_one() -> None:
    known = {code_of(kind) for kind in STATUSES}
    known |= {"route-not-found", "range-not-satisfiable", "method-not-allowed", "signing-keys-unavailable"}
    table = PAGE[PAGE.index("| status | codes |") : PAGE.index("A turn that fails is no error")]
    assert set(re.findall(r"`([a-z]+-[a-z-]+)`", table)) <= known
