"""What a Runner does for a user who is to be deleted: nothing that an app has of them is left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from temporalio.client import Client

from gateway.visibility import of_user
from perdure.types import SessionKey
from storage.sessions import SessionStore

__all__ = ["DeletedUser", "UsersOfApps"]

AT_ONCE = 10
"""Sessions that are deleted side by side: a workflow may take seconds to close."""
PAGE = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class DeletedUser:
    """What there was of a user."""

    sessions: int
    """Sessions that were deleted."""
    remembered: int
    """Sessions of which something was remembered, also of those that were deleted before."""


class UsersOfApps:
    """The part of a Runner that is about users."""

    client: Client
    store: SessionStore

    async def delete_user(self, app: str, user_id: str) -> DeletedUser:
        """Delete all that an app has of a user.

        That is their sessions, as :meth:`gateway.runner.Runner.delete` does, the ``user:`` keys and
        artifacts, what was remembered, and the bytes of all that. Done twice it is the same as once, and
        one that died halfway is finished by another. What the user says from then on starts anew.

        Raises:
            InvalidContent: a name that none can have.
        """
        deleted = await self._delete_sessions(app, user_id)
        # Those of which the store has nothing yet, or nothing any more.
        await self._delete_all(await self._open_workflows(app, user_id))
        remembered = 0
        while True:
            deleted |= await self._delete_sessions(app, user_id)
            # Behind the sessions, which could write into it.
            there, count = await self.store.delete_shared(app, user_id)
            remembered += count
            if not there:
                return DeletedUser(sessions=len(deleted), remembered=remembered)

    async def _delete_sessions(self, app: str, user_id: str) -> set[SessionKey]:
        deleted: set[SessionKey] = set()
        while found := (await self.store.list_sessions(app, user_id, limit=PAGE)).sessions:
            keys = {session.key for session in found}
            await self._delete_all(keys)
            deleted |= keys
        return deleted

    async def _open_workflows(self, app: str, user_id: str) -> list[SessionKey]:
        query = f"WorkflowType = 'AgentSession' AND ExecutionStatus = 'Running' AND {of_user(app, user_id)}"
        return [SessionKey.parse(found.id) async for found in self.client.list_workflows(query)]

    async def _delete_all(self, keys: Iterable[SessionKey]) -> None:
        slots = asyncio.Semaphore(AT_ONCE)

        async def one(key: SessionKey) -> None:
            async with slots:
                await self.delete(key)

        # All of them to their end, whatever becomes of one.
        for done in await asyncio.gather(*map(one, keys), return_exceptions=True):
            if isinstance(done, BaseException):
                raise done

    async def delete(self, key: SessionKey) -> bool:
        """See :class:`gateway.runner.Runner`."""
        raise NotImplementedError
