"""Where an artifact belongs: to a session, or to the user."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from google.adk.errors.input_validation_error import InputValidationError

from integrations.adk_json.owners import USERS_OWN, key_of, stand_in
from perdure.errors import SessionNotFound
from perdure.types import SessionKey
from storage.sessions import SessionStore

__all__ = ["Place"]

USER_PREFIX = "user:"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """An artifact's owner and its name in the store."""

    app_name: str
    user_id: str
    session_id: str | None
    """The session that asks, if one does."""
    name: str

    @classmethod
    def of(cls, app_name: str, user_id: str, session_id: str | None, filename: str) -> Place:
        """Without a session an artifact is the user's: its name gets the prefix that says so.

        Raises:
            InputValidationError: a session id that no session can have.
        """
        if session_id is not None and session_id.strip() in ("", USERS_OWN):
            raise InputValidationError(f"session_id {session_id!r} is empty or reserved.")
        users = session_id is None and not filename.startswith(USER_PREFIX)
        name = f"{USER_PREFIX}{filename}" if users else filename
        return cls(app_name=app_name, user_id=user_id, session_id=session_id, name=name)

    @property
    def owner(self) -> str | None:
        """The session it belongs to; None if it is the user's."""
        return None if self.name.startswith(USER_PREFIX) else self.session_id

    @property
    def key(self) -> SessionKey:
        """The session through which it is reached: the one that asks, or the user's stand-in."""
        return key_of(self.app_name, self.user_id, self.session_id or USERS_OWN)

    async def read(
        self, store: SessionStore, action: Callable[[SessionStore, SessionKey], Awaitable[T]]
    ) -> T | None:
        """Read through the session that asks or, for what is the user's, without one.

        None if there is no such session, and the artifact would be its own.
        """
        try:
            return await action(store, self.key)
        except SessionNotFound:
            if self.owner is not None:
                return None
        users = key_of(self.app_name, self.user_id, USERS_OWN)
        await stand_in(store, users)
        return await action(store, users)

    async def write(
        self, store: SessionStore, action: Callable[[SessionStore, SessionKey], Awaitable[T]]
    ) -> T:
        """Write through the session that asks; if there is none, through a stand-in for it."""
        try:
            return await action(store, self.key)
        except SessionNotFound:
            await stand_in(store, self.key)
        return await action(store, self.key)
