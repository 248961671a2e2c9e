"""The client that blocks. :mod:`perdure.client.aio` is the same, awaited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import TracebackType

import httpx2

from perdure.client import calls
from perdure.client.endpoint import LIMITS, Endpoint
from perdure.client.found import Found, Named
from perdure.client.results import (
    Answer,
    Compacted,
    Context,
    Moment,
    Rewind,
    SessionUpdate,
    Status,
    UpdateOutcome,
)
from perdure.client.sync_artifacts import Artifacts
from perdure.client.sync_memory import MemoryOfSession, UserMemory
from perdure.client.sync_schedules import SchedulesOfSession
from perdure.client.sync_streams import SessionStream, TurnStream
from perdure.client.sync_waiting import Waits, WaitsOfSession
from perdure.client.sync_wire import SyncWire
from perdure.types import During, Event, Json, JsonObject, Session, SessionKey

__all__ = ["Client", "FoundSession", "SessionHandle", "Sessions"]


class Client(Waits):
    """Sessions over HTTP, for programs that do not use asyncio.

        with Client("http://127.0.0.1:8000") as client:
            session = client.session("counter", "ann", "s1")
            print(session.ask("Increment 'visits' counter by 1").text)

    Errors are those of :mod:`perdure.errors`. What fails for now, such as a broken connection, is
    tried again where that does no harm: what changes something carries an id, and happens once.
    One client may serve many threads.

    Args:
        url: the gateway's, such as ``https://agents.example.com``.
        token: a bearer token; None where none is needed, as at ``perdure dev``.
        timeout: seconds without a word from the gateway after which a request has failed. A turn may
            take longer.
        patience: seconds for which a request that failed, and may be sent again, is.
        http: a client of your own for proxies, certificates and the like; you close it.

    Raises:
        InvalidOption: a URL, token or number that cannot be.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout: float = 60.0,
        patience: float = 30.0,
        http: httpx2.Client | None = None,
    ) -> None:
        endpoint = Endpoint(url, token, timeout=timeout, patience=patience)
        self._own = http is None
        self._wire = SyncWire(endpoint, http or httpx2.Client(limits=LIMITS))
        self.sessions = Sessions(self._wire)
        """Those there are."""
        self.memory = UserMemory(self._wire)
        """What they left to the memory of their users."""

    def apps(self) -> list[str]:
        """The apps that are served and that the token reaches."""
        return self._wire.send(calls.apps())

    def session(self, app: str, user_id: str, session_id: str) -> SessionHandle:
        """A session by its names, whether it is there or not: its first message makes it. Asks nothing."""
        return SessionHandle(self._wire, SessionKey(app=app, user_id=user_id, session_id=session_id))

    def close(self) -> None:
        """Close its connections."""
        if self._own:
            self._wire.http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._wire.endpoint.url!r})"


class Sessions:
    """The sessions that a gateway has: made, found and changed, many at once."""

    def __init__(self, wire: SyncWire) -> None:
        self._wire = wire

    def create(
        self,
        app: str,
        user_id: str | None = None,
        session_id: str | None = None,
        *,
        state: Mapping[str, Json] | None = None,
        metadata: Mapping[str, Json] | None = None,
    ) -> FoundSession:
        """Create a session. Needed only to give it state or metadata before its first message.

        Args:
            app: the agent's name.
            user_id: whose it is; None for the user of a token that has one.
            session_id: None for a new one.
            state: its initial state, which every rewind keeps.
            metadata: what to find it by; not state, and not rewound.

        Raises:
            SessionExists: the id is taken.
            GatewayUnavailable: under an id of yours also where the answer was lost: look whether it is there.
        """
        return self._found(self._wire.send(calls.create(app, user_id, session_id, state, metadata)))

    def get(self, app: str, user_id: str, session_id: str, *, max_events: int | None = None) -> FoundSession:
        """A session with its whole state and its live events, as one moment saw them.

        Args:
            app, user_id, session_id: its names.
            max_events: only the last so many; 0 for none, None for all.

        Raises:
            SessionNotFound: there is none.
        """
        key = SessionKey(app=app, user_id=user_id, session_id=session_id)
        return self._found(self._wire.send(calls.get(key, max_events)))

    def list(self, app: str, user_id: str | None = None) -> Iterator[FoundSession]:
        """An app's or a user's sessions, the one changed last first, without state and events.

        They are asked for in pages as you go on.
        """
        for record in self._wire.pages(partial(calls.listing, app, user_id)):
            yield self._found(record)

    def find(
        self, app: str, metadata: Mapping[str, Json], *, user_id: str | None = None
    ) -> Iterator[FoundSession]:
        """As :meth:`list`, those whose metadata has all these values; 1 is not "1"."""
        for record in self._wire.pages(partial(calls.find, app, metadata, user_id)):
            yield self._found(record)

    def batch_update(
        self,
        app: str,
        updates: Sequence[SessionUpdate],
        *,
        atomic: bool = False,
        request_id: str | None = None,
    ) -> Sequence[UpdateOutcome]:
        """Change state or metadata of several sessions, each whole or not at all.

        Args:
            app: the app.
            updates: at most one a session.
            atomic: all of them or none: then what is wrong with one of them is raised.
            request_id: under which it happens once; a new one where None.

        Returns:
            What became of each, in their order.
        """
        return self._wire.send(calls.batch_update(app, updates, atomic, request_id))

    def delete(self, app: str, user_id: str, session_id: str) -> None:
        """Delete a session with all that is in it. A running turn is cancelled. No error if there is none."""
        self._wire.send(calls.delete(SessionKey(app=app, user_id=user_id, session_id=session_id)))

    def delete_user(self, app: str, user_id: str) -> int:
        """Delete all that an app has of a user: sessions, ``user:`` keys and files, and the memory.

        Done twice it is the same as once.

        Returns:
            How many sessions there were.
        """
        return self._wire.send(calls.delete_user(app, user_id))

    def _found(self, record: Session) -> FoundSession:
        return FoundSession(self._wire, record)


class SessionHandle(WaitsOfSession, MemoryOfSession, SchedulesOfSession, Named):
    """One session. What it does is done now; nothing of it is remembered here."""

    def __init__(self, wire: SyncWire, key: SessionKey) -> None:
        super().__init__(key)
        self._wire = wire
        self.artifacts = Artifacts(wire, key)
        """Its files."""

    def ask(
        self,
        text: str | None = None,
        *,
        content: JsonObject | None = None,
        message_id: str | None = None,
        state: Mapping[str, Json] | None = None,
        reopen: bool = False,
        during: During = "queue",
    ) -> Answer:
        """One turn, from the message to the answer, however long it takes. Starts the session if need be.

        Args:
            text: what the user says; or ``content``, a genai ``Content`` in wire form.
            content: what is more than text.
            message_id: send a message again under its id and it runs once; a new one where None.
            state: a delta of the session's state, applied with the message; None removes a key.
            reopen: open the session again if it was ended.
            during: what becomes of it where a turn runs. ``queue``: it is the next turn. ``join``: the model
                sees it at the next step of that turn, and gets its answer. ``interrupt``: it ends that turn.

        Returns:
            How it ended. A turn that failed is no error: look at ``status``.

        Raises:
            InvalidMessage, InvalidContent, Busy, SessionEnded, UnknownAgent, InvocationRewound,
            EventConflict: the message was refused.
            GatewayUnavailable: the gateway is away for longer than the client's patience. The turn goes
                on: ask again under the error's ``request_id``.
        """
        call = calls.message(self.key, text, content, message_id, state, reopen, during)
        while True:
            answer = self._wire.send(call)
            if answer is not None:
                return answer

    def send(
        self,
        text: str | None = None,
        *,
        content: JsonObject | None = None,
        message_id: str | None = None,
        state: Mapping[str, Json] | None = None,
        reopen: bool = False,
        during: During = "queue",
    ) -> str:
        """As :meth:`ask`, without waiting for the turn.

        Returns:
            The invocation's id. :meth:`ask` the same under it for the answer.
        """
        call = calls.message(self.key, text, content, message_id, state, reopen, during)
        return self._wire.send(calls.no_wait(call))

    def stream(
        self,
        text: str | None = None,
        *,
        content: JsonObject | None = None,
        message_id: str | None = None,
        state: Mapping[str, Json] | None = None,
        reopen: bool = False,
        during: During = "queue",
    ) -> TurnStream:
        """As :meth:`ask`, with what is said on the way: pieces of answers as they come, and events.

        A connection that breaks is made again, and nothing is given twice but pieces of an answer that
        has not ended. To stop listening does not end the turn; :meth:`cancel` does.
        """
        call = calls.message(self.key, text, content, message_id, state, reopen, during)
        return TurnStream(self._wire, calls.streamed(call))

    def events(self, *, after: int = 0, live: bool = False) -> Iterator[Event]:
        """The log as it is now, by seq, in pages as you go on.

        Args:
            after: only what comes behind this seq.
            live: leave out what was rewound; else ``event.live`` tells.
        """
        return self._wire.pages(partial(calls.events, self.key, after, live))

    def follow(self, *, after: int = 0, live: bool = False) -> SessionStream:
        """The log from a seq on, and then what comes, until the session is ended or deleted.

        A connection that breaks is made again; no event is missed, and none comes twice.

        Args:
            after: only what comes behind this seq.
            live: leave out what was rewound when it was read.
        """
        return SessionStream(self._wire, self.key, after=after, live=live)

    def get(self, *, max_events: int | None = None) -> FoundSession:
        """As :meth:`Sessions.get`."""
        return FoundSession(self._wire, self._wire.send(calls.get(self.key, max_events)))

    def update(
        self,
        *,
        state: Mapping[str, Json] | None = None,
        metadata: Mapping[str, Json] | None = None,
        expected_version: int | None = None,
        request_id: str | None = None,
    ) -> Session:
        """Change state or metadata from outside a turn.

        Args:
            state: keys to set; None removes one. It becomes an event, and can be rewound.
            metadata: merged in, key by key; None removes one.
            expected_version: change nothing unless the session is at this version.
            request_id: under which it happens once; a new one where None.

        Raises:
            VersionMismatch: it is at another, which is in its ``actual``.
        """
        return self._wire.send(calls.update(self.key, state, metadata, expected_version, request_id))

    def rewind(self, before: str, *, request_id: str | None = None) -> Rewind:
        """Make the session what it was before an invocation; before a rewind's own id, that is redo.

        Raises:
            InvocationNotFound, InvocationRewound: nothing was done.
        """
        return self._wire.send(calls.rewind(self.key, before, request_id))

    def fork(
        self, session_id: str | None = None, *, user_id: str | None = None, before: str | None = None
    ) -> FoundSession:
        """Copy the session, or what it was before a live invocation, into a new one.

        Args:
            session_id: the copy's; a new one where None.
            user_id: whose it is; the same user's where None.
            before: the invocation.
        """
        return FoundSession(self._wire, self._wire.send(calls.fork(self.key, session_id, user_id, before)))

    def cancel(self, invocation_id: str | None = None) -> None:
        """End the running turn, if there is one; with an id, that turn alone, begun or not."""
        self._wire.send(calls.cancel(self.key, invocation_id))

    def end(self, *, request_id: str | None = None) -> Session:
        """Close the session, after the messages that wait, and give its final state."""
        return self._wire.send(calls.end(self.key, request_id))

    def compact(self, *, request_id: str | None = None) -> Compacted:
        """Sum up what has ended so far, also where the agent's policy would not yet."""
        return self._wire.send(calls.compact(self.key, request_id))

    def status(self) -> Status:
        """The session with its state, and what it is doing now."""
        return self._wire.send(calls.status(self.key))

    def context(self) -> Context:
        """What the model would get now."""
        return self._wire.send(calls.context(self.key))

    def at(self, invocation_id: str, *, max_events: int | None = None) -> Moment:
        """The session, its events and its artifacts as they were just before a live invocation."""
        return self._wire.send(calls.at(self.key, invocation_id, max_events))

    def delete(self) -> None:
        """As :meth:`Sessions.delete`."""
        self._wire.send(calls.delete(self.key))


class FoundSession(Found, SessionHandle):
    """A session that was read: what it was then, and all that can be done with it."""

    def __init__(self, wire: SyncWire, record: Session) -> None:
        SessionHandle.__init__(self, wire, record.key)
        self.record = record
