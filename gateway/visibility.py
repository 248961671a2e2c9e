"""Conditions of a query that Temporal's visibility answers."""

from __future__ import annotations

from perdure import searchattributes

__all__ = ["of_user", "quoted"]


def of_user(app: str, user_id: str) -> str:
    """That something belongs to a user of an app."""
    return f"{searchattributes.APP} = {quoted(app)} AND {searchattributes.USER} = {quoted(user_id)}"


def quoted(value: str) -> str:
    """A value as it stands in a query."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
