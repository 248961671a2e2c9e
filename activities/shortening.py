"""What a worker does when the model says that a prompt is too long: sum up, and ask once more.

An agent with a compaction policy has said that its conversations may be summed up, and how.
So everything before the running turn is, the policy's overlap too, whatever is due by it; then
the step is tried again. It is done once a turn, whichever attempt or worker does it: the
summary's id says so in the log.
"""

from __future__ import annotations

from activities.compaction import Compactor
from activities.context_cache import ContextCache
from activities.protocol import ModelTask
from activities.windows import find_window
from perdure.agent import Agent
from perdure.errors import ModelRefused, PromptTooLong, StaleEpoch
from perdure.transfer import keys_of
from perdure.types import SessionKey
from storage.sessions import Context, SessionStore

__all__ = ["Shortener", "still_too_long"]

_TO_DO = "rewind {}, and send less or lower the agent's limits.message_chars and limits.result_chars"


class Shortener:
    """Sums up for turns whose prompt is too long.

    Args:
        store: where sessions live.
        compactor: who sums up.
        contexts: what reads a context.
    """

    def __init__(self, store: SessionStore, compactor: Compactor, contexts: ContextCache) -> None:
        self._store = store
        self._compactor = compactor
        self._contexts = contexts

    async def shorten(
        self, key: SessionKey, agent: Agent, task: ModelTask, context: Context, error: PromptTooLong
    ) -> Context:
        """The context of a step once more, with everything before its turn summed up.

        Args:
            key: the session.
            agent: the agent it is with.
            task: the step.
            context: what was too long.
            error: what the model said.

        Raises:
            PromptTooLong: it cannot be shortened; where there is a policy the message says why not.
            ModelUnavailable: the summariser cannot be reached now.
            StaleEpoch: the turn was cancelled or rewound meanwhile.
        """
        if agent.compaction is None:
            raise error
        event_id = f"{task.invocation_id}:shortened"
        if await self._store.event(key, event_id) is not None:
            raise still_too_long(task, error)
        window = find_window(context.summary, context.events)
        if window is None:
            raise _told(error, f"nothing before turn {task.invocation_id} can be summed up", task)
        try:
            await self._compactor.sum_up(key, agent, context, window, event_id, task.invocation_id)
        except ModelRefused as refused:
            raise _told(error, f"and it could not be summed up: {refused.brief}", task) from refused
        except StaleEpoch:
            again = await self._read(key, agent)
            if again.session.epoch != context.session.epoch or _seq(again) == _seq(context):
                raise
            return again  # the compaction behind the reply before was faster, and did as well
        return await self._read(key, agent)

    async def _read(self, key: SessionKey, agent: Agent) -> Context:
        return await self._contexts.read(key, state_keys=keys_of(agent))


def still_too_long(task: ModelTask, error: PromptTooLong) -> PromptTooLong:
    """The error of a turn for which what came before it has been summed up."""
    return _told(error, f"what came before turn {task.invocation_id} has been summed up", task)


def _told(error: PromptTooLong, why: str, task: ModelTask) -> PromptTooLong:
    what = f"{why}; {_TO_DO.format(task.invocation_id)}"
    return PromptTooLong(f"{error}; {what}", brief=f"{error.brief}; {what}")


def _seq(context: Context) -> int:
    return context.summary.seq if context.summary is not None else 0
