"""A store's forgetting: sessions that are deleted, or expired, and blobs that nothing names any more."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from perdure.errors import InvalidOption
from perdure.types import SessionKey
from storage import expiry, garbage, lifecycle
from storage.artifact_store import ArtifactStore
from storage.blob_keys import is_draft, is_message, prefix_of
from storage.expiry import ExpiredPage
from storage.schema import utc_of
from storage.session_row import lock_or_insert
from storage.storable import check_id, check_key

__all__ = ["GRACE", "MESSAGE_GRACE", "Deletion", "RetentionStore"]

GRACE = timedelta(days=1)
"""How long a blob that nothing names is left alone: longer than any save takes from its bytes to its row."""
MESSAGE_GRACE = timedelta(days=30)
"""How long a message that nobody took is left alone: longer than a session's queue ever stands still."""
AT_ONCE = 200
"""Blobs looked at under one lock, so that a save of the same user waits for so few at most."""

Deletion = Literal["deleted", "gone", "kept"]
"""``gone``: there was no such session. ``kept``: it has changed since the cutoff, or is active."""

_log = logging.getLogger("perdure.storage")


class RetentionStore(ArtifactStore):
    """Deletes sessions, finds those that have expired, and collects blobs."""

    async def delete(self, key: SessionKey) -> bool:
        """Delete a session with its log, its state and its artifacts; no error if there is none.

        What belongs to the user or the app stays: ``user:`` and ``app:`` keys, ``user:`` artifacts, and
        what was remembered of it.
        The bytes that nothing names any more go right after it; if that fails, the session is
        deleted all the same and :meth:`collect_blobs` takes them later.

        A session's workflow knows nothing of it: ``Runner.delete`` closes that, too.

        Returns:
            Whether there was one.
        """
        return await self._delete(key, None) == "deleted"

    async def delete_shared(self, app: str, user_id: str) -> tuple[bool, int]:
        """Delete what an app has of a user beside sessions: ``user:`` keys and artifacts, and the memory.

        Also messages that nobody has taken, and all bytes that no session of the user's names.

        Returns:
            Whether there was anything, and of how many sessions something was remembered.
        """
        check_id(app, "the app")
        check_id(user_id, "the user_id")
        there, remembered, blobs = await self._db.write(
            lambda conn: lifecycle.delete_shared(conn, app, user_id)
        )
        prefix = prefix_of(SessionKey(app=app, user_id=user_id, session_id=""))
        try:
            await self._collect_all(prefix, sorted({*blobs, *await self._blobs.keys(prefix)}))
        except Exception:  # noqa: BLE001 - as for a session
            _log.warning("blobs of a user of app %s are left for collect_blobs", app, exc_info=True)
        if there:
            _log.info("deleted what sessions of a user of app %s shared", app)
        return there, remembered

    async def delete_expired(self, key: SessionKey, before: datetime) -> Deletion:
        """Delete a session if, under its lock, it still has expired, as :meth:`expired` has it.

        Args:
            key: the session.
            before: the cutoff.

        Raises:
            InvalidOption: a cutoff without a timezone.
        """
        _check_cutoff(before)
        return await self._delete(key, before)

    async def expired(
        self, app: str | None, before: datetime, *, limit: int = 100, cursor: str | None = None
    ) -> ExpiredPage:
        """Sessions whose last change, ``updated_at``, was before the cutoff, but no active ones.

        A session is active while its last live turn has no end, unless it was ended.

        Args:
            app: whose sessions; None for all.
            before: the cutoff; a session changed exactly then has not expired.
            limit: how many to look at, up to 1,000; the active ones among them are left out.
            cursor: the ``next_cursor`` of the page before.

        Raises:
            InvalidOption: a limit, cutoff or cursor that makes no sense.
        """
        _check_cutoff(before)
        if app is not None:
            check_id(app, "the app")
        return await self._db.read(lambda conn: expiry.page(conn, app, before, limit=limit, cursor=cursor))

    async def collect_blobs(self, *, older_than: timedelta = GRACE, dry_run: bool = False) -> int:
        """Remove the blobs that no artifact version names: what a crash left, or a retry replaced.

        A save that is under way loses nothing by it, whatever the age (:mod:`storage.garbage`);
        the age keeps its bytes from being written twice.

        Args:
            older_than: only those written so long ago, by the clock of the blobs' filesystem;
                what a crash left half-written is left for :data:`GRACE` at least.
            dry_run: only count them.

        Returns:
            How many there were.

        Raises:
            InvalidOption: an age below nothing.
        """
        if older_than < timedelta(0):
            raise InvalidOption(f"older_than is {older_than}; give an age of nothing or more")
        before = datetime.now(UTC) - older_than
        collected = await self._drop_uploads(datetime.now(UTC) - max(older_than, GRACE), dry_run)
        for prefix in await self._blobs.prefixes():
            keys = await self._blobs.keys(prefix)
            for start in range(0, len(keys), AT_ONCE):
                collected += await self._collect(prefix, keys[start : start + AT_ONCE], before, dry_run)
        if collected and not dry_run:
            _log.info("collected %d blobs that nothing names", collected)
        return collected

    async def _drop_uploads(self, before: datetime, dry_run: bool) -> int:
        try:
            return await self._blobs.drop_uploads(before, dry_run=dry_run)
        except OSError as error:  # a bucket may allow all but this, and its blobs are collected all the same
            _log.warning("uploads that were broken off are left in the bucket: %s", error)
            return 0

    async def _delete(self, key: SessionKey, before: datetime | None) -> Deletion:
        async def work(conn: AsyncConnection) -> tuple[Deletion, list[str]]:
            # Made now if it is not there: so one that somebody is making is waited for, and seen.
            row = await lock_or_insert(conn, key)
            if row.version == 0:
                await lifecycle.delete(conn, key)
                return "gone", []
            if before is not None and (
                row.updated_at >= before
                or (row.ended_at is None and await expiry.is_active(conn, key, row.projection, row.head))
            ):
                return "kept", []
            blobs = await garbage.let_go_by(conn, key)
            await lifecycle.delete(conn, key)
            return "deleted", blobs

        check_key(key)
        done, blobs = await self._write("delete", key, work)
        if done == "deleted":
            _log.info("deleted session %s", key)
        try:
            await self._collect_all(prefix_of(key), blobs)
        except Exception:  # noqa: BLE001 - the session is deleted whatever becomes of its bytes
            _log.warning("blobs of %s are left for collect_blobs to take", key, exc_info=True)
        return done

    async def _collect_all(self, prefix: str, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), AT_ONCE):
            await self._collect(prefix, keys[start : start + AT_ONCE], None)

    async def _collect(
        self, prefix: str, keys: Sequence[str], before: datetime | None, dry_run: bool = False
    ) -> int:
        """Remove those of a user's keys that no row names; ``before`` None whenever they were written."""

        async def work(conn: AsyncConnection) -> int:
            await garbage.seize(conn, prefix)
            count, young, taken = 0, datetime.now(UTC) - GRACE, datetime.now(UTC) - MESSAGE_GRACE
            for blob in sorted(set(keys) - await garbage.named(conn, prefix, keys)):
                if before is not None:
                    written = await self._blobs.modified(blob)
                    # The lock says nothing of bytes that are still being written, nor of messages that
                    # still wait to be taken: only their age does.
                    limit = young if is_draft(blob) else min(before, taken) if is_message(blob) else before
                    if written is None or written > limit:
                        continue
                count += dry_run or await self._blobs.remove(blob)
            return count

        # Asked without the lock first: most are named, and saves need not wait for that.
        idle = await self._db.read(lambda conn: garbage.named(conn, prefix, keys))
        keys = [key for key in keys if key not in idle]
        return await self._db.write(work, awaits=True) if keys else 0


def _check_cutoff(before: datetime) -> None:
    try:
        utc_of(before)
    except (ValueError, OverflowError) as error:
        raise InvalidOption(f"the cutoff {before} has no timezone, or is out of the calendar") from error
