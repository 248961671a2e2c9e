"""Who owns what: from google-adk's three names to the key of a session in the store.

The store reads and writes through a session. google-adk also asks for what a user has
without naming one: artifacts saved with no session, a user's state. For that a user who
needs it gets one session of a reserved id, which no list shows.
"""

from __future__ import annotations

import contextlib

from perdure.errors import SessionExists
from perdure.types import SessionKey
from storage.sessions import SessionStore

__all__ = ["USERS_OWN", "key_of", "own_session"]

USERS_OWN = "user/own"
"""The reserved id. google-adk's artifact services reserve the segment ``user`` as well."""


def key_of(app_name: str, user_id: str, session_id: str) -> SessionKey:
    """The key of a session. Spaces around its id don't count, as with google-adk's own services."""
    return SessionKey(app=app_name, user_id=user_id, session_id=session_id.strip())


async def own_session(store: SessionStore, app_name: str, user_id: str) -> SessionKey:
    """The reserved session of a user, made now if there is none."""
    key = key_of(app_name, user_id, USERS_OWN)
    with contextlib.suppress(SessionExists):
        await store.create(key, metadata={"google_adk": "what the user owns without a session"})
    return key
