"""``perdure sessions context``: what the model would get now, piece by piece, with sizes.

Where the agent can be loaded here, the request is made by the code that the worker makes it
with. Where it cannot, the conversation is shown all the same: that needs no agent.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from cli import render
from cli.common import open_store
from perdure.errors import PerdureError
from perdure.settings import Settings
from perdure.transfer import acting, keys_of
from perdure.types import Event, Json, JsonObject, SessionKey

if TYPE_CHECKING:  # the model's client takes seconds to import, which `--help` need not pay
    from activities.model_request import ModelRequest
    from activities.prompt import Piece
    from perdure.agent import Agent
    from storage.sessions import Context, SessionStore

__all__ = ["show_context"]

CHARACTERS_A_TOKEN = 4
"""What a token comes to in English, about; what a call really took is in its usage."""
_UNSEEN = frozenset({"thoughtSignature"})


async def show_context(settings: Settings, key: SessionKey, *, as_json: bool) -> None:
    """Print the next prompt of a session, without the message that it will end in.

    Raises:
        SessionNotFound: there is no session.
    """
    from activities.model_request import body_of
    from activities.prompt import pieces_of

    agent, problem = _agent(settings, key)
    async with open_store(settings) as store:
        context = await store.context(key, state_keys=keys_of(agent) if agent else ())
        request = None
        if agent:
            request, problem = await _request(store, key, agent, context)
    pieces = list(pieces_of(context.summary, context.events))
    contents = list(request.contents) if request else [piece.content for piece in pieces]
    if problem:
        print(f"perdure: {problem}. Shown is the conversation alone.", file=sys.stderr)
    if as_json:
        print(render.as_json(await body_of(request) if request else {"contents": contents}))
        return
    _head(key, context, request)
    if request:
        _instruction_and_tools(request)
    print(f"\nCONTENTS  {_sizes(contents)}")
    if contents:
        render.show(_table(pieces, contents, context.summary))
    else:
        print("  none: the next prompt is the next message alone")
    _totals(request, contents, context)


def _agent(settings: Settings, key: SessionKey) -> tuple[Agent | None, str | None]:
    """The agent of the session; or none, and why."""
    from perdure.registry import load_agents

    if not settings.agents:
        return None, f"which agent is {key.app}? Set PERDURE_AGENTS to the module that defines it"
    try:
        return load_agents(settings.agents).of(key), None
    except PerdureError as error:
        return None, f"{type(error).__name__}: {error}"


async def _request(
    store: SessionStore, key: SessionKey, agent: Agent, context: Context
) -> tuple[ModelRequest | None, str | None]:
    """What the worker would send; or nothing, and why."""
    from activities.mcp_servers import McpServers
    from activities.model_request import full_request

    servers = McpServers()
    try:
        equipped = await servers.equip(acting(agent, context.session.state, begins=True))
        return await full_request(store, key, equipped, context), None
    except PerdureError as error:
        return None, f"{type(error).__name__}: {error}"
    finally:
        await servers.close()


def _head(key: SessionKey, context: Context, request: ModelRequest | None) -> None:
    print(f"SESSION  {key}, {context.session.head} events")
    if request:
        print(f"MODEL    {request.model}")


def _instruction_and_tools(request: ModelRequest) -> None:
    print(f"\nSYSTEM INSTRUCTION  {_sizes(request.system) if request.system else 'none'}")
    for line in request.system.splitlines():
        print(f"  {line}")
    print(f"\nTOOLS  {_sizes(list(request.tools)) if request.tools else 'none'}")
    for tool in request.tools:
        names = ", ".join(tool.get("parametersJsonSchema", {}).get("properties", {}))
        print(f"  {tool['name']}({names})  {render.one_line(tool.get('description', ''), 100)}")


def _table(pieces: Sequence[Piece], contents: Sequence[JsonObject], summary: Event | None) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("SEQ", "", "ROLE", "CHARACTERS", "TOKENS", "WHAT"):
        numbers = title in ("CHARACTERS", "TOKENS")
        table.add_column(title, overflow="fold", justify="right" if numbers else "left", no_wrap=numbers)
    for piece, content in zip(pieces, contents, strict=True):
        table.add_row(
            _seqs(piece),
            _mark(piece, summary),
            Text(str(content.get("role"))),
            f"{_characters(content):,}",
            f"~{_tokens(content):,}",
            Text("\n".join(_said(content))),
        )
    return table


def _mark(piece: Piece, summary: Event | None) -> str:
    """Whether it is the summary, or raw; and if that, whether the summary has it too."""
    if not piece.events:
        return "made up"
    if summary is None or summary.compaction is None:
        return ""
    if piece.events[0] is summary:
        return "summary"
    return "overlap" if piece.events[0].seq <= summary.compaction["end"] else "tail"


def _seqs(piece: Piece) -> str:
    """What of the log it stands for."""
    if piece.events and (covered := piece.events[0].compaction):
        return f"{covered['start']}–{covered['end']}"
    seqs = sorted({event.seq for event in piece.events})
    if not seqs:
        return ""
    return str(seqs[0]) if len(seqs) == 1 else f"{seqs[0]}–{seqs[-1]}"


def _said(content: JsonObject) -> Iterator[str]:
    """A content in full; of data just its kind and its size."""
    for part in content.get("parts") or ():
        if call := part.get("functionCall"):
            yield f"{call.get('name')}({_json(call.get('args') or {})})"
        elif response := part.get("functionResponse"):
            yield f"{response.get('name')} → {_json(response.get('response'))}"
        elif part.get("text"):
            yield f"(thought) {part['text']}" if part.get("thought") else part["text"]
        elif held := part.get("inlineData") or part.get("inline_data"):
            kind = held.get("mimeType") or held.get("mime_type") or "data"
            yield f"[{kind}, {len(held.get('data') or ''):,} characters of base64]"
        elif rest := {name: value for name, value in part.items() if value and name not in _UNSEEN}:
            yield _json(rest)


def _totals(request: ModelRequest | None, contents: Sequence[JsonObject], context: Context) -> None:
    parts: list[Json] = [list(contents)]
    if request:
        parts += [request.system, list(request.tools) if request.tools else ""]
    characters, tokens = sum(map(_characters, parts)), sum(map(_tokens, parts))
    print(f"\nTOTAL      {characters:,} characters, about {tokens:,} tokens")
    last = next((event for event in reversed(context.events) if event.usage), None)
    if last is None or last.usage is None:
        print("LAST CALL  none yet" if not contents else "LAST CALL  unknown: its answer says nothing of it")
        return
    print(f"LAST CALL  {_usage(last.usage)} (seq {last.seq})")
    if context.summary is not None and last.seq < context.summary.seq:
        print("           that was before the summary, and the prompt is shorter now")


def _usage(usage: JsonObject) -> str:
    """What a call took, as the model counted it."""
    prompt = f"{usage.get('promptTokenCount') or 0:,} tokens of prompt"
    if cached := usage.get("cachedContentTokenCount"):
        prompt += f", {cached:,} of them from the model's cache"
    told = [prompt, f"{usage.get('candidatesTokenCount') or 0:,} of answer"]
    if thoughts := usage.get("thoughtsTokenCount"):
        told.append(f"{thoughts:,} of thoughts")
    return ", ".join(told)


def _sizes(value: Json) -> str:
    return f"{_characters(value):,} characters, about {_tokens(value):,} tokens"


def _characters(value: Json) -> int:
    return len(value if isinstance(value, str) else _json(value))


def _tokens(value: Json) -> int:
    return -(-_characters(_without_signatures(value)) // CHARACTERS_A_TOKEN)


def _without_signatures(value: Any) -> Any:
    """A signature is long, and costs nothing."""
    if isinstance(value, dict):
        return {name: _without_signatures(item) for name, item in value.items() if name not in _UNSEEN}
    return [_without_signatures(item) for item in value] if isinstance(value, list) else value


def _json(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)
