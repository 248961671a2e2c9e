"""``rewind``, ``interrupt`` and ``end_session``: what moves a session other than a turn.

Each is one transaction that also moves the session's epoch, so that whatever a running
attempt still wants to write is refused from then on.
"""

from __future__ import annotations

import logging

from temporalio import activity

from activities.asking import rewind_children
from activities.fencing import still_wanted
from activities.memory import policy_of
from activities.protocol import (
    END,
    INTERRUPT,
    NOTE_PROGRESS,
    REWIND,
    SAVE_ARTIFACT,
    ArtifactTask,
    EndTask,
    Interrupted,
    InterruptTask,
    Moved,
    ProgressTask,
    RewindTask,
)
from activities.runtime import beating, log, session_key, typed_errors
from perdure.registry import Registry
from perdure.types import Event, SessionKey
from storage.sessions import SessionStore
from storage.turns import end_marker

__all__ = ["SteeringActivities"]


class SteeringActivities:
    """The activities that steer a session.

    Args:
        store: where sessions live.
        agents: the agents this worker serves, by name.
    """

    def __init__(self, store: SessionStore, agents: Registry) -> None:
        self._store = store
        self._agents = agents

    @activity.defn(name=REWIND)
    @typed_errors
    async def rewind(self, task: RewindTask) -> Moved:
        """Truncate the projection to just before an invocation and append the marker.

        The sessions of agents that were called since are rewound after that, each by itself.

        Raises:
            SessionNotFound, InvocationNotFound, InvocationRewound: nothing was written.
        """
        key = session_key()
        async with beating():
            done = await self._store.rewind(
                key,
                before=task.before,
                request_id=task.request_id,
                interrupt=task.running,
                confirm=still_wanted,
            )
            await rewind_children(self._store, key, task.request_id, confirm=still_wanted)
        log(logging.INFO, "rewound", key, task.before, "marker at seq %d", done.event.seq)
        moved = Moved(epoch=done.epoch, seq=done.event.seq)
        if not done.repeated:
            return moved
        marked = task.running is not None and await self._store.event(key, end_marker(task.running))
        return moved.model_copy(update={"repeated": True, **({"stopped": True} if marked else {})})

    @activity.defn(name=INTERRUPT)
    @typed_errors
    async def interrupt(self, task: InterruptTask) -> int | Interrupted:
        """End a running turn in the log.

        Returns:
            The session's epoch from here on; as an ``Interrupted`` if the turn was over before, or is to
            end for a message that was sent before.
        """
        key = session_key()
        error = task.failure.model_dump() if task.failure else None
        async with beating():
            if task.message_id is not None and await self._was_said(key, task.message_id):
                log(logging.INFO, "spared", key, task.invocation_id, "by %s sent again", task.message_id)
                return Interrupted(epoch=(await self._store.get(key, max_events=0)).epoch)
            epoch = await self._store.interrupt(
                key,
                task.invocation_id,
                epoch=task.epoch,
                reason=task.reason,
                error=error,
                confirm=still_wanted if task.epoch is None else None,
            )
            marked = await self._store.event(key, end_marker(task.invocation_id))
        log(logging.INFO, "interrupted", key, task.invocation_id, "%s", task.reason)
        ended_before = marked is None or not marked.meta.get("interrupted")
        return Interrupted(epoch=epoch) if ended_before else epoch

    async def _was_said(self, key: SessionKey, message_id: str) -> bool:
        return await self._store.event(key, f"{message_id}:user") is not None

    @activity.defn(name=END)
    @typed_errors
    async def end_session(self, task: EndTask) -> Moved:
        """Close the session, and put it into its user's memory where its agent says so.

        Raises:
            SessionNotFound: there is no such session.
        """
        key = session_key()
        policy = policy_of(self._agents, key.app)
        remembers = policy is not None and policy.on_end
        async with beating():
            session = await self._store.end(key, remember=remembers, confirm=still_wanted)
        log(logging.INFO, "ended", key, task.request_id, "at seq %d", session.head)
        lacks = {"lacks_vectors": True} if policy and remembers and policy.embedding_model else {}
        return Moved(epoch=session.epoch, seq=session.head, **lacks)

    @activity.defn(name=NOTE_PROGRESS)
    @typed_errors
    async def note_progress(self, task: ProgressTask) -> int:
        """Note in the log how far a long-running tool has come. No prompt shows it.

        Returns:
            The seq of the event.

        Raises:
            StaleEpoch: the turn was cancelled or rewound meanwhile; nothing was written.
        """
        told = task.model_dump(include={"call_id", "text", "percent"}, exclude_unset=True)
        event = Event(
            id=f"{task.request_id}:progress",
            invocation_id=task.invocation_id,
            author="perdure",
            meta={"progress": told},
        )
        async with beating():
            stored = await self._store.append(session_key(), event, epoch=task.epoch, first_wins=True)
        return stored.seq

    @activity.defn(name=SAVE_ARTIFACT)
    @typed_errors
    async def save_artifact(self, task: ArtifactTask) -> int:
        """List an artifact version that a caller outside a turn has stored.

        Returns:
            The seq of the event that lists it.

        Raises:
            SessionNotFound, SessionEnded: nothing was written.
        """
        key = session_key()
        event = Event(
            id=f"{task.request_id}:artifact",
            invocation_id=task.request_id,
            author="user",
            artifact_delta={task.name: task.version},
        )
        async with beating():
            return (await self._store.append(key, event, first_wins=True)).seq
