"""The error tree: as drawn, complete, and found again by name."""

from __future__ import annotations

import re

import pytest

from perdure import errors
from perdure.errors import PerdureError, by_name

CLASSES = [value for value in vars(errors).values() if isinstance(value, type)]


def drawn_tree() -> dict[str, str | None]:
    """Each class of the module's drawing with the class that it hangs from."""
    parents: dict[str, str | None] = {}
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ((?:[│ ]   )*(?:[├└]── )?)(\w+)", line)
        if found and (found[1] or found[2] == "PerdureError"):
            depth = len(found[1]) // 4
            del branch[depth:]
            parents[found[2]] = branch[-1] if branch else None
            branch.append(found[2])
    return parents


def test_the_tree_is_drawn_as_it_is() -> None:
    real = {
        cls.__name__: None if cls is PerdureError else cls.__base__.__name__
        for cls in CLASSES
        if cls.__base__
    }
    assert drawn_tree() == real


def test_every_class_is_exported_and_says_what_to_do() -> None:
    assert {cls.__name__ for cls in CLASSES} | {"by_name"} == set(errors.__all__)
    assert sorted(errors.__all__, key=str.lower) == sorted(set(errors.__all__), key=str.lower)
    for cls in CLASSES:
        assert cls.__doc__, f"{cls.__name__} has no docstring"


@pytest.mark.parametrize("cls", CLASSES)
def test_a_class_is_found_by_its_name(cls: type) -> None:
    assert by_name(cls.__name__) is cls


@pytest.mark.parametrize("name", [None, "", "by_name", "ValueError", "annotations", "__all__", "object"])
def test_other_names_are_not_ours(name: str | None) -> None:
    assert by_name(name) is None


def test_errors_carry_what_their_handlers_need() -> None:
    assert errors.VersionMismatch("expected 1", actual=2).actual == 2
    assert errors.ModelUnavailable("429", retry_after=1.5).retry_after == 1.5
    assert errors.ModelUnavailable("cut").retry_after is None
