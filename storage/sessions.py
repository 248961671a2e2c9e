"""``SessionStore``: sessions, their logs and their artifacts, on SQLite or PostgreSQL.

Each method that writes is one transaction under the lock of the session's row: it happens
whole or not at all, and run twice under one id it happens once. Errors of the database
itself are not ours to judge and pass through; calling again is safe.

Every method may raise ``InvalidContent`` for a session key or an id that cannot be stored.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.types import Event, Json, JsonObject, Session, SessionKey
from storage import append, lifecycle, rewind, turns
from storage import state as state_rows
from storage.append_function import append_at_once, is_ordinary
from storage.append_sqlite import append_plainly, is_plain
from storage.copy_store import CopyStore
from storage.follow_store import FollowStore
from storage.key_store import KeyStore
from storage.many_store import ManyStore
from storage.memory_store import MemoryStore
from storage.message_store import MessageStore
from storage.options import StoreOptions
from storage.read_store import ReadStore
from storage.records import (
    MAX_ID_BYTES,
    Context,
    Remembered,
    Rewound,
    SessionPage,
    SessionUpdate,
    Turn,
    UpdateOutcome,
)
from storage.retention_store import RetentionStore
from storage.session_row import must_lock
from storage.storable import check_id, check_json, check_key, check_text
from storage.store import Confirm

__all__ = [
    "Confirm",
    "Context",
    "Remembered",
    "Rewound",
    "SessionPage",
    "SessionStore",
    "SessionUpdate",
    "StoreOptions",
    "Turn",
    "UpdateOutcome",
]

_log = logging.getLogger("perdure.storage")


class SessionStore(
    CopyStore, FollowStore, KeyStore, ManyStore, MemoryStore, MessageStore, ReadStore, RetentionStore
):
    """Where sessions live. Make one a process with :meth:`open`; it belongs to one event loop."""

    # Sessions

    async def create(
        self,
        key: SessionKey,
        *,
        state: Mapping[str, Json] | None = None,
        metadata: JsonObject | None = None,
        confirm: Confirm | None = None,
    ) -> Session:
        """Create a session.

        Args:
            key: its app, user and id.
            state: its initial state, which every rewind keeps; ``app:`` and ``user:`` keys are shared.
            metadata: what a service wants to find it by; not state, and not rewound.
            confirm: asked before the commit; whatever it raises is raised, and nothing was written.

        Raises:
            SessionExists: the id is taken for this app and user.
            InvalidContent: a value that cannot be stored.
        """
        check_key(key)
        given = state_rows.storable_delta(state or {})
        check_json(given, f"the initial state of {key}")
        check_json(metadata or {}, f"the metadata of {key}")
        described = dict(metadata or {})
        session = await self._write(
            "create", key, lambda conn: lifecycle.create(conn, key, given, described), confirm=confirm
        )
        _log.info("created session %s", key)
        return session

    async def update(
        self,
        key: SessionKey,
        *,
        request_id: str,
        state: Mapping[str, Json] | None = None,
        metadata: Mapping[str, Json] | None = None,
        expected_version: int | None = None,
        confirm: Confirm | None = None,
    ) -> Session:
        """Change state or metadata from outside a turn.

        Args:
            key: the session.
            request_id: sent again under the same id, the change of state happens once.
            state: a delta; null removes a key. It becomes an event, so it can be rewound.
            metadata: merged into what is there, key by key; null removes a key.
            expected_version: change nothing unless the session is at this version.
            confirm: as for :meth:`create`.

        Returns:
            The session after it, without events.

        Raises:
            SessionNotFound, SessionEnded, VersionMismatch, EventConflict, InvalidContent:
                nothing was written.
        """
        check_key(key)
        event = lifecycle.update_event(request_id, state or {})
        check_json(dict(metadata or {}), f"the metadata of {key}")
        described = dict(metadata or {})
        return await self._write(
            "update",
            key,
            lambda conn: lifecycle.update(conn, key, event, described, expected_version),
            confirm=confirm,
        )

    async def end(
        self, key: SessionKey, *, remember: bool = False, confirm: Confirm | None = None
    ) -> Session:
        """Close a session: later appends are refused. Ending it twice is the same as once.

        Args:
            key: the session.
            remember: put what is live into its user's memory; the last of it in the same transaction.
            confirm: as for :meth:`create`.

        Returns:
            Its final state, without events.

        Raises:
            SessionNotFound: there is none.
        """
        ready = await self._remember_ahead(key, confirm) if remember else None
        session = await self._write(
            "end",
            key,
            lambda conn: lifecycle.end(conn, key, remember=remember, ready=ready),
            confirm=confirm,
        )
        _log.info("ended session %s", key)
        return session

    # The log

    async def append(
        self,
        key: SessionKey,
        event: Event,
        *,
        epoch: int | None = None,
        first_wins: bool = False,
        expect: Mapping[str, Json] | None = None,
        expected_head: int | None = None,
        confirm: Confirm | None = None,
    ) -> Event:
        """Append an event with its changes of state and its artifacts.

        A partial event is given back as it is and changes nothing. A compaction event is
        refused if what it sums up was rewound, or summed up further, meanwhile.

        Args:
            key: the session.
            event: ``seq``, ``live`` and ``state_undo`` are filled in, ``created_at`` if it has none.
            epoch: refuse the event unless the session is still at this epoch; None is unfenced.
            first_wins: an id that is taken gives the stored event, whatever its content.
            expect: what keys were when they were read (:data:`perdure.state.MISSING` where there was
                none); looked at for the keys of the delta.
            expected_head: append nothing unless the log still ends at this seq.
            confirm: as for :meth:`create`.

        Returns:
            The event as stored; if its id was in the log already, what was stored then.

        Raises:
            SessionNotFound, SessionEnded, VersionMismatch, StaleEpoch, StateConflict,
            ArtifactNotFound, EventConflict, InvalidContent: nothing was written.
        """
        if event.partial:
            return event
        ready = append.prepared(event)
        expected = expect or {}
        if expected_head is None and confirm is None and is_ordinary(ready):
            done = await self._write_at_once(
                "append", key, lambda db: append_at_once(db, key, ready, epoch=epoch, expect=expected)
            )
            if done is not None:
                return done[0]

        plainly = self._db.sqlite and expected_head is None and is_plain(ready)

        async def work(conn: AsyncConnection) -> Event:
            if plainly and (done := await append_plainly(conn, key, ready, epoch=epoch, expect=expected)):
                return done[0]
            row = await must_lock(conn, key)
            await lifecycle.refuse_moved(conn, row, ready.id, expected_head)
            return await append.append(conn, row, ready, epoch=epoch, first_wins=first_wins, expect=expected)

        name = "append" if ready.compaction is None else "compaction"
        return await self._write(name, key, work, confirm=confirm)

    # Turns

    async def begin_turn(
        self,
        key: SessionKey,
        event: Event,
        *,
        epoch: int | None,
        reopen: bool = False,
        confirm: Confirm | None = None,
    ) -> Turn:
        """Append the user's event of a turn, or find out how the turn stands.

        Args:
            key: the session; created if there is none and ``epoch`` is None.
            event: the user's event, ``{invocation_id}:user``.
            epoch: what the caller's turns carry; None takes the session over by moving it.
            reopen: take the message also if the session was ended, and open it again.
            confirm: as for :meth:`create`; for whoever has no epoch, and may be late.

        Raises:
            SessionEnded, StaleEpoch, InvalidContent: nothing was written.
            SessionNotFound: ``epoch`` was given, and the session was deleted since.
            InvocationRewound: the invocation is in the log, but not live.
            EventConflict: the invocation is in the log with another message.
        """
        ready = append.prepared(event)
        if confirm is None and is_ordinary(ready):
            begun = await self._write_at_once(
                "begin_turn",
                key,
                lambda db: turns.begin_at_once(db, key, ready, epoch=epoch, reopen=reopen),
            )
            if begun is not None:
                return begun
        return await self._write(
            "begin_turn",
            key,
            lambda conn: turns.begin_turn(conn, key, ready, epoch=epoch, reopen=reopen),
            confirm=confirm,
        )

    async def interrupt(
        self,
        key: SessionKey,
        invocation_id: str,
        *,
        epoch: int | None,
        reason: str,
        error: JsonObject | None = None,
        confirm: Confirm | None = None,
    ) -> int:
        """End a turn that got no answer: mark it in the log and refuse whatever it still writes.

        Done twice it happens once. If the invocation has ended already nothing is added to the log.

        Args:
            key: the session; created if there is none and ``epoch`` is None, so that an attempt
                which comes late finds the mark.
            invocation_id: the turn.
            epoch: what its appends carry; None if that is not known.
            reason: why, for the log.
            error: ``{"type", "message"}`` if it failed.
            confirm: as for :meth:`create`.

        Returns:
            The session's epoch from now on.

        Raises:
            StaleEpoch: somebody else moved the session on.
            SessionNotFound: ``epoch`` was given, and the session was deleted since.
            InvalidContent: nothing was written.
        """
        check_id(invocation_id, "the invocation id", max_bytes=MAX_ID_BYTES - len(":end"))
        check_text(reason, f"the reason for interrupting {invocation_id}")
        check_json(error, f"the error of {invocation_id}")
        moved = await self._write(
            "interrupt",
            key,
            lambda conn: turns.interrupt(conn, key, invocation_id, epoch=epoch, reason=reason, error=error),
            confirm=confirm,
        )
        _log.info("interrupted %s of %s: epoch %d", invocation_id, key, moved)
        return moved

    async def rewind(
        self,
        key: SessionKey,
        *,
        before: str,
        request_id: str,
        interrupt: str | None = None,
        expected_head: int | None = None,
        confirm: Confirm | None = None,
    ) -> Rewound:
        """Make the session what it was just before an invocation. Nothing in the log is deleted.

        Session state and artifacts go back with it; ``app:``, ``user:`` and metadata do not. The
        rewind is itself an invocation, ``request_id``: rewinding before that is redo.

        Args:
            key: the session.
            before: the invocation.
            request_id: sent again under the same id, the rewind happens once.
            interrupt: a turn that was running: it is marked as ended first, in the same transaction.
            expected_head: rewind nothing unless the log still ends at this seq.
            confirm: as for :meth:`create`.

        Raises:
            SessionNotFound, SessionEnded, VersionMismatch: nothing was written.
            InvocationNotFound: the log has no such invocation.
            InvocationRewound: it has, but it is not live.
            EventConflict: the request id was another rewind's.
        """
        check_id(request_id, "the request id", max_bytes=MAX_ID_BYTES - len(":rewind"))
        check_id(before, "the invocation id", max_bytes=MAX_ID_BYTES)
        if interrupt is not None:
            check_id(interrupt, "the invocation id", max_bytes=MAX_ID_BYTES - len(":end"))

        async def work(conn: AsyncConnection) -> Rewound:
            row = await must_lock(conn, key)
            await lifecycle.refuse_moved(conn, row, f"{request_id}:rewind", expected_head)
            return await rewind.rewind(conn, row, before=before, request_id=request_id, interrupt=interrupt)

        done = await self._write("rewind", key, work, confirm=confirm)
        _log.info("rewound %s to before %s: marker at seq %d", key, before, done.event.seq)
        return done
