"""Short ways to write the events of a conversation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perdure.types import Event, Json, JsonObject, SessionKey
from storage.sessions import SessionStore

__all__ = ["answer", "asked", "change", "content", "event", "say", "sequence", "summary", "user"]


def content(text: str, role: str = "user") -> JsonObject:
    """A genai content of one text part."""
    return {"role": role, "parts": [{"text": text}]}


def event(event_id: str, **fields: Any) -> Event:
    """An event; its invocation is what its id says before the colon."""
    return Event(**{"id": event_id, "invocation_id": event_id.split(":")[0], "author": "agent", **fields})


def user(invocation_id: str, text: str = "hello") -> Event:
    """The user's event of an invocation."""
    return event(f"{invocation_id}:user", author="user", content=content(text))


def answer(invocation_id: str, text: str = "done") -> Event:
    """The model's answer that ends an invocation."""
    return event(f"{invocation_id}:m1", content=content(text, "model"))


def asked(invocation_id: str) -> Event:
    """A model's event that asks for a call, so that the invocation goes on."""
    call = {"functionCall": {"id": "c1", "name": "increment", "args": {"by": 1}}}
    return event(f"{invocation_id}:m1", content={"role": "model", "parts": [call]})


def summary(invocation_id: str, start: int, end: int, tail: int | None = None) -> Event:
    """A compaction event."""
    covered = {"start": start, "end": end, "tail": end + 1 if tail is None else tail}
    return event(f"{invocation_id}:compact", author="perdure", content=content("summary"), compaction=covered)


async def say(
    store: SessionStore,
    key: SessionKey,
    invocation_id: str,
    *,
    delta: Mapping[str, Json] | None = None,
    artifact: tuple[str, bytes] | None = None,
) -> None:
    """One whole turn: the user's event, a change if there is one, the answer."""
    await store.begin_turn(key, user(invocation_id), epoch=None)
    if delta is not None or artifact is not None:
        await change(store, key, invocation_id, delta=delta, artifact=artifact)
    await store.append(key, answer(invocation_id))


async def change(
    store: SessionStore,
    key: SessionKey,
    invocation_id: str,
    *,
    delta: Mapping[str, Json] | None = None,
    artifact: tuple[str, bytes] | None = None,
) -> Event:
    """The response of a tool that changed state, saved an artifact, or both."""
    event_id = f"{invocation_id}:t1.0"
    saved: dict[str, int] = {}
    if artifact is not None:
        name, data = artifact
        saved[name] = await store.stage_artifact(key, name, data, "text/plain", event_id=event_id)
    return await store.append(key, event(event_id, state_delta=delta or {}, artifact_delta=saved))


async def sequence(store: SessionStore, key: SessionKey) -> list[str]:
    """The ids of the live events, in order."""
    return [item.id for item in (await store.get(key)).events]
