"""What holds for all tests: the order in which they are run, and that nobody outside is trusted.

They wait more than they work, so several processes share them, a file at a time. The files
that take minutes go first, or the last of them would be run by one process alone. The unit
tests come last, and are asked for by themselves where somebody wants to know soon.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.plain_http import trust_nobody

TESTS = Path(__file__).parent
FIRST = ("soak", "integration", "acceptance", "adk", "typescript", "client", "gateway", "conformance")
"""Folders, those with the longest files first."""


def pytest_configure() -> None:
    """Before the first client is made, and before the first test is read."""
    trust_nobody()
    if find_spec("hypothesis") is None:
        return  # in google-adk's environment
    from hypothesis import HealthCheck, settings

    # How long something takes on a machine with other work says nothing about the code.
    settings.register_profile("perdure", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("perdure")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Look for no garbage while thousands of tests are collected, nor ever again among them."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort by folder; within one, the order stays."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    folder = item.path.relative_to(TESTS).parts[0]
    return FIRST.index(folder) if folder in FIRST else len(FIRST)
