"""The gateway of ``perdure dev`` as a newcomer has it: a URL that is printed, and no token."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from tests.acceptance.test_dev import PATIENCE, PERDURE, WORKER, Dev, environment

pytestmark = pytest.mark.timeout(900)

SESSION = "/apps/counter/users/ann/sessions/s1"
ASKED = {"text": "Increment 'visits' counter by 1 and show its value"}


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    dev = Dev(tmp_path_factory.mktemp("dev"))
    try:
        dev.until("ready.")
        yield dev
    finally:
        dev.process.terminate()
        dev.process.wait(PATIENCE)


@pytest.fixture(scope="module")
def url(dev: Dev) -> str:
    found = re.search(
        r"^ *gateway +(http://127\.0\.0\.1:\d+)  for this machine, without a token$", dev.said, re.M
    )
    assert found is not None, dev.said
    return found[1]


@pytest.fixture
def http(url: str) -> Iterator[httpx2.Client]:
    with closing(httpx2.Client(base_url=url, trust_env=False, timeout=PATIENCE)) as client:
        yield client


def test_the_printed_url_answers_without_a_token(http: httpx2.Client) -> None:
    assert http.get("/list-apps").json() == ["counter"]
    answer = http.post(f"{SESSION}/messages", json=ASKED, headers={"idempotency-key": "m1"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"].endswith("The new value is 1.")
    assert http.get(f"{SESSION}/status").json()["session"]["state"] == {"counters": {"visits": 1}}
    with http.stream("GET", f"{SESSION}/events", headers={"accept": "text/event-stream"}) as stream:
        lines = stream.iter_lines()
        assert next(lines) == "id: 1"
        assert json.loads(next(lines).removeprefix("data: "))["author"] == "user"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example:8000"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
    ],
)
def test_a_page_in_a_browser_gets_nothing_and_does_nothing(
    http: httpx2.Client, headers: dict[str, str]
) -> None:
    session = "/apps/counter/users/eve/sessions/s1"
    answer = http.post(f"{session}/messages", json=ASKED, headers=headers)
    assert answer.status_code == 403
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "forbidden"
    assert http.get("/list-apps", headers=headers).status_code == 403
    assert http.get(f"{session}/status").status_code == 404, "nothing was done"


def test_it_listens_to_this_machine_only(dev: Dev, url: str) -> None:
    listening = [
        connection.laddr
        for connection in psutil.Process(dev.pid_of(WORKER)).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert {address.ip for address in listening} == {"127.0.0.1"}
    assert int(url.rpartition(":")[2]) in {address.port for address in listening}


def test_a_port_that_is_taken_is_one_readable_line(url: str, tmp_path: Path) -> None:
    port = url.rpartition(":")[2]
    done = subprocess.run(
        [
            *PERDURE,
            "dev",
            "examples.counter",
            "--no-ui",
            "--gateway-port",
            port,
            "--data",
            str(tmp_path / "data"),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment(),
        timeout=PATIENCE,
    )
    assert done.returncode == 1, done.stdout
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"the gateway needs port {port} of 127.0.0.1, and it is taken" in done.stderr


def test_without_a_port_another_one_is_found_and_printed(url: str, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    taken = int(url.rpartition(":")[2])
    (tmp_path / "data" / "dev.json").write_text(json.dumps({"gateway_port": taken}))
    second = Dev(tmp_path)
    try:
        second.until("ready.")
        found: Any = re.search(r"^ *gateway +(http://\S+)", second.said, re.M)
        assert f"port {taken} of the last run is taken; using" in second.said
        assert found[1] != url
        assert httpx2.get(f"{found[1]}/list-apps", trust_env=False, timeout=PATIENCE).json() == ["counter"]
    finally:
        second.process.terminate()
        second.process.wait(PATIENCE)
