"""How a session's workflow is started, by whoever sends it its first message."""

from __future__ import annotations

from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from perdure import searchattributes
from perdure.types import SessionKey

__all__ = ["SESSION_WORKFLOW", "WORKFLOW_ID_LENGTH", "attributes", "owner_attributes", "summary"]

SESSION_WORKFLOW = "AgentSession"

WORKFLOW_ID_LENGTH = 1000
"""The longest id that Temporal takes, where its configuration says nothing else."""


def attributes(key: SessionKey) -> TypedSearchAttributes:
    """The search attributes of a session that is started."""
    return _pairs({**_owner(key), searchattributes.STATUS: "open"})


def owner_attributes(key: SessionKey) -> TypedSearchAttributes:
    """Those that say whose session something belongs to."""
    return _pairs(_owner(key))


def summary(key: SessionKey) -> str:
    """What the UI calls a session."""
    return f"{key.app} · {key.user_id} · {key.session_id}"


def _owner(key: SessionKey) -> dict[str, str]:
    return {searchattributes.APP: key.app, searchattributes.USER: key.user_id}


def _pairs(values: dict[str, str]) -> TypedSearchAttributes:
    return TypedSearchAttributes(
        [SearchAttributePair(SearchAttributeKey.for_keyword(name), value) for name, value in values.items()]
    )
