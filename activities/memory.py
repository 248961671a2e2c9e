"""The users' memory at work: what puts sessions into it, gives them vectors, and searches it.

Words are there at once, in the transaction that remembers. Vectors come after it, a batch at a
time, each kept when it is there; what lacks one is found by its words meanwhile. So a model that is
away keeps no session from its end, and no search from an answer.
"""

from __future__ import annotations

import logging

from temporalio import activity

from activities.fencing import still_wanted
from activities.gemini import Gemini
from activities.protocol import REMEMBER, Remembered, RememberTask
from activities.runtime import beating, log, session_key, typed_errors
from perdure.agent import Memory
from perdure.errors import ModelError
from perdure.logs import words_of
from perdure.registry import Registry
from perdure.types import Passage, SessionKey
from storage.sessions import SessionStore

__all__ = ["CallMemory", "Memories", "MemoryActivities", "policy_of"]

BATCH = 50
"""Texts that are embedded by one request: 100,000 characters at most."""
EMBED_TIMEOUT = 60.0
"""Seconds that one request may take."""
KNOWN_QUERIES = 200
"""Whose vectors are kept here: each step of a turn may ask the same."""
SEARCH_TIMEOUT = 10.0
"""The same of a search, which is done by words alone rather than late."""

_log = logging.getLogger("perdure.activities")


def policy_of(agents: Registry, app: str) -> Memory | None:
    """What an app's agent has its sessions leave; None where it leaves nothing, or is not known here."""
    agent = agents.agents.get(app)
    return agent.memory if agent is not None else None


class Memories:
    """Searches the users' memory, by words and, where an agent has an embedding model, by meaning.

    Args:
        store: where the memory is.
        agents: the agents, by name.
        gemini: the model client; None: by words alone.
    """

    def __init__(self, store: SessionStore, agents: Registry, gemini: Gemini | None) -> None:
        self._store = store
        self._agents = agents
        self._gemini = gemini
        self._asked: dict[tuple[str, str], list[float]] = {}

    async def search(
        self, app: str, user_id: str, query: str, limit: int, *, but: str | None = None
    ) -> list[Passage]:
        """See :meth:`storage.memory_store.MemoryStore.search_memory`."""
        policy = policy_of(self._agents, app)
        near = await self._vector_of(query, policy) if policy is not None else None
        model = _name_of(policy) if policy is not None and near is not None else None
        return await self._store.search_memory(
            app, user_id, query, limit=limit, model=model, near=near, but=but
        )

    async def give_vectors(self, key: SessionKey, policy: Memory) -> int:
        """Embed the passages of a session that have no vector of the agent's model.

        Returns:
            How many there were.

        Raises:
            ModelUnavailable, ModelRefused: the model failed; the vectors so far are kept.
        """
        count = 0
        if self._gemini is None or policy.embedding_model is None:
            return count
        while lacking := await self._store.lacking_vectors(key, _name_of(policy), BATCH):
            vectors = await self._gemini.embed(
                model=policy.embedding_model,
                texts=[text for _, text in lacking],
                dimensions=policy.dimensions,
                query=False,
                timeout=EMBED_TIMEOUT,
            )
            numbers = [number for number, _ in lacking]
            await self._store.keep_vectors(key, _name_of(policy), list(zip(numbers, vectors, strict=True)))
            count += len(lacking)
        return count

    async def _vector_of(self, query: str, policy: Memory) -> list[float] | None:
        if self._gemini is None or policy.embedding_model is None or not query.strip():
            return None
        asked = (_name_of(policy), query)
        if (known := self._asked.get(asked)) is not None:
            return known
        try:
            [vector] = await self._gemini.embed(
                model=policy.embedding_model,
                texts=[query],
                dimensions=policy.dimensions,
                query=True,
                timeout=SEARCH_TIMEOUT,
            )
        except ModelError as error:
            _log.warning("a memory is searched by words alone: %s", words_of(error))
            return None
        while len(self._asked) >= KNOWN_QUERIES:
            del self._asked[next(iter(self._asked))]
        self._asked[asked] = vector
        return vector


class CallMemory:
    """What a running tool reaches of its user's memory."""

    def __init__(self, memories: Memories, key: SessionKey) -> None:
        self._memories = memories
        self._key = key

    async def search(self, query: str, limit: int) -> list[Passage]:
        return await self._memories.search(self._key.app, self._key.user_id, query, limit)


class MemoryActivities:
    """The activity that remembers.

    Args:
        store: where sessions live.
        agents: the agents this worker serves, by name.
        memories: over the same.
    """

    def __init__(self, store: SessionStore, agents: Registry, memories: Memories) -> None:
        self._store = store
        self._agents = agents
        self._memories = memories

    @activity.defn(name=REMEMBER)
    @typed_errors
    async def remember(self, task: RememberTask) -> Remembered | None:
        """Put what is live into the user's memory, with vectors where the agent asks for them.

        Returns:
            What is there now; None where only vectors were to be given.

        Raises:
            SessionNotFound: there is no such session.
            ModelUnavailable, ModelRefused: the embedding model failed; the words are in the memory.
        """
        key = session_key()
        policy = policy_of(self._agents, key.app)
        async with beating():
            done = None if task.only_vectors else await self._remembered(key, task.request_id)
            count = await self._memories.give_vectors(key, policy) if policy is not None else 0
        log(logging.INFO, "remembered", key, task.request_id, "%s, and %d vectors", done, count)
        return done

    async def _remembered(self, key: SessionKey, request_id: str) -> Remembered:
        done = await self._store.remember(key, request_id=request_id, confirm=still_wanted)
        return Remembered(upto=done.upto, passages=done.passages)


def _name_of(policy: Memory) -> str:
    """What its vectors are known by: those of other models, or dimensions, are not to be compared."""
    return f"{policy.embedding_model}/{policy.dimensions}"
