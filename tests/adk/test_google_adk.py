"""The services for google-adk, tested in an environment that has google-adk.

A case that fails there, or is skipped, is a subtest that fails here. To run some of them by
hand, with a PostgreSQL server of your own::

    PERDURE_TEST_POSTGRES=postgresql://user@host:port/postgres \\
        $(python -m tests.adk.environment) -m pytest tests/adk/suite -k rewind
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from embedded.postgres import PostgresServer
from tests.adk.environment import ROOT, command_environment, ensure

pytestmark = pytest.mark.timeout(900)

BENCH = "bench/store_adk.py"


@pytest.fixture(scope="module")
async def python() -> str:
    """The Python of google-adk's environment."""
    return str(await asyncio.to_thread(ensure))


@pytest.fixture(scope="module")
async def mypy(python: str) -> AsyncIterator[Process]:
    """The type checker, at work while the suite runs."""
    cache = ROOT / ".venv-adk" / "mypy_cache"
    # One by one: the suite's folder is closed to the checks of the main environment.
    suite = [str(file) for file in sorted((ROOT / "tests" / "adk" / "suite").rglob("*.py"))]
    process = await started(python, "-m", "mypy", "--cache-dir", str(cache), "integrations", BENCH, *suite)
    yield process
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def started(*command: str, **variables: str) -> Process:
    return await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=command_environment(**variables), stdout=PIPE, stderr=STDOUT
    )


async def said(process: Process) -> str:
    output, _ = await process.communicate()
    return output.decode(errors="replace")


async def test_the_suite(python: str, mypy: Process, tmp_path: Path, subtests: pytest.Subtests) -> None:
    report = tmp_path / "report.xml"
    settings = {"max_connections": "300", "synchronous_commit": "off"}
    async with PostgresServer(fsync=False, settings=settings) as postgres:
        process = await started(
            *(python, "-m", "pytest", "-p", "no:cacheprovider", "--tb=short", f"--junitxml={report}"),
            "tests/adk/suite",
            PERDURE_TEST_POSTGRES=postgres.url,
        )
        output = await said(process)
    assert report.is_file(), output
    cases = list(ElementTree.parse(report).iter("testcase"))
    for case in cases:
        problems = [found for kind in ("failure", "error", "skipped") for found in case.iter(kind)]
        for found in problems:
            with subtests.test(f"{case.get('classname')}::{case.get('name')}"):
                pytest.fail(f"{found.tag}: {found.get('message')}\n{found.text}", pytrace=False)
    assert len(cases) > 300, output
    assert process.returncode == 0, output


async def test_its_types(mypy: Process) -> None:
    output = await said(mypy)
    assert mypy.returncode == 0, output
