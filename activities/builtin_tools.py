"""``read_artifact``: how the model reads what was too large for its prompt, piece by piece.

It is declared beside an agent's own tools, always, so that a prompt's beginning stays the
same; to an agent without tools only while its context speaks of something to read. A tool of
the agent's own of that name stands in for it.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import lru_cache

from activities.oversize import READ_ARTIFACT, may_read
from perdure.agent import Agent
from perdure.context import Artifact, ToolContext
from perdure.errors import ArtifactNotFound, InvalidName
from perdure.sources import CHUNK
from perdure.tool import Tool, tool
from perdure.types import Event, JsonObject

__all__ = ["builtin_tool", "tools_for"]

MOST_NAMES = 100
"""How many names a listing gives."""


def tools_for(agent: Agent, summary: Event | None, events: Iterable[Event]) -> list[Tool]:
    """What the model is told it may call, given what is in its context."""
    tools = list(agent.tools)
    if agent.tool(READ_ARTIFACT) is None and (
        tools or any(may_read(event) for event in events) or (summary and READ_ARTIFACT in summary.text)
    ):
        tools.append(_read_artifact(agent.limits.result_chars))
    return tools


def builtin_tool(agent: Agent, name: str) -> Tool | None:
    """The runtime's own tool of that name, unless the agent has one."""
    return (
        _read_artifact(agent.limits.result_chars)
        if name == READ_ARTIFACT and agent.tool(name) is None
        else None
    )


@lru_cache
def _read_artifact(longest: int) -> Tool:
    description = (
        "Read a saved text (an artifact), such as a result or a message that was too long to be shown. "
        f"Gives at most {longest} characters at a time, and says where to read on. "
        "With a * in the name it lists the artifacts of that pattern instead."
    )

    # Parallel: it touches no state.
    @tool(parallel=True, name=READ_ARTIFACT, description=description)
    async def read_artifact(
        name: str, context: ToolContext, version: int | None = None, start: int = 0, length: int = longest
    ) -> JsonObject:
        """Read a range of an artifact.

        Args:
            name: The artifact's name, or a pattern such as "results/*".
            version: Which version; the newest where left out.
            start: The first character to read, counted from 0.
            length: How many characters to read.
        """
        if "*" in name:
            names = await context.list_artifacts()
            return {"artifacts": [found for found in names if fnmatchcase(found, name)][:MOST_NAMES]}
        return await _range(context, name, version, max(start, 0), min(max(length, 1), longest))

    return read_artifact


async def _range(context: ToolContext, name: str, version: int | None, start: int, length: int) -> JsonObject:
    try:
        artifact = await context.load_artifact(name, version, length=CHUNK)
        about: JsonObject = {
            "name": artifact.name,
            "version": artifact.version,
            "mime_type": artifact.mime_type,
        }
        text, characters = await _scanned(context, artifact, start, start + length)
    except (ArtifactNotFound, InvalidName):
        return {"error": await _missing(context, name, version)}
    except UnicodeDecodeError:
        return {**about, "error": f"This is no text but {artifact.mime_type}; it cannot be read here."}
    end = start + len(text)
    more = {"next_start": end} if end < characters else {}
    return {**about, "characters": characters, "start": start, "text": text, **more}


async def _scanned(context: ToolContext, artifact: Artifact, start: int, end: int) -> tuple[str, int]:
    """The characters of a range, and how many there are in all; never more than a chunk in memory.

    Raises:
        UnicodeDecodeError: it is no text.
    """
    decoder = getincrementaldecoder("utf-8")()
    found: list[str] = []
    characters = offset = 0
    while True:
        last = len(artifact.data) < CHUNK
        text = decoder.decode(artifact.data, final=last)
        if "\0" in text:
            raise UnicodeDecodeError("utf-8", artifact.data[:1], 0, 1, "text has no U+0000")
        found.append(text[max(start - characters, 0) : max(end - characters, 0)])
        characters += len(text)
        if last:
            return "".join(found), characters
        offset += CHUNK
        artifact = await context.load_artifact(artifact.name, artifact.version, start=offset, length=CHUNK)


async def _missing(context: ToolContext, name: str, version: int | None) -> str:
    names = await context.list_artifacts()
    if name in names:
        return f"There is no version {version} of artifact {name!r}; leave the version out for the newest."
    close = get_close_matches(name, names, n=5, cutoff=0.3) or names[:5]
    there = f" There are: {', '.join(close)}." if close else " There are no artifacts."
    return f"There is no artifact {name!r}.{there}"
