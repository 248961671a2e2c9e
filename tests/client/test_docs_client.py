"""docs/client.md and examples/counter_client.py: they run against a gateway."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.gateway.harness import Gateway

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "client.md").read_text("utf-8")
EXAMPLES = re.findall(r"^<!-- run -->\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ALL = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


async def test_the_examples_run(
    sqlite_gateway: Gateway, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("URL", sqlite_gateway.url)
    monkeypatch.setenv("TOKEN", sqlite_gateway.tokens.give(apps={"counter"}, users={"ann"}))
    monkeypatch.setenv("NO_PROXY", "*")
    assert len(EXAMPLES) >= 6
    names: dict[str, object] = {"__name__": "example"}
    for example in EXAMPLES:
        await asyncio.to_thread(exec, compile(example, "docs/client.md", "exec"), names)
    said = capsys.readouterr().out
    assert "answered I've incremented the 'visits' counter by 1. The new value is 1." in said
    assert "1 bytes" in said
    assert "it is at version" in said
    assert "nowhere" in said
    names["client"].close()  # type: ignore[attr-defined]  # it is what the first example made


def test_the_others_are_python() -> None:
    for example in ALL:
        compile(example, "docs/client.md", "exec")


async def test_the_counter_is_played_over_http(sqlite_gateway: Gateway) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "examples" / "counter_client.py"), sqlite_gateway.url),
        env={
            **os.environ,
            "PERDURE_TOKEN": sqlite_gateway.tokens.give(apps={"counter"}, users={"ann"}),
            "NO_PROXY": "*",
            "PYTHONPATH": str(ROOT),
            "PYTHONIOENCODING": "utf-8",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    said = out.decode()
    assert process.returncode == 0, said + errors.decode()
    lines = iter(said.splitlines())
    for expected in (
        "👤 User: Increment 'visits' counter by 1 and show its value",
        "🤖 Agent: I've incremented the 'visits' counter by 1. The new value is 1.",
        "📄 counter-report.txt, version 1: visits: 1",
        "📍 State before the big increment: {'counters': {'visits': 1}}",
        "📍 State after +100: {'counters': {'visits': 101}}",
        "📍 State after the rewind: {'counters': {'visits': 1}}",
        "📍 State after the rewind of the rewind: {'counters': {'visits': 101}}",
        "📦 Events {'start': 1,",
        "📍 State at the end: {'counters': {'visits': 2, 'logins': 1, 'clicks': 1, 'views': 1, 'shares': 1}}",
        "✅ Session counter/ann/",
    ):
        assert any(line.startswith(expected) for line in lines), f"{expected!r} is missing from:\n{said}"
    assert said.rstrip().endswith("found again: True")
