"""What has to be equal between a store and the model of it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from perdure.errors import SessionNotFound
from perdure.types import Session, SessionKey
from storage.sessions import SessionStore
from storage.storable import canonical
from tests.conformance.model import Files, SessionModel, World, ranges_of

__all__ = ["ALSO", "agree", "agree_on_list", "agree_on_past", "agree_on_row_and_state", "exported"]

ALSO = ("log", "context")


async def agree(store: SessionStore, world: World, key: SessionKey, *, also: str) -> None:
    """A session's row, state, live events and artifacts are what the model says.

    Args:
        store: where it is.
        world: the model.
        key: the session; one that the model does not have must not be there.
        also: one of :data:`ALSO`: the whole ``log``, or the ``context`` of a prompt.
    """
    model = world.sessions.get(key)
    if model is None:
        await _is_missing(store, key)
        return
    session = await store.get(key)
    _agree_on_row(session, model)
    assert canonical(dict(session.state)) == canonical(world.state(key))
    assert list(session.events) == list(model.now.events)
    assert await _files(store, key, None) == _newest(world.files(key))
    if also == "log":
        assert await store.log(key) == model.whole_log()
    else:
        summary, raw = model.context()
        context = await store.context(key)
        assert (context.summary and context.summary.id, list(context.events)) == (summary, raw)


async def agree_on_row_and_state(store: SessionStore, world: World, key: SessionKey) -> None:
    """A session that was not touched is as it was, but for what it shares."""
    session = await store.get(key, max_events=0)
    _agree_on_row(session, world.sessions[key])
    assert canonical(dict(session.state)) == canonical(world.state(key))


async def agree_on_list(store: SessionStore, world: World, app: str) -> None:
    """The app's sessions are listed, whatever happened to others, in the order of their changes."""
    page = await store.list_sessions(app)
    order = [(each.updated_at, each.key.user_id, each.key.session_id) for each in page.sessions]
    assert order == sorted(order, reverse=True)
    assert {each.key for each in page.sessions} == {key for key in world.sessions if key.app == app}
    for each in page.sessions:
        _agree_on_row(each, world.sessions[each.key])


async def agree_on_past(
    store: SessionStore,
    world: World,
    model: SessionModel,
    before: str | None,
    limit: int | None,
    after: int,
) -> None:
    """A window of a session, now or just before an invocation, and its artifacts with their bytes then."""
    key = model.key
    seen = await store.get(key, before=before, max_events=limit, after=after)
    then = model.now if before is None else model.before(before)
    events = [event for event in then.events if event.seq > after]
    assert list(seen.events) == (events if limit is None else events[len(events) - min(limit, len(events)) :])
    assert canonical(dict(seen.state)) == canonical(world.state(key, then.state))
    if before is not None:
        first = model.now.first_of(before).seq
        assert (seen.head, seen.projection) == (first - 1, ranges_of(then.events, first))
        _agree_on_row(replace(seen, head=model.head, projection=model.projection), model)
    files = world.files(key, then.files)
    assert await _files(store, key, before) == _newest(files)
    for name, versions in files.items():
        for version, data in versions.items():
            found, loaded = await store.load_artifact(key, name, version=version, before=before)
            assert (found.version, found.size, loaded) == (version, len(data), data)
        if before is None:
            known = [found.version for found in await store.artifact_versions(key, name)]
            assert known == sorted(versions)


async def exported(store: SessionStore, key: SessionKey) -> list[str]:
    """The lines of an export."""
    return [line async for line in store.export(key)]


def _agree_on_row(session: Session, model: SessionModel) -> None:
    assert (session.key, session.version, session.epoch, session.head) == (
        model.key,
        model.version,
        model.epoch,
        model.head,
    )
    assert session.projection == model.projection
    assert canonical(session.metadata) == canonical(model.metadata)
    assert (session.ended_at is not None) == model.ended
    assert (session.created_at, session.forked_from) == (model.created_at, model.forked_from)


async def _is_missing(store: SessionStore, key: SessionKey) -> None:
    try:
        await store.get(key)
    except SessionNotFound:
        return
    raise AssertionError(f"{key} is there")


async def _files(store: SessionStore, key: SessionKey, before: str | None) -> dict[str, tuple[int, str]]:
    """The newest version of each name, and the hash of its bytes, which is in the key of its blob."""
    listed = await store.list_artifacts(key, before=before)
    return {found.name: (found.version, found.blob.rsplit("/", 1)[1]) for found in listed}


def _newest(files: Mapping[str, Mapping[int, bytes]] | Files) -> dict[str, tuple[int, str]]:
    return {
        name: (max(versions), hashlib.sha256(versions[max(versions)]).hexdigest())
        for name, versions in files.items()
        if versions
    }
