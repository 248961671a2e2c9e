"""What a tool is told about the call it serves, and what it can reach: state and artifacts.

A tool asks for it with a parameter annotated :class:`ToolContext`. The methods are
coroutines. A sync tool runs in a thread of its own, where there is nothing to await
them with: calling one there only makes a coroutine that never runs. Such a tool uses
the same methods of :attr:`ToolContext.blocking`::

    @tool
    def save_note(text: str, context: ToolContext) -> str:
        context.blocking.save_artifact("note.txt", text)
        return "saved"
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from threading import Event
from typing import Any, Protocol, TypeVar

from perdure.errors import InvalidContent
from perdure.sources import CHUNK, Source, encoded, type_by_name
from perdure.state import State
from perdure.tasktoken import task_token
from perdure.types import Json, Passage, SessionKey

__all__ = ["Artifact", "ArtifactAccess", "BlockingArtifacts", "MemoryAccess", "ToolContext"]

T = TypeVar("T")

_NOWHERE = SessionKey(app="app", user_id="user", session_id="session")


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """One version of an artifact, with its bytes, or the range of them that was asked for."""

    name: str
    version: int
    mime_type: str
    data: bytes
    size: int | None = None
    """Bytes of the whole version; None where whoever made this did not say."""

    @property
    def text(self) -> str:
        """The bytes as UTF-8 text.

        Raises:
            InvalidContent: they are not UTF-8; use ``data``.
        """
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            raise InvalidContent(
                f"version {self.version} of artifact {self.name!r} ({self.mime_type}) is not UTF-8 text "
                f"(byte {error.start}); use its .data"
            ) from None


class ArtifactAccess(Protocol):
    """How a context reaches artifacts. The runtime has one; a test may bring its own."""

    async def save(self, name: str, data: Source, mime_type: str) -> int:
        """Save a new version and return its number."""

    async def load(
        self, name: str, version: int | None, *, start: int = 0, length: int | None = None
    ) -> Artifact:
        """Load one version, the newest where None is asked for, or a range of it. Raises ArtifactNotFound."""

    async def names(self) -> list[str]:
        """The names of what there is, sorted."""


class MemoryAccess(Protocol):
    """How a context reaches the user's memory. The runtime has one; a test may bring its own."""

    async def search(self, query: str, limit: int) -> list[Passage]:
        """What the user's sessions said about something, best first."""


class ToolContext:
    """The session, as one call of a tool sees it.

    Made by the runtime. A unit test of a tool makes its own, with just what the tool
    needs: ``ToolContext(state={"counters": {}})``.

    Args:
        state: the session's state; a plain mapping becomes a :class:`State`.
        key: the session.
        invocation_id: the turn this call belongs to.
        call_id: the model's id for this call.
        idempotency_key: the same for every attempt of this call and of no other; made from
            the ids where None.
        attempt: 1 for the first try of this call.
        result_id: of a long-running tool, the id under which its result is to be sent.
        artifacts: how to reach artifacts; without it the artifact methods raise.
        memory: how to reach the user's memory; without it ``search_memory`` raises.
        stop: set when the call should come to an end: cancelled, rewound, or out of time.
    """

    def __init__(
        self,
        *,
        state: State | Mapping[str, Json] | None = None,
        key: SessionKey = _NOWHERE,
        invocation_id: str = "invocation",
        call_id: str = "call",
        idempotency_key: str | None = None,
        attempt: int = 1,
        result_id: str | None = None,
        artifacts: ArtifactAccess | None = None,
        memory: MemoryAccess | None = None,
        stop: Event | None = None,
    ) -> None:
        self.state = state if isinstance(state, State) else State(state)
        self.key = key
        self.invocation_id = invocation_id
        self.call_id = call_id
        self.idempotency_key = idempotency_key or f"{key}:{invocation_id}:{call_id}"
        self.attempt = attempt
        self.result_id = result_id or call_id
        self._artifacts = artifacts
        self._memory = memory
        self._stop = stop or Event()
        self._loop = _running_loop()

    @property
    def app(self) -> str:
        """The agent's name."""
        return self.key.app

    @property
    def user_id(self) -> str:
        """Whose session it is."""
        return self.key.user_id

    @property
    def session_id(self) -> str:
        """The session's id, unique for this app and user."""
        return self.key.session_id

    @property
    def task_token(self) -> str:
        """Of a long-running tool, all that another service needs to answer: the session and the call in one.

        No secret, and no permission; see :mod:`perdure.tasktoken`.
        """
        return task_token(self.key, self.result_id)

    @property
    def cancelled(self) -> bool:
        """Whether the call should come to an end; its result will not be used.

        An async tool is cancelled as any task is. A sync tool cannot be stopped from
        outside: one that runs long should look here now and then. Safe in any thread.
        """
        return self._stop.is_set()

    @property
    def blocking(self) -> BlockingArtifacts:
        """The artifact methods for sync tools: they wait, in the tool's own thread."""
        return BlockingArtifacts(self)

    async def save_artifact(self, name: str, data: str | Source, mime_type: str | None = None) -> int:
        """Save a file that outlives the turn. It is listed once the call has succeeded.

        Of a file or an async iterable no more than a few chunks are in memory at once.

        Args:
            name: may contain ``/``; with the prefix ``user:`` it belongs to the user and all
                the user's sessions.
            data: bytes, text to be stored as UTF-8, the ``Path`` of a file, a file opened in binary
                mode, or an async iterable of bytes.
            mime_type: guessed from the name where None.

        Returns:
            The version: 1 for the first, never used twice.

        Raises:
            InvalidName: the name is empty or could leave its folder.
            InvalidContent: text that is not Unicode, or something that gives no bytes.
            OSError: the file cannot be read.
        """
        content = encoded(name, data) if isinstance(data, str) else data
        guessed = mime_type or type_by_name(name, text=isinstance(data, str))
        return await self._access().save(name, content, guessed)

    async def load_artifact(
        self, name: str, version: int | None = None, *, start: int = 0, length: int | None = None
    ) -> Artifact:
        """Load a file: the newest version, or the one asked for.

        Args:
            name: the artifact.
            version: None means the newest.
            start: the first byte to load, from 0; behind the end there are none.
            length: how many bytes at most; None means to the end.

        Raises:
            ArtifactNotFound: there is no such artifact or version, or it was rewound.
            InvalidOption: a range below nothing.
        """
        return await self._access().load(name, version, start=start, length=length)

    async def stream_artifact(self, name: str, version: int | None = None) -> AsyncIterator[bytes]:
        """A file's bytes in chunks of some MiB: ``async for chunk in context.stream_artifact("big.csv")``.

        All are of one version, whatever is saved meanwhile.

        Raises:
            ArtifactNotFound: there is no such artifact or version, or it was rewound.
        """
        start = 0
        while True:
            found = await self.load_artifact(name, version, start=start, length=CHUNK)
            if found.data:
                yield found.data
            if len(found.data) < CHUNK:
                return
            version, start = found.version, start + CHUNK

    async def list_artifacts(self) -> list[str]:
        """The names of the session's artifacts and the user's (``user:``), sorted."""
        return await self._access().names()

    async def search_memory(self, query: str, limit: int = 10) -> list[Passage]:
        """What the user's sessions with this agent said about something, best first.

        There is what was remembered of them: ``docs/memory.md``.

        Args:
            query: words, or a question.
            limit: how many passages, up to 100.

        Raises:
            InvalidOption: a limit that makes no sense.
        """
        if self._memory is None:
            raise RuntimeError("this ToolContext was made without a memory; pass ToolContext(memory=...)")
        return await self._memory.search(query, limit)

    def __repr__(self) -> str:
        return f"ToolContext({self.key}, invocation_id={self.invocation_id!r}, call_id={self.call_id!r})"

    def _access(self) -> ArtifactAccess:
        if self._artifacts is None:
            raise RuntimeError("this ToolContext was made without artifacts; pass ToolContext(artifacts=...)")
        return self._artifacts

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run an artifact method to its end from the thread of a sync tool."""
        here = _running_loop()
        if here is not None:
            coroutine.close()
            raise RuntimeError(
                "context.blocking would stop the event loop that runs this code; "
                "in async code await the same method of the context itself"
            )
        if self._loop is None:  # a unit test without a loop
            return asyncio.run(coroutine)
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _belong_to(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop


class BlockingArtifacts:
    """The artifact methods of :class:`ToolContext` and its ``search_memory``, without await.

    Raises:
        RuntimeError: called on a thread that runs an event loop, which it would block.
    """

    def __init__(self, context: ToolContext) -> None:
        self._context = context

    def save_artifact(self, name: str, data: str | Source, mime_type: str | None = None) -> int:
        """See :meth:`ToolContext.save_artifact`."""
        return self._context._wait(self._context.save_artifact(name, data, mime_type))

    def load_artifact(
        self, name: str, version: int | None = None, *, start: int = 0, length: int | None = None
    ) -> Artifact:
        """See :meth:`ToolContext.load_artifact`."""
        return self._context._wait(self._context.load_artifact(name, version, start=start, length=length))

    def stream_artifact(self, name: str, version: int | None = None) -> Iterator[bytes]:
        """See :meth:`ToolContext.stream_artifact`."""
        start = 0
        while True:
            found = self.load_artifact(name, version, start=start, length=CHUNK)
            if found.data:
                yield found.data
            if len(found.data) < CHUNK:
                return
            version, start = found.version, start + CHUNK

    def list_artifacts(self) -> list[str]:
        """See :meth:`ToolContext.list_artifacts`."""
        return self._context._wait(self._context.list_artifacts())

    def search_memory(self, query: str, limit: int = 10) -> list[Passage]:
        """See :meth:`ToolContext.search_memory`."""
        return self._context._wait(self._context.search_memory(query, limit))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
