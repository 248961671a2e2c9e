"""Who owns what: from google-adk's three names to the key of a session in the store.

The store reads and writes through a session; google-adk does not always have one. Its
artifact services take files for sessions that their session service never made, or that
it makes later, and for a user without any session; and it asks for a user's state without
one. For that the store gets a stand-in, which google-adk's session service neither finds
nor lists. A session created under its id takes it over, files and all.
"""

from __future__ import annotations

import contextlib

from perdure.errors import SessionExists
from perdure.types import Session, SessionKey
from storage.sessions import SessionStore

__all__ = ["MARK", "USERS_OWN", "is_stand_in", "key_of", "stand_in"]

USERS_OWN = "user/own"
"""The id of a user's stand-in. google-adk's artifact services reserve the segment ``user`` as well."""
MARK = "google_adk_stand_in"
"""In the metadata of a stand-in."""


def key_of(app_name: str, user_id: str, session_id: str) -> SessionKey:
    """The key of a session. Spaces around its id don't count, as with google-adk's own services."""
    return SessionKey(app=app_name, user_id=user_id, session_id=session_id.strip())


def is_stand_in(stored: Session) -> bool:
    """Whether there is a row in the store, but to google-adk no session."""
    return MARK in stored.metadata


async def stand_in(store: SessionStore, key: SessionKey) -> None:
    """Make a stand-in, unless there is a session or another stand-in already."""
    with contextlib.suppress(SessionExists):
        await store.create(key, metadata={MARK: True})
