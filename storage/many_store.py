"""What a store does with many sessions at once: find them, and update them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import InvalidOption, PerdureError
from perdure.types import Event, Json, JsonObject, Session
from storage import lifecycle, listing, state
from storage.records import SessionPage, SessionUpdate, UpdateOutcome
from storage.session_row import must_lock
from storage.storable import check_id, check_json, check_key
from storage.store import Store

__all__ = ["ManyStore"]


class ManyStore(Store):
    """Finds and updates sessions."""

    async def find_sessions(
        self,
        app: str,
        metadata: Mapping[str, Json],
        *,
        user_id: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> SessionPage:
        """A page of an app's sessions whose metadata has all these values, the one changed last first.

        A value is the same if it is the same JSON: 1 is neither "1" nor true, but it is 1.0;
        lists and objects count whole. None finds keys that hold null, not those that are missing.

        Args:
            app: whose sessions; others are never found.
            metadata: what each of them has, key by key. Nothing at all is what every session has.
            user_id: only this user's.
            limit: how many, up to 1,000.
            cursor: the ``next_cursor`` of the page before.

        Raises:
            InvalidOption: a limit or cursor that makes no sense.
            InvalidContent: a value that no session could have.
        """
        check_id(app, "the app")
        if user_id is not None:
            check_id(user_id, "the user_id")
        wanted = dict(metadata)
        check_json(wanted, f"the metadata to find sessions of {app} by")
        return await self._db.read(
            lambda conn: listing.page(conn, app, user_id, limit=limit, cursor=cursor, metadata=wanted)
        )

    async def batch_update(
        self, updates: Sequence[SessionUpdate], *, atomic: bool = False
    ) -> list[UpdateOutcome]:
        """Change state or metadata of several sessions from outside a turn.

        Args:
            updates: the changes, at most one a session. Sent again under their request ids, they
                happen once.
            atomic: all of them in one transaction, or none. Where two set one ``app:`` or
                ``user:`` key, the later in the list wins. If False, each is a transaction of its
                own, and one that is refused does not keep the others from being done.

        Returns:
            An outcome for each, in their order. Those of an atomic batch all have a session.

        Raises:
            InvalidOption: a session is named twice; nothing was written.
            SessionNotFound, SessionEnded, VersionMismatch, EventConflict, InvalidContent: of an
                atomic batch, what the first change that was refused was refused for; nothing was
                written.
        """
        counts = Counter(update.key for update in updates)
        if twice := [str(key) for key, count in counts.items() if count > 1]:
            raise InvalidOption(f"the batch names {', '.join(twice)} twice; join those changes into one")
        if atomic:
            return await self._update_all(updates)
        return [await self._update_one(update) for update in updates]

    async def _update_one(self, update: SessionUpdate) -> UpdateOutcome:
        try:
            event, metadata = _prepared(update)
            session = await self._write(
                "update",
                update.key,
                lambda conn: lifecycle.update(conn, update.key, event, metadata, update.expected_version),
            )
        except PerdureError as error:
            return UpdateOutcome(key=update.key, error=error)
        return UpdateOutcome(key=update.key, session=session)

    async def _update_all(self, updates: Sequence[SessionUpdate]) -> list[UpdateOutcome]:
        changes = [(update, *_prepared(update)) for update in updates]

        async def work(conn: AsyncConnection) -> list[Session]:
            # Every batch locks in one order, so that none waits for one that waits for it.
            order = sorted((update.key for update in updates), key=lambda key: key.workflow_id)
            rows = {key: await must_lock(conn, key) for key in order}
            shared = []
            for update, event, metadata in changes:
                row = rows[update.key]
                if await lifecycle.apply_update(
                    conn, row, event, metadata, update.expected_version, shared=False
                ):
                    shared.append((update.key, event.state_delta))
            await state.write_shared_of_many(conn, shared)
            return [rows[update.key].session(await state.load(conn, update.key)) for update in updates]

        sessions = await self._db.write(work) if changes else []
        for session in sessions:
            self.feed.changed(session.key)
        return [UpdateOutcome(key=session.key, session=session) for session in sessions]


def _prepared(update: SessionUpdate) -> tuple[Event, JsonObject]:
    """The event and the metadata of a change, checked."""
    check_key(update.key)
    metadata = dict(update.metadata or {})
    check_json(metadata, f"the metadata of {update.key}")
    return lifecycle.update_event(update.request_id, update.state or {}), metadata
