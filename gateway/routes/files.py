"""Artifacts as files: bytes by version, in ranges, and uploads that stream.

google-adk's routes give artifacts as JSON, in base64 and with versions from 0; these give
the bytes themselves, of which no more than a few chunks are in memory.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from gateway.ranges import span_of
from gateway.requests import IdempotencyKey, path_of
from gateway.routes.sessions import SESSION
from gateway.services import KeyDep, Services, ServicesDep
from gateway.shapes import ArtifactBody, Record, artifact_json, sha256_of
from perdure.types import ArtifactVersion, SessionKey
from storage.artifacts import refuse_reserved

__all__ = ["router"]

router = APIRouter(tags=["artifacts"])

FILES = SESSION + "/files"
FILE = FILES + "/{name:path}"

NamePath = Annotated[
    str, Path(description="The artifact; `user:` names belong to the user.", examples=["notes/a.txt"])
]
VersionQuery = Annotated[
    int | None, Query(ge=1, le=2**53, description="From 1; left out: the newest live one.")
]
RangeHeader = Annotated[
    str | None,
    Header(alias="Range", description="One span of bytes.", pattern=r"^[ -~]*$", examples=["bytes=0-99"]),
]
ETagHeader = Annotated[
    str | None, Header(alias="If-None-Match", description="ETags that the client has.", pattern=r"^[ -~]*$")
]
IfRangeHeader = Annotated[
    str | None,
    Header(alias="If-Range", description="Honour `Range` only for this ETag.", pattern=r"^[ -~]*$"),
]

_BYTES = {"*/*": {"schema": {"type": "string", "format": "binary"}}}
_HEADERS = {
    "ETag": {"schema": {"type": "string"}, "description": "The SHA-256 of the bytes, in quotes."},
    "X-Artifact-Version": {"schema": {"type": "integer"}, "description": "Which version it is, from 1."},
}
_READ_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "All of it.", "content": _BYTES, "headers": _HEADERS},
    206: {"description": "The span that was asked for.", "content": _BYTES, "headers": _HEADERS},
    304: {"description": "The client has it."},
    416: {"$ref": "#/components/responses/Problem416"},
}
_LOOK_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"description": "It is there.", "headers": _HEADERS},
    304: {"description": "The client has it."},
}


class FilesBody(Record):
    """Artifacts of a session, the user's included."""

    files: list[ArtifactBody]


@router.get(
    FILES,
    operation_id="listFiles",
    summary="The newest live version of each artifact, or all of one",
    response_model=FilesBody,
)
async def list_files(
    key: KeyDep,
    services: ServicesDep,
    name: Annotated[str | None, Query(description="All live versions of this one, oldest first.")] = None,
) -> Response:
    """Versions that were rewound are not listed."""
    if name is None:
        found = await services.store.list_artifacts(key)
    else:
        found = await services.store.artifact_versions(key, name)
    return JSONResponse({"files": [artifact_json(artifact) for artifact in found]})


@router.get(
    FILE,
    operation_id="readFile",
    summary="The bytes of an artifact, or a span of them",
    response_class=Response,
    responses=_READ_RESPONSES,
)
async def read_file(
    key: KeyDep,
    services: ServicesDep,
    name: NamePath,
    version: VersionQuery = None,
    span: RangeHeader = None,
    if_none_match: ETagHeader = None,
    if_range: IfRangeHeader = None,
) -> Response:
    """They stream: a reader that takes its time holds nobody up."""
    found, headers = await _found(services, key, name, version)
    if _matches(if_none_match, headers["etag"]):
        return _not_modified(headers)
    asked = span_of(span, found.size) if if_range in (None, headers["etag"]) else None
    start, stop = asked or (0, found.size)
    if asked is not None:
        headers["content-range"] = f"bytes {start}-{stop - 1}/{found.size}"
    headers["content-length"] = str(stop - start)
    return StreamingResponse(
        _chunks(services, key, found, start, stop), status_code=206 if asked else 200, headers=headers
    )


@router.head(
    FILE,
    operation_id="lookAtFile",
    summary="The headers of an artifact",
    response_class=Response,
    responses=_LOOK_RESPONSES,
)
async def look_at_file(
    key: KeyDep,
    services: ServicesDep,
    name: NamePath,
    version: VersionQuery = None,
    if_none_match: ETagHeader = None,
) -> Response:
    """What GET would say of it, without the bytes."""
    found, headers = await _found(services, key, name, version)
    if _matches(if_none_match, headers["etag"]):
        return _not_modified(headers)
    return Response(headers={**headers, "content-length": str(found.size)})


@router.put(
    FILE,
    operation_id="saveFile",
    summary="Save the next version of an artifact",
    status_code=201,
    response_model=ArtifactBody,
    openapi_extra={"requestBody": {"required": True, "content": _BYTES}},
)
async def save_file(
    key: KeyDep,
    services: ServicesDep,
    request: Request,
    name: NamePath,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """The body is stored as it comes in; its `Content-Type` is the artifact's."""
    mime_type = request.headers.get("content-type") or "application/octet-stream"
    refuse_reserved(mime_type)
    version = await services.runner.save_artifact(
        key, name, _received(request), mime_type, request_id=idempotency_key
    )
    saved = await services.store.find_artifact(key, name, version=version)
    headers = {
        "etag": f'"{sha256_of(saved)}"',
        "location": f"{path_of(key)}/files/{quote(name)}?version={version}",
    }
    return JSONResponse(artifact_json(saved), status_code=201, headers=headers)


async def _received(request: Request) -> AsyncIterator[bytes]:
    """The body, piece by piece; one that breaks off is no artifact."""
    async for piece in request.stream():
        if piece:
            yield piece


async def _chunks(
    services: Services, key: SessionKey, found: ArtifactVersion, start: int, stop: int
) -> AsyncIterator[bytes]:
    """Read once the response has begun, so that a reader that never comes costs nothing."""
    _, chunks = await services.store.stream_artifact(
        key, found.name, version=found.version, start=start, length=stop - start
    )
    async for chunk in chunks:
        yield chunk


async def _found(
    services: Services, key: SessionKey, name: str, version: int | None
) -> tuple[ArtifactVersion, dict[str, str]]:
    """An artifact, and what is said of it."""
    found = await services.store.find_artifact(key, name, version=version)
    return found, _headers(found)


def _not_modified(headers: Mapping[str, str]) -> Response:
    return Response(status_code=304, headers={"etag": headers["etag"]})


def _headers(found: ArtifactVersion) -> dict[str, str]:
    """As a download, never as a page of ours: who saved it may not be who opens it."""
    safe = re.fullmatch(r"[!-~][ -~]*", found.mime_type)
    file_name = quote(found.name.rpartition("/")[2], safe="")
    return {
        "content-type": found.mime_type if safe else "application/octet-stream",
        "content-disposition": f"attachment; filename*=UTF-8''{file_name}",
        "etag": f'"{sha256_of(found)}"',
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "x-artifact-version": str(found.version),
    }


def _matches(header: str | None, etag: str) -> bool:
    """Whether ``If-None-Match`` names this ETag."""
    given = [part.strip().removeprefix("W/") for part in (header or "").split(",")]
    return etag in given or "*" in given
