"""How the programs import what they are made of."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from perdure.loading import loading


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    enabled = gc.isenabled()
    yield
    gc.enable() if enabled else gc.disable()


def test_no_garbage_is_looked_for_meanwhile_and_again_afterwards() -> None:
    gc.enable()
    frozen = gc.get_freeze_count()
    with loading():
        assert not gc.isenabled()
        kept: list[list[int]] = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen + len(kept)


def test_also_if_a_module_cannot_be_imported() -> None:
    gc.enable()
    with pytest.raises(ImportError, match="no such module"), loading():
        raise ImportError("no such module")
    assert gc.isenabled()


def test_where_somebody_has_turned_it_off_it_stays_off() -> None:
    gc.disable()
    with loading():
        pass
    assert not gc.isenabled()
