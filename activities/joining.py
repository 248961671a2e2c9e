"""Messages that join a turn which is under way: appended behind its tool results, before the model is asked.

Each is an event of that turn under the id that the message would have as a turn of its own,
``{message}:user``. So it is in the log once, whichever way it is sent again, and the log tells
which turn it has joined.
"""

from __future__ import annotations

import logging
from dataclasses import replace

from activities.fencing import still_wanted
from activities.oversize import fit_message, says_the_same
from activities.protocol import Joining, ModelTask
from activities.runtime import log
from perdure.agent import Limits
from perdure.errors import ArtifactNotFound, EventConflict, InvalidContent, InvalidMessage
from perdure.logs import words_of
from perdure.types import Event, SessionKey
from storage.sessions import SessionStore
from storage.turns import JOINED

__all__ = ["join"]


async def join(
    store: SessionStore, key: SessionKey, limits: Limits, task: ModelTask, epoch: int
) -> list[str]:
    """Append what joins a turn with this step.

    Args:
        store: where the session lives.
        key: the session.
        limits: the agent's; what is too large for them is put away.
        task: the step.
        epoch: the turn's.

    Returns:
        The ids of those that have joined. One was sent before, as a turn of its own or with other words,
        or is lost: as a turn of its own it is told so.

    Raises:
        StaleEpoch: the turn was cancelled or rewound meanwhile.
    """
    taken = []
    for joining in task.joining:
        try:
            await _append(store, key, limits, task.invocation_id, joining, epoch)
        except (EventConflict, InvalidContent, InvalidMessage, ArtifactNotFound) as error:
            log(logging.INFO, "not.joined", key, task.invocation_id, "%s", words_of(error))
        else:
            taken.append(joining.message_id)
    return taken


async def _append(
    store: SessionStore, key: SessionKey, limits: Limits, invocation_id: str, joining: Joining, epoch: int
) -> None:
    event_id = f"{joining.message_id}:user"
    stored = await store.event(key, event_id)
    if stored is not None and stored.invocation_id == invocation_id and joining.blob is not None:
        await store.forget_message(key, joining.blob)  # an attempt before this one may have died before that
        return
    event = await _event(store, key, invocation_id, joining)
    if stored is None:
        fitted = await fit_message(store, key, event, limits)
        confirm = still_wanted if fitted.artifact_delta else None
        stored = await store.append(key, fitted, epoch=epoch, first_wins=True, confirm=confirm)
    if stored.invocation_id != invocation_id or not says_the_same(stored, event):
        raise EventConflict(f"event {event_id} of {key} is in the log with another message or turn")
    if joining.blob is not None:
        await store.forget_message(key, joining.blob)


async def _event(store: SessionStore, key: SessionKey, invocation_id: str, joining: Joining) -> Event:
    said = Event(
        id=f"{joining.message_id}:user",
        invocation_id=invocation_id,
        author="user",
        content={**(joining.content or {"parts": [{"text": joining.text}]}), "role": "user"},
        meta={JOINED: joining.message_id},
    )
    if joining.blob is None:
        return said
    left = await store.fetch_message(key, joining.message_id, joining.blob)
    if left is None:
        raise InvalidMessage(f"message {joining.message_id} to {key} is lost; send it again")
    return replace(said, content={**left.content, "role": "user"}, state_delta=left.state)
