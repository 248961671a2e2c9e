"""Messages on their way: one that is not for Temporal's history waits in the blob store.

That is one that is too large for it, and one that brings a change of state: no state goes there.

Temporal carries the key. The message is removed once its turn has begun: from then on what
matters of it is in the log and in artifacts. No row names it, so what was never taken is the
cleaner's, but only after a grace that is longer than any queue.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from perdure.errors import ArtifactNotFound, InvalidMessage
from perdure.types import Json, JsonObject, SessionKey
from storage.blob_keys import is_message
from storage.storable import check_json, check_key, dumps
from storage.store import Store

__all__ = ["LeftMessage", "MessageStore"]

_log = logging.getLogger("perdure.storage")


@dataclass(frozen=True, kw_only=True, slots=True)
class LeftMessage:
    """A message that was left in the store."""

    content: JsonObject
    state: Mapping[str, Json] = field(default_factory=dict[str, Json])
    """The change of state that comes with it."""


class MessageStore(Store):
    """Keeps messages between the one who sends them and the worker that takes them."""

    async def leave_message(
        self,
        key: SessionKey,
        message_id: str,
        content: JsonObject,
        *,
        state: Mapping[str, Json] | None = None,
    ) -> str:
        """Store a message. Done twice it is the same as once.

        Args:
            key: the session it is for.
            message_id: its id.
            content: what the user says.
            state: a delta of the session's state, to be applied with the message.

        Returns:
            Where it is, for :meth:`fetch_message`.

        Raises:
            InvalidContent: it cannot be stored.
        """
        check_key(key)
        said: JsonObject = {"content": content}
        check_json(content, f"the message to {key}")
        if state:
            said["state"] = dict(state)
            check_json(said["state"], f"the state that comes with the message to {key}")
        return await self._blobs.leave(key, dumps({**_address(key, message_id), **said}).encode())

    async def fetch_message(self, key: SessionKey, message_id: str, blob: str) -> LeftMessage | None:
        """The message that was left there; None if it is not there, or not any more.

        Args:
            key: the session.
            message_id: the message.
            blob: what :meth:`leave_message` returned.

        Raises:
            InvalidMessage: it is the key of something else, such as another session's message.
            ArtifactDamaged: it is not what was left there.
        """
        try:
            left = json.loads(await self._blobs.read(_checked(key, blob)))
        except ArtifactNotFound:
            return None
        if {name: left[name] for name in ("session", "message")} != _address(key, message_id):
            raise _other(key, blob)
        return LeftMessage(content=left["content"], state=left.get("state") or {})

    async def forget_message(self, key: SessionKey, blob: str) -> None:
        """Remove a message whose turn has begun. Where that fails, the cleaner does it later."""
        try:
            await self._blobs.remove(_checked(key, blob))
        except Exception:  # noqa: BLE001 - the message has arrived whatever becomes of its bytes
            _log.warning("message %s to %s is left for collect_blobs to take", blob, key, exc_info=True)


def _address(key: SessionKey, message_id: str) -> JsonObject:
    return {"session": str(key), "message": message_id}


def _checked(key: SessionKey, blob: str) -> str:
    if not is_message(blob):
        raise _other(key, blob)
    return blob


def _other(key: SessionKey, blob: str) -> InvalidMessage:
    return InvalidMessage(f"{blob[:200]!r} is not where a message to {key} was left; send the message again")
