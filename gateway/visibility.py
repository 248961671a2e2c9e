"""Conditions of a query that Temporal's visibility answers."""

from __future__ import annotations

from perdure import searchattributes
from storage.storable import check_text

__all__ = ["of_user", "quoted"]


def of_user(app: str, user_id: str) -> str:
    """That something belongs to a user of an app."""
    return f"{searchattributes.APP} = {quoted(app)} AND {searchattributes.USER} = {quoted(user_id)}"


def quoted(value: str) -> str:
    """A value as it stands in a query.

    Raises:
        InvalidContent: it holds what nobody's name can, and no query.
    """
    check_text(value, "a name that is looked for")
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
