"""The OpenAPI document: what FastAPI makes of the routes, with the errors and the token added to each."""

from __future__ import annotations

import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.examples import with_examples
from gateway.problems import MEDIA_TYPE, STATUSES, TYPE_ROOT
from perdure.errors import code_of

__all__ = ["Problem", "install_openapi"]

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
_EXAMPLES: dict[int, tuple[str, str]] = {
    400: ("invalid-message", "the message is empty"),
    401: ("unauthenticated", "the request has no bearer token; send it as `Authorization: Bearer TOKEN`"),
    403: ("forbidden", "the token ann does not reach user 'bob' of app 'counter'; ask with one that does"),
    404: ("session-not-found", "there is no session counter/ann/s1"),
    408: (
        "request-timeout",
        "the body paused for 30 seconds, or came too slowly; send the request again",
    ),
    409: ("version-mismatch", "counter/ann/s1 is at version 5, not 4; read it again"),
    413: ("too-large", "the body is larger than the 32000000 bytes that are taken here; send less"),
    416: ("range-not-satisfiable", "the artifact has 12 bytes; ask for a range within them"),
    422: ("invalid-request", "the request cannot be read: body.text: Input should be a valid string"),
    429: ("rate-limited", "the token ann may ask 50 times a second; slow down"),
    500: ("internal-error", "the gateway failed; its log says why"),
    502: ("model-refused", "the model refused to sum up the session"),
    503: ("temporal-unavailable", "Temporal does not answer now; send the same again under its id"),
}


_STREAM = "text/event-stream"
_STREAMED = {
    "type": "object",
    "description": "One event of the stream; its data is JSON.",
    "properties": {name: {"type": "string"} for name in ("id", "event", "data")},
}


class Problem(BaseModel):
    """What went wrong, after RFC 9457."""

    type: str = Field(description=f"`{TYPE_ROOT}` and the code.")
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="What happened, to what, and what to do.")
    instance: str = Field(description="The path that was asked for.")
    code: str = Field(description="Which error it is; it does not change.")
    actual: int | None = Field(default=None, description="The session's version, of a version-mismatch.")
    retryAfter: float | None = Field(default=None, description="Seconds to wait.")  # noqa: N815 - its name on the wire
    errors: list[dict[str, Any]] | None = Field(default=None, description="Where a request is invalid.")


def install_openapi(app: FastAPI) -> None:
    """Serve the document at ``/openapi.json``, to anybody: it tells nothing of what is stored."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    async def serve(_: Request) -> Response:
        return JSONResponse(document())

    app.openapi = document  # type: ignore[method-assign]  # how FastAPI has it extended
    app.router.routes.append(Route("/openapi.json", serve))


def _document(app: FastAPI) -> dict[str, Any]:
    made = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description="Errors are RFC 9457 problems whose `code` does not change.",
        routes=app.routes,
    )
    parts = made.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    parts["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "An API key from `perdure keys create`, or a JWT.",
        }
    }
    parts["responses"] = {f"Problem{status}": _problem(status) for status in _EXAMPLES}
    made["security"] = [{"token": []}]
    for methods in made["paths"].values():
        for method, operation in methods.items():
            if method in _METHODS:
                _complete(operation)
                with_examples(operation)
                for parameter in operation.get("parameters", ()):
                    _without_null(parameter["schema"])
    return made


def _complete(operation: dict[str, Any]) -> None:
    """Add the problems to the responses of an operation, beside errors of another form that it has."""
    responses = operation["responses"]
    if "HTTPValidationError" in json.dumps(responses.get("422", {})):
        del responses["422"]
    never = {416} if "requestBody" in operation else {408, 416}
    for status in sorted(_EXAMPLES.keys() - never):
        problem = {"$ref": f"#/components/responses/Problem{status}"}
        own = responses.setdefault(str(status), problem)
        if own != problem:
            [schema] = own["content"].values()
            own["content"] = {"application/json": schema, **_problem(status)["content"]}
    for response in responses.values():
        if _STREAM in response.get("content", {}):
            response["content"][_STREAM]["schema"] = _STREAMED


def _without_null(schema: dict[str, Any]) -> None:
    """A parameter may be left out, but there is no way to send null as one."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        schema |= kinds[0]


def _problem(status: int) -> dict[str, Any]:
    code, detail = _EXAMPLES[status]
    codes = sorted({code, *(code_of(kind) for kind, is_for in STATUSES.items() if is_for == status)})
    example = {
        "type": f"{TYPE_ROOT}{code}",
        "title": "…",
        "status": status,
        "detail": detail,
        "instance": "/apps/counter/users/ann/sessions/s1",
        "code": code,
    }
    return {
        "description": f"A problem: {', '.join(codes)}.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}},
    }
