"""The soak comes last: whatever is broken in the small has been told of by then."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move what is in this folder behind all else."""
    items.sort(key=lambda item: HERE in item.path.parents)
