"""Artifacts as google-adk's server gives and takes them: genai ``Part`` objects, versions from 0.

A deletion is a version like any other (see ``storage/artifacts.py``): after it nothing
of the artifact is found, and a rewind to before it brings it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import HTTPException
from google.genai import types

from gateway.services import Services
from integrations.adk_json import parts
from perdure.errors import ArtifactNotFound, SessionNotFound
from perdure.types import ArtifactVersion, JsonObject, SessionKey, given
from storage.artifacts import DELETED
from storage.sessions import SessionStore

__all__ = ["delete", "describe_all", "described", "load", "names", "number_of", "save", "versions"]

REFERENCE = "artifact://"


def number_of(version: str) -> int | None:
    """The version that a path names; None for ``latest``.

    Raises:
        HTTPException: 422, it is no number.
    """
    if version == "latest":
        return None
    try:
        return int(version)
    except ValueError:
        raise HTTPException(422, "Invalid version ID") from None


async def names(store: SessionStore, key: SessionKey) -> list[str]:
    """The names of the artifacts that can be loaded, sorted."""
    try:
        found = await store.list_artifacts(key)
    except SessionNotFound:
        return []
    return [version.name for version in found]


async def versions(store: SessionStore, key: SessionKey, name: str) -> Sequence[ArtifactVersion]:
    """The versions that can be loaded, oldest first.

    Raises:
        InvalidName: there can be no such name.
    """
    try:
        return await store.artifact_versions(key, name)
    except SessionNotFound:
        return []


async def load(store: SessionStore, key: SessionKey, name: str, number: int | None) -> JsonObject:
    """A version's part, the newest for None.

    Raises:
        HTTPException: 404, there is no such version.
        InvalidName: there can be no such name.
    """
    saved = await _load(store, key, name, await _find(store, key, name, number))
    if saved is None or saved.part == parts.TOMBSTONE:
        raise HTTPException(404, "Artifact not found")
    return saved.part.model_dump(mode="json", by_alias=True, exclude_none=True)


async def describe_all(store: SessionStore, key: SessionKey, name: str) -> list[JsonObject]:
    """What was said about each version that can be loaded, oldest first."""
    return [await _describe(store, key, version) for version in await versions(store, key, name)]


async def described(store: SessionStore, key: SessionKey, name: str, number: int | None) -> JsonObject:
    """What was said about a version, the newest for None.

    Raises:
        HTTPException: 404, there is no such version.
    """
    found = await _find(store, key, name, number)
    if found is None:
        raise HTTPException(404, "Artifact version not found")
    return await _describe(store, key, found)


async def save(
    services: Services, key: SessionKey, name: str, part: types.Part, metadata: dict[str, Any] | None
) -> JsonObject:
    """Save a version, and say what is known of it.

    Raises:
        HTTPException: 400, a reference to another artifact.
        InvalidContent, InvalidName, SessionNotFound, SessionEnded: nothing is listed.
    """
    if part.file_data is not None and (part.file_data.file_uri or "").startswith(REFERENCE):
        raise HTTPException(400, "References to other artifacts are not taken here; save the file itself.")
    data, mime_type = parts.encode(part, metadata)
    number = await services.runner.save_artifact(key, name, data, mime_type)
    return await described(services.store, key, name, number - 1)


async def delete(services: Services, key: SessionKey, name: str) -> None:
    """Delete an artifact; no error if there is none.

    Raises:
        InvalidName, SessionEnded: nothing was changed.
    """
    if await versions(services.store, key, name):
        await services.runner.save_artifact(key, name, b"", DELETED)


async def _find(
    store: SessionStore, key: SessionKey, name: str, number: int | None
) -> ArtifactVersion | None:
    found = await versions(store, key, name)
    if number is None:
        return found[-1] if found else None
    return next((version for version in found if version.version - 1 == number), None)


async def _load(
    store: SessionStore, key: SessionKey, name: str, version: ArtifactVersion | None
) -> parts.Saved | None:
    if version is None:
        return None
    try:
        found, data = await store.load_artifact(key, name, version=version.version)
    except (ArtifactNotFound, SessionNotFound):  # gone since it was found
        return None
    return parts.decode(data, found.mime_type)


async def _describe(store: SessionStore, key: SessionKey, version: ArtifactVersion) -> JsonObject:
    needed = parts.needs_bytes(version.mime_type)
    saved = await _load(store, key, version.name, version) if needed else None
    said: JsonObject = {
        "version": version.version - 1,
        "canonicalUri": _uri(key, version),
        "customMetadata": saved.metadata if saved else {},
        "createTime": version.created_at.timestamp(),
        "mimeType": parts.said_type(version.mime_type, saved),
    }
    return given(**said)


def _uri(key: SessionKey, version: ArtifactVersion) -> str:
    owner = "" if version.name.startswith("user:") else f"/sessions/{key.session_id}"
    path = (
        f"apps/{key.app}/users/{key.user_id}{owner}/artifacts/{version.name}/versions/{version.version - 1}"
    )
    return f"{REFERENCE}{path}"
