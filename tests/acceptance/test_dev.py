"""``perdure dev`` as a newcomer has it: it runs, what is killed comes back, and it stops cleanly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.timeout(900)

PATIENCE = 180.0


class Dev:
    """One ``perdure dev`` on a folder, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self._out = folder / "dev.out"
        with self._out.open("w") as out:
            self.process = subprocess.Popen(
                [*PERDURE, "dev", "examples.counter", "--no-ui", *self._where],
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment(),
            )

    @property
    def _where(self) -> list[str]:
        return ["--data", str(self.data)]

    @property
    def said(self) -> str:
        return self._out.read_text()

    def until(self, text: str, times: int = 1) -> None:
        """Wait until it has said something."""
        deadline = time.monotonic() + PATIENCE
        while self.said.count(text) < times:
            assert self.process.poll() is None, f"it ended before it said {text!r}:\n{self.said}"
            assert time.monotonic() < deadline, f"it did not say {text!r}:\n{self.said}"
            time.sleep(0.05)

    def pid_of(self, service: str) -> int:
        found = json.loads((self.data / service).read_text())["pid"]
        assert isinstance(found, int)
        return found

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PERDURE, *arguments, *self._where],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=environment(),
            timeout=PATIENCE,
        )


PERDURE = [sys.executable, "-m", "perdure"]
WORKER, STANDIN, TEMPORAL = "run/worker.pid", "run/standin.pid", "temporal/temporal.pid"


def environment() -> dict[str, str]:
    """Ours, with the checkout importable from any folder, and no settings."""
    checkout = str(Path(__file__).resolve().parents[2])
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("PERDURE_") and name not in ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    }
    return {**kept, "PYTHONPATH": checkout}


def children(pids: list[int]) -> list[int]:
    """Those of the pids that still run."""
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    dev = Dev(tmp_path)
    yield dev
    if dev.process.poll() is None:
        dev.process.terminate()
    dev.process.wait(PATIENCE)


def test_a_session_outlives_its_worker_and_the_stack_itself(dev: Dev, tmp_path: Path) -> None:
    dev.until("ready.")
    first = dev.run("chat", "counter", stdin="Increment 'visits' counter by 1 and show its value\n")
    assert first.returncode == 0, first.stderr
    assert "increment_counter(counter_name=visits, amount=1)" in first.stdout
    assert "The new value is 1." in first.stdout

    # A second one on the same folder says so, in one line.
    second = dev.run("dev", "examples.counter", "--no-ui")
    assert second.returncode == 1
    assert "AlreadyRunning" in second.stderr
    assert "Traceback" not in second.stderr

    # A worker that is killed comes back, and a message sent meanwhile is answered.
    os.kill(dev.pid_of(WORKER), signal.SIGKILL)
    during = dev.run("chat", "counter", stdin="Increment 'visits' counter by 1 and show its value\n")
    assert "The new value is 2." in during.stdout
    dev.until("the worker runs again")

    # The whole of it is killed: its parts run on alone, and the next one ends them and goes on.
    left = [dev.pid_of(WORKER), dev.pid_of(STANDIN), dev.pid_of(TEMPORAL)]
    address = json.loads((dev.data / "dev.json").read_text())["settings"]["temporal_address"]
    dev.process.kill()
    dev.process.wait(PATIENCE)
    assert children(left) == left
    again = Dev(tmp_path)
    try:
        again.until("ready.")
        assert children(left) == []
        assert json.loads((dev.data / "dev.json").read_text())["settings"]["temporal_address"] == address
        third = again.run("chat", "counter", stdin="Increment 'visits' counter by 1 and show its value\n")
        assert "The new value is 3." in third.stdout
        shown = again.run("sessions", "show", "counter/user/chat", "--json")
        assert json.loads(shown.stdout)["state"] == {"counters": {"visits": 3}}
        running = [again.pid_of(WORKER), again.pid_of(STANDIN), again.pid_of(TEMPORAL)]
    finally:
        again.process.send_signal(signal.SIGINT)
        code = again.process.wait(PATIENCE)
    assert code == 0, again.said
    assert again.said.endswith("stopped\n")
    assert children(running) == []


def test_an_agent_that_does_not_exist_is_one_readable_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PERDURE, "dev", "nowhere.py", "--data", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=environment(),
        timeout=PATIENCE,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("perdure: InvalidAgent: ")
    assert done.stderr.count("\n") == 1
    assert "nowhere.py" in done.stderr
