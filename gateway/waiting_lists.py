"""What waits where: the calls of a session, or of all of them, that a person or the world is to answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from temporalio.client import Client, WorkflowQueryFailedError
from temporalio.service import RPCError

from activities.prompt import calls_of, model_event_id
from activities.waits import begun_id_of, parts_of_call_id, waits_of
from gateway.held_up import status_of
from gateway.visibility import quoted
from perdure import searchattributes
from perdure.errors import InvalidOption, SessionNotFound
from perdure.sealed import sealed, unsealed
from perdure.types import Json, JsonObject, SessionKey
from storage.sessions import SessionStore
from workflows.wait_messages import Waiting

__all__ = ["WaitingCall", "WaitingLists", "WaitingPage"]

AT_ONCE = 16
"""Sessions that are asked at a time what they wait for."""
ASKED_FOR = timedelta(seconds=5)
"""How long one is asked; where no worker answers for it, its log says what it waits for."""
LOOKED_AT = 1_000
"""Events of a log that is looked through for that."""
_CURSOR = "pw1_"


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitingCall:
    """A call that waits, with what is to be decided about."""

    key: SessionKey
    call_id: str
    tool: str
    kind: str
    """``approval``, ``result``, ``event`` or ``timer``; or ``agent``: what it has asked waits."""
    since: datetime
    until: datetime | None = None
    event: str | None = None
    agent_session: str | None = None
    """The id of the agent's session, where the kind is ``agent``: what it waits for is decided there."""
    then: str | None = None
    """What becomes of an approval at its deadline, where that is not a refusal."""
    text: str | None = None
    """The last progress that was reported."""
    percent: float | None = None
    arguments: JsonObject | None = None
    """What the model wants it called with; None where the log has it no more."""
    ticket: Json = None
    """What a long-running tool has returned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WaitingPage:
    """Calls that wait, of some sessions."""

    calls: Sequence[WaitingCall]
    next_cursor: str | None = None
    """None after the last page. One before it may be empty: what was found may have gone on meanwhile."""


class WaitingLists:
    """The part of a Runner that tells what waits."""

    client: Client
    store: SessionStore

    async def waiting(self, key: SessionKey) -> list[WaitingCall]:
        """The calls that wait in a session, with their arguments.

        Raises:
            SessionNotFound: it has no open workflow.
        """
        return await self._waiting(key)

    async def waiting_below(self, key: SessionKey) -> list[WaitingCall]:
        """The same, with those that wait in the sessions of the agents that it has asked.

        Raises:
            SessionNotFound: it has no open workflow.
        """
        calls = await self.waiting(key)
        for call in list(calls):
            if call.agent_session is not None:
                with suppress(SessionNotFound):  # it was answered meanwhile
                    calls += await self.waiting_below(replace(key, session_id=call.agent_session))
        return calls

    async def all_waiting(
        self, app: str | None = None, user_id: str | None = None
    ) -> AsyncIterator[WaitingCall]:
        """The calls that wait in all sessions, of an app, of a user. New ones are found within seconds.

        Those of a session that no worker serves now are told as its log has them.
        """
        apps, users = (None if name is None else {name} for name in (app, user_id))
        cursor = None
        while True:
            page = await self.waiting_page(apps, users, cursor=cursor)
            for call in page.calls:
                yield call
            cursor = page.next_cursor
            if cursor is None:
                return

    async def waiting_page(
        self,
        apps: Collection[str] | None = None,
        users: Collection[str] | None = None,
        *,
        limit: int = 50,
        cursor: str | None = None,
    ) -> WaitingPage:
        """The same, page by page.

        Args:
            apps: only sessions with these agents; None is all.
            users: only these users'; None is all.
            limit: how many sessions are looked at for a page.
            cursor: the ``next_cursor`` of the page before.

        Raises:
            InvalidOption: the cursor is of no page.
            InvalidContent: a name that nobody can have.
        """
        query = f"WorkflowType = 'AgentSession' AND {searchattributes.STATUS} = 'waiting'"
        query += " AND ExecutionStatus = 'Running'"
        for name, values in ((searchattributes.APP, apps), (searchattributes.USER, users)):
            if values is not None and not values:
                return WaitingPage(calls=())
            if values is not None:
                query += f" AND {name} IN ({', '.join(map(quoted, sorted(values)))})"
        found = self.client.list_workflows(query, page_size=limit, next_page_token=_place(cursor))
        await found.fetch_next_page()
        keys = [SessionKey.parse(each.id) for each in found.current_page or ()]
        place = found.next_page_token
        calls = [call for some in _batches(keys) for call in await self._all_of(some)]
        return WaitingPage(calls=calls, next_cursor=sealed(_CURSOR, place) if place else None)

    async def _all_of(self, keys: list[SessionKey]) -> list[WaitingCall]:
        return [call for calls in await asyncio.gather(*map(self._served_or_not, keys)) for call in calls]

    async def _served_or_not(self, key: SessionKey) -> list[WaitingCall]:
        try:
            try:
                return await self._waiting(key, ASKED_FOR)
            except (RPCError, WorkflowQueryFailedError):
                events = (await self.store.get(key, max_events=LOOKED_AT)).events
                return [await self._waiting_call(key, Waiting(**each)) for each in waits_of(events)]
        except SessionNotFound:  # it was closed or deleted meanwhile
            return []

    async def _waiting(self, key: SessionKey, within: timedelta | None = None) -> list[WaitingCall]:
        status = await status_of(self.client, key, within)
        return [await self._waiting_call(key, each) for each in status.waiting]

    async def _waiting_call(self, key: SessionKey, waiting: Waiting) -> WaitingCall:
        invocation_id, step, index = parts_of_call_id(waiting.call_id)
        asked = await self.store.event(key, model_event_id(invocation_id, step))
        begun = await self.store.event(key, begun_id_of(invocation_id, step, index))
        more: JsonObject = {"ticket": begun.meta.get("ticket")} if begun is not None else {}
        if asked is not None:
            more["arguments"] = calls_of(asked)[index].get("args") or {}
        return WaitingCall(key=key, **waiting.model_dump(exclude_unset=True), **more)


def _batches(keys: list[SessionKey]) -> Iterator[list[SessionKey]]:
    return (keys[start : start + AT_ONCE] for start in range(0, len(keys), AT_ONCE))


def _place(cursor: str | None) -> bytes | None:
    """Temporal's own mark of a page, which it does not check."""
    if cursor is None:
        return None
    place = unsealed(_CURSOR, cursor)
    if place is None:
        raise InvalidOption("the cursor is not one that a page gave; start without one")
    return place
