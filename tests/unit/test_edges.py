"""The edge of a workflow's handlers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from temporalio import workflow

from perdure.errors import Busy
from workflows.edges import LONGEST_HISTORY, check_length


def test_a_run_that_cannot_end_is_asked_nothing_once_its_history_is_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    length = LONGEST_HISTORY
    monkeypatch.setattr(workflow, "info", lambda: SimpleNamespace(get_current_history_length=lambda: length))
    check_length("boss/ada/main")
    length += 1
    with pytest.raises(Busy, match="boss/ada/main"):
        check_length("boss/ada/main")
