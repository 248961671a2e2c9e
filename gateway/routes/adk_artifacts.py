"""google-adk's API: artifacts. The order of the routes matters: a name may have slashes in it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse, Response
from google.genai import types

from gateway import adk_files
from gateway.adk_models import AdkArtifact, SaveArtifact
from gateway.adk_route import ERRORS, AdkRoute
from gateway.adk_sessions import must_find
from gateway.services import KeyDep, ServicesDep

__all__ = ["router"]

router = APIRouter(tags=["google-adk"], route_class=AdkRoute, responses=ERRORS)
ARTIFACTS = "/apps/{app}/users/{user}/sessions/{session}/artifacts"
ONE = f"{ARTIFACTS}/{{name:path}}"

Name = Annotated[str, Path(description="Its name; the user's begin with `user:`.", examples=["notes.txt"])]
# Its form is for the document: what is wrong with it google-adk's server says in words of its own.
Number = Annotated[
    str,
    Path(
        description="From 0, or `latest`.",
        examples=["0"],
        json_schema_extra={"pattern": "^(latest|[0-9]{1,9})$"},
    ),
]


@router.get(
    f"{ONE}/versions/{{version}}/metadata",
    summary="What is known of a version",
    operation_id="adkDescribeVersion",
    response_model=AdkArtifact,
)
async def describe_version(key: KeyDep, name: Name, version: Number, services: ServicesDep) -> Response:
    """Its type, its time, and what metadata it was saved with."""
    number = adk_files.number_of(version)
    return JSONResponse(await adk_files.described(services.store, key, name, number))


@router.get(
    f"{ONE}/versions/metadata",
    summary="What is known of all versions",
    operation_id="adkDescribeVersions",
    response_model=list[AdkArtifact],
)
async def describe_versions(key: KeyDep, name: Name, services: ServicesDep) -> Response:
    """All versions that can be loaded, oldest first."""
    return JSONResponse(await adk_files.describe_all(services.store, key, name))


@router.post(
    ARTIFACTS, summary="Save an artifact", operation_id="adkSaveArtifact", response_model=AdkArtifact
)
async def save_artifact(key: KeyDep, wanted: SaveArtifact, services: ServicesDep) -> Response:
    """Save the next version of an artifact; it can be loaded at once."""
    await must_find(services.store, key)
    saved = await adk_files.save(services, key, wanted.filename, wanted.artifact, wanted.custom_metadata)
    return JSONResponse(saved)


@router.get(
    f"{ONE}/versions/{{version}}",
    summary="A version of an artifact",
    operation_id="adkLoadVersion",
    response_model=types.Part,
)
async def load_version(key: KeyDep, name: Name, version: Number, services: ServicesDep) -> Response:
    """The version as a genai Part."""
    number = adk_files.number_of(version)
    return JSONResponse(await adk_files.load(services.store, key, name, number))


@router.get(
    ARTIFACTS, summary="The artifacts' names", operation_id="adkListArtifacts", response_model=list[str]
)
async def list_artifacts(key: KeyDep, services: ServicesDep) -> Response:
    """The names of the session's artifacts and of its user's, sorted."""
    return JSONResponse(await adk_files.names(services.store, key))


@router.get(
    f"{ONE}/versions",
    summary="An artifact's versions",
    operation_id="adkListVersions",
    response_model=list[int],
)
async def list_versions(key: KeyDep, name: Name, services: ServicesDep) -> Response:
    """The versions that can be loaded, oldest first."""
    found = await adk_files.versions(services.store, key, name)
    return JSONResponse([version.version - 1 for version in found])


@router.get(ONE, summary="An artifact", operation_id="adkLoadArtifact", response_model=types.Part)
async def load_artifact(
    key: KeyDep,
    name: Name,
    services: ServicesDep,
    version: Annotated[int | None, Query(description="From 0; the newest by default.")] = None,
) -> Response:
    """The newest version, or the one that is asked for, as a genai Part."""
    return JSONResponse(await adk_files.load(services.store, key, name, version))


@router.delete(ONE, summary="Delete an artifact", operation_id="adkDeleteArtifact", response_model=None)
async def delete_artifact(key: KeyDep, name: Name, services: ServicesDep) -> Response:
    """Delete an artifact; no error if there is none. A rewind to before it brings the artifact back."""
    await adk_files.delete(services, key, name)
    return JSONResponse(None)
