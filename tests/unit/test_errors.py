"""The error tree: as drawn, complete, and found again by name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from perdure import errors
from perdure.errors import PerdureError, by_name

CLASSES = [value for value in vars(errors).values() if isinstance(value, type)]
ROOT = Path(__file__).parents[2]
ROOMS = ("perdure", "storage", "activities", "workflows", "gateway", "embedded", "cli", "integrations")


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
    assert {cls.__name__ for cls in CLASSES} | {"by_name", "code_of", "error_of"} == set(errors.__all__)
    assert sorted(errors.__all__, key=str.lower) == sorted(set(errors.__all__), key=str.lower)
    for cls in CLASSES:
        assert cls.__doc__, f"{cls.__name__} has no docstring"


@pytest.mark.parametrize("cls", CLASSES)
def test_a_class_is_found_by_its_name(cls: type) -> None:
    assert by_name(cls.__name__) is cls


@pytest.mark.parametrize(
    "name", [None, "", "by_name", "code_of", "ValueError", "annotations", "__all__", "object"]
)
def test_other_names_are_not_ours(name: str | None) -> None:
    assert by_name(name) is None


def test_errors_carry_what_their_handlers_need() -> None:
    assert errors.VersionMismatch("expected 1", actual=2).actual == 2
    assert errors.ModelUnavailable("429", retry_after=1.5).retry_after == 1.5
    assert errors.ModelUnavailable("cut").retry_after is None


@pytest.mark.parametrize("cls", CLASSES)
def test_a_class_that_is_raised_has_a_test_that_meets_it(cls: type) -> None:
    """Those that only hang others together are raised nowhere; a test waits for each of the rest."""
    if raised := cls.__name__ in names_raised():
        assert cls.__name__ in names_expected(), f"no test waits for {cls.__name__}"
    assert raised or cls.__subclasses__(), f"nothing raises {cls.__name__}"


@cache
def names_raised() -> set[str]:
    """What stands behind ``raise`` in the code, or is made there to be raised later."""
    calls = (node for node in nodes_of(*ROOMS) if isinstance(node, ast.Call))
    return {name for call in calls for name in names_in(call.func)}


@cache
def names_expected() -> set[str]:
    """What tests say that ``pytest.raises`` is to find, or that a value is an instance of."""
    calls = (node for node in nodes_of("tests") if isinstance(node, ast.Call) and node.args)
    waiting = (call for call in calls if names_in(call.func) & {"raises", "isinstance"})
    return {name for call in waiting for name in names_in(call.args[-1])}


def nodes_of(*folders: str) -> Iterator[ast.AST]:
    for folder in folders:
        for path in (ROOT / folder).rglob("*.py"):
            yield from ast.walk(ast.parse(path.read_text()))


def names_in(node: ast.AST) -> set[str]:
    """The last parts of the names that an expression consists of: ``errors.Busy`` is ``Busy``."""
    if isinstance(node, ast.Tuple):
        return {name for each in node.elts for name in names_in(each)}
    if isinstance(node, ast.Attribute):
        return {node.attr}
    return {node.id} if isinstance(node, ast.Name) else set()
