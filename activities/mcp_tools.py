"""A tool of an MCP server as a tool of an agent: its name, its schema, its results."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from activities.mcp_schema import fitted_schema
from activities.oversize import READ_ARTIFACT
from perdure.context import ToolContext
from perdure.errors import InvalidAgent
from perdure.mcp import McpServer
from perdure.tool import Parameters, Tool
from perdure.types import Json, JsonObject, given

if TYPE_CHECKING:
    import mcp_types as types

__all__ = ["CallServer", "McpTool", "mcp_tools"]

CallServer: TypeAlias = "Callable[[str, JsonObject, JsonObject], Awaitable[types.CallToolResult]]"
"""Calls a tool by the server's name for it, with arguments and ``_meta``."""

IDEMPOTENCY_KEY = "perdure/idempotency-key"
"""In a call's ``_meta``: the same for every attempt of a call. Hashed, so that it names no user."""

MOST_TOOLS = 512
"""Tools that an agent gets of one server; a model is told of no more."""
LONGEST_DESCRIPTION = 50_000
"""Characters. It is in every prompt."""

_LONGEST = 64
_FOREIGN = re.compile(r"[^A-Za-z0-9_.:-]")


class McpTool(Tool):
    """One tool of a server.

    Args:
        server: as it is declared.
        listed: as the server lists it.
        call: how to call the server.
    """

    def __init__(self, server: McpServer, listed: types.Tool, call: CallServer) -> None:
        async def run(arguments: JsonObject, context: ToolContext) -> JsonObject:
            key = hashlib.sha256(context.idempotency_key.encode()).hexdigest()[:32]
            return _told(await call(listed.name, arguments, {IDEMPOTENCY_KEY: key}))

        what = f"{server.title}: tool {listed.name!r}"
        description = (listed.description or listed.title or "").strip()
        if len(description) > LONGEST_DESCRIPTION:
            raise InvalidAgent(
                f"{what} has a description of {len(description)} characters, of which every prompt would be "
                "full; leave it out with without=[...]"
            )
        self._listed = _Listed(fitted_schema(listed.input_schema, what))
        super().__init__(
            run,
            name=_fitted_name(server.prefix + listed.name),
            description=description or None,
            parallel=True,  # it touches no state
            timeout=server.timeout,
            retries=server.retries,
            confirm=server.confirms(listed.name),
            confirm_timeout=server.confirm_timeout if server.confirms(listed.name) else None,
            on_timeout=server.on_timeout if server.confirms(listed.name) else "refuse",
        )

    def _signature_of(self, function: Callable[..., Any]) -> Parameters:
        return self._listed


def mcp_tools(server: McpServer, listed: Iterable[types.Tool], call: CallServer) -> list[Tool]:
    """The tools that an agent gets of a server.

    Raises:
        InvalidAgent: the declaration names tools that the server does not have; or a name is taken; or
            a schema could not be shown to the model; or they are too many.
    """
    listed = list(listed)
    known = {each.name for each in listed}
    if unknown := server.named - known:
        raise InvalidAgent(
            f"MCP server {server.title!r} has no tools named {', '.join(sorted(unknown))}, as only, without "
            f"or confirm say; it has: {', '.join(sorted(known)) or 'none'}"
        )
    given = [each for each in listed if server.gives(each.name)]
    if len(given) > MOST_TOOLS:
        raise InvalidAgent(
            f"MCP server {server.title!r} has {len(given)} tools, and a model takes {MOST_TOOLS} at most; "
            "choose some with only=[...]"
        )
    tools = [McpTool(server, each, call) for each in given]
    if any(tool.name == READ_ARTIFACT for tool in tools):
        raise InvalidAgent(
            f"MCP server {server.title!r} has a tool named {READ_ARTIFACT!r}, as Perdure has itself; "
            "give it a prefix"
        )
    return list[Tool](tools)


class _Listed:
    """What stands in for a function's signature. The server checks the arguments."""

    def __init__(self, parameters: JsonObject) -> None:
        self.parameters = parameters
        self.context_parameter: str | None = "context"
        self.description = ""

    def bind(
        self, arguments: Mapping[str, Any], context: ToolContext | None
    ) -> tuple[list[Any], dict[str, Any]]:
        return [dict(arguments), context], {}

    def values(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return dict(arguments)


def _fitted_name(name: str) -> str:
    """The name as Gemini takes it; the same where it does. Names that differ stay different."""
    fitted = _FOREIGN.sub("_", name)
    if not fitted[:1].isalpha() and not fitted.startswith("_"):
        fitted = f"_{fitted}"
    if fitted == name and len(fitted) <= _LONGEST:
        return name
    return f"{fitted[: _LONGEST - 7]}_{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _told(result: types.CallToolResult) -> JsonObject:
    """What the model is told of a result."""
    content = [_part(block) for block in result.content]
    if result.is_error:
        texts = [part for part in content if isinstance(part, str)]
        return {"error": "\n".join(texts) or "The tool failed and does not say why."}
    if result.structured_content is None:
        return {"result": content[0] if len(content) == 1 else content}
    # Beside it, a server repeats it as text for clients that know no better.
    beside = [part for part in content if not isinstance(part, str)]
    structured = result.structured_content
    told: JsonObject = structured if isinstance(structured, dict) else {"result": structured}
    return {**told, "content": beside} if beside and "content" not in told else told


def _part(block: types.ContentBlock) -> Json:
    """A piece of content: text as it is; bytes as ``inlineData``, an artifact where they are many."""
    if block.type == "text":
        return block.text
    if block.type == "image" or block.type == "audio":
        return _inline(block.mime_type, block.data)
    if block.type == "resource_link":
        said = {"uri": str(block.uri), "name": block.name, "mimeType": block.mime_type}
        return {"resource": given(**said)}
    resource = block.resource
    found: JsonObject = {"uri": str(resource.uri)}
    text = getattr(resource, "text", None)
    if isinstance(text, str):
        return {"resource": {**found, "text": text}}
    return {"resource": found, **_inline(resource.mime_type, getattr(resource, "blob", ""))}


def _inline(mime_type: str | None, data: str) -> JsonObject:
    return {"inlineData": {"mimeType": mime_type or "application/octet-stream", "data": data}}
