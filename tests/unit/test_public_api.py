"""What ``import perdure`` gives, costs and says."""

from __future__ import annotations

import doctest
import subprocess
import sys
from importlib import metadata

import pytest

import perdure

HEAVY = (
    "google",
    "temporalio",
    "sqlalchemy",
    "pydantic",
    "griffe",
    "fsspec",
    "httpx",
    "httpx2",
    "perdure.client",
    "storage",
    "activities",
)


def test_the_names_are_exactly_these() -> None:
    assert perdure.__all__ == [
        "Agent",
        "AgentTool",
        "Artifact",
        "AsyncClient",
        "Budget",
        "Client",
        "Compaction",
        "Limits",
        "McpServer",
        "Memory",
        "PerdureError",
        "Price",
        "State",
        "Tool",
        "ToolContext",
        "__version__",
        "tool",
    ]
    for name in perdure.__all__:
        assert getattr(perdure, name) is not None


def test_tool_is_the_decorator_also_after_its_module_was_imported() -> None:
    import perdure.tool
    from perdure import tool

    assert callable(tool)
    assert perdure.tool is tool


def test_the_example_in_the_docstring_runs() -> None:
    results = doctest.testmod(perdure)
    assert results.attempted > 5
    assert results.failed == 0


def test_importing_it_is_light() -> None:
    code = f"import sys, perdure; print([name for name in {HEAVY!r} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_version_is_that_of_the_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: f"{name} 1.2.3")
    assert perdure.__version__ == "perdure 1.2.3"


def test_a_checkout_has_a_version_without_being_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert perdure.__version__.endswith("+checkout")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        perdure.nothing_of_the_kind  # noqa: B018 - the access is the test
