"""``PerdureArtifactService``: google-adk's artifacts as versions in Perdure's store.

google-adk saves a file at once, and an event may name it later or never. So each save is an
event of its own in the session's log, which google-adk does not see. It gives the version
its place in the log, and so its fate in a rewind: what was saved after the target is gone
again, and what was saved before it is the newest again. The copies that
``Runner.rewind_async`` saves before it asks for the rewind go with the rest.

google-adk counts versions from 0, the store from 1.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from google.adk.artifacts import BaseArtifactService
from google.adk.artifacts.artifact_util import (
    get_artifact_uri,
    is_artifact_ref,
    parse_artifact_uri,
    resolve_artifact_reference,
    validate_artifact_reference_scope,
)
from google.adk.artifacts.base_artifact_service import ArtifactVersion, ensure_part
from google.adk.errors.input_validation_error import InputValidationError
from google.genai import types

from integrations.adk_json import parts
from integrations.adk_json.events import ARTIFACT
from integrations.google_adk.connection import Connection
from integrations.google_adk.places import Place
from integrations.google_adk.queues import Queues
from perdure.errors import ArtifactNotFound, Invalid
from perdure.types import ArtifactVersion as Version
from perdure.types import Event, SessionKey
from storage.artifacts import DELETED
from storage.options import StoreOptions
from storage.sessions import SessionStore

__all__ = ["PerdureArtifactService"]

MAX_REFERENCES = 5
"""How many ``artifact://`` references a load follows, as in google-adk's own services."""

T = TypeVar("T")


class PerdureArtifactService(BaseArtifactService):
    """An artifact service whose versions are rewound with their session.

    Take it from :attr:`PerdureSessionService.artifacts`, or make it for the same URLs. A session's
    artifacts go when it is deleted; ``user:`` names, and whatever is saved without a session, belong
    to the user. It works without our session service too, but then nothing is rewound.

    Args:
        database_url, artifacts_url, store, options: as for :class:`PerdureSessionService`.
        connection: a session service's, to share its store.
    """

    def __init__(
        self,
        database_url: str | None = None,
        artifacts_url: str = "file://.perdure/artifacts",
        *,
        store: SessionStore | None = None,
        options: StoreOptions | Mapping[str, Any] | None = None,
        connection: Connection | None = None,
    ) -> None:
        self._connection = connection or Connection(database_url, artifacts_url, store=store, options=options)
        self._queues = Queues()

    async def save_artifact(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        artifact: types.Part | dict[str, Any],
        session_id: str | None = None,
        custom_metadata: dict[str, Any] | None = None,
    ) -> int:
        """Save a version; it can be loaded at once.

        Returns:
            Its number: 0 for the first, then one more with each save. None is used twice: after a
            rewind the numbers go on behind those of what was rewound.

        Raises:
            InputValidationError: no file, text or reference; a reference to somewhere else; a bad name.
        """
        place = Place.of(app_name, user_id, session_id, filename)
        part = ensure_part(artifact)
        if is_artifact_ref(part):
            _check_reference(part, place)
        try:
            data, mime_type = parts.encode(part, custom_metadata)
        except Invalid as error:
            raise InputValidationError(str(error)) from error
        return await self._save(place, data, mime_type) - 1

    async def load_artifact(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        session_id: str | None = None,
        version: int | None = None,
    ) -> types.Part | None:
        """A version's part, the newest by default; None if there is none, or it was rewound or deleted.

        Raises:
            InputValidationError: a bad name, or a reference that leads too far or out of its scope.
        """
        place = Place.of(app_name, user_id, session_id, filename)
        remaining = MAX_REFERENCES
        while True:
            loaded = await self._load(place, version)
            if loaded is None:
                return None
            part = parts.decode(loaded[1], loaded[0].mime_type).part
            if not is_artifact_ref(part):
                return None if part == parts.TOMBSTONE else part
            target = resolve_artifact_reference(
                file_uri=_uri_of(part),
                app_name=app_name,
                user_id=user_id,
                session_id=place.session_id,
                remaining_depth=remaining,
            )
            remaining -= 1
            place, version = Place.of(app_name, user_id, target.session_id, target.filename), target.version

    async def list_artifact_keys(
        self, *, app_name: str, user_id: str, session_id: str | None = None
    ) -> list[str]:
        """The names of all artifacts that can be loaded, sorted; the user's have their ``user:``."""
        place = Place.of(app_name, user_id, session_id, "user:")
        found = await self._read(place, lambda store, key: store.list_artifacts(key))
        return [version.name for version in found or ()]

    async def delete_artifact(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> None:
        """Delete an artifact: no version of it can be loaded or listed; no error if there is none.

        It is a step of the session like any other, so a rewind to before it brings the artifact back.
        """
        place = Place.of(app_name, user_id, session_id, filename)
        if await self._versions(place):
            await self._save(place, b"", DELETED)

    async def list_versions(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> list[int]:
        """The numbers of all versions that can be loaded, lowest first."""
        place = Place.of(app_name, user_id, session_id, filename)
        return [version.version - 1 for version in await self._versions(place)]

    async def list_artifact_versions(
        self, *, app_name: str, user_id: str, filename: str, session_id: str | None = None
    ) -> list[ArtifactVersion]:
        """All versions that can be loaded, with what was said about them, lowest first."""
        place = Place.of(app_name, user_id, session_id, filename)
        return [await self._described(place, version) for version in await self._versions(place)]

    async def get_artifact_version(
        self,
        *,
        app_name: str,
        user_id: str,
        filename: str,
        session_id: str | None = None,
        version: int | None = None,
    ) -> ArtifactVersion | None:
        """What was said about a version, the newest by default; None if there is no such version."""
        place = Place.of(app_name, user_id, session_id, filename)
        found = await self._find(place, version)
        return None if found is None else await self._described(place, found)

    async def close(self) -> None:
        """Close the connections that this event loop opened; a store that was given stays open."""
        await self._connection.close()

    async def _save(self, place: Place, data: bytes, mime_type: str) -> int:
        request_id = uuid.uuid4().hex
        event_id = f"{request_id}{ARTIFACT}"

        async def save(store: SessionStore, key: SessionKey) -> int:
            version = await store.stage_artifact(key, place.name, data, mime_type, event_id=event_id)
            delta = {place.name: version}
            record = Event(id=event_id, invocation_id=request_id, author="perdure", artifact_delta=delta)
            await store.append(key, record)
            return version

        store = await self._connection.store()
        try:
            # In line: of two saves of one file at once, the one asked for last is the newest.
            async with self._queues.of(place):
                return await place.write(store, save)
        except Invalid as error:
            raise InputValidationError(str(error)) from error

    async def _load(self, place: Place, version: int | None) -> tuple[Version, bytes] | None:
        if version is not None and await self._find(place, version) is None:
            return None
        number = None if version is None else version + 1

        async def load(store: SessionStore, key: SessionKey) -> tuple[Version, bytes] | None:
            try:
                return await store.load_artifact(key, place.name, version=number)
            except ArtifactNotFound:
                return None

        return await self._read(place, load)

    async def _find(self, place: Place, version: int | None) -> Version | None:
        versions = await self._versions(place)
        if version is None:
            return versions[-1] if versions else None
        return next((found for found in versions if found.version - 1 == version), None)

    async def _versions(self, place: Place) -> Sequence[Version]:
        """The live versions."""
        return await self._read(place, lambda store, key: store.artifact_versions(key, place.name)) or []

    async def _described(self, place: Place, version: Version) -> ArtifactVersion:
        saved = None
        if parts.needs_bytes(version.mime_type):
            loaded = await self._load(place, version.version - 1)
            saved = parts.decode(loaded[1], version.mime_type) if loaded else None
        return ArtifactVersion(
            version=version.version - 1,
            canonical_uri=get_artifact_uri(
                place.app_name, place.user_id, place.name, version.version - 1, place.owner
            ),
            custom_metadata=saved.metadata if saved else {},
            create_time=version.created_at.timestamp(),
            mime_type=parts.said_type(version.mime_type, saved),
        )

    async def _read(
        self, place: Place, action: Callable[[SessionStore, SessionKey], Awaitable[T]]
    ) -> T | None:
        store = await self._connection.store()
        try:
            return await place.read(store, action)
        except Invalid as error:
            raise InputValidationError(str(error)) from error


def _check_reference(part: types.Part, place: Place) -> None:
    parsed = parse_artifact_uri(_uri_of(part))
    if parsed is None:
        raise InputValidationError(f"Invalid artifact reference URI: {_uri_of(part)}")
    validate_artifact_reference_scope(
        app_name=place.app_name, user_id=place.user_id, session_id=place.session_id, parsed_uri=parsed
    )


def _uri_of(part: types.Part) -> str:
    return (part.file_data and part.file_data.file_uri) or ""
