"""A model call: from what is in the log to what goes out, for the activity and for people who look.

There is one way from a context to a request. ``perdure sessions context`` goes it too, down
to the bytes: the real client builds them, and a transport keeps them from leaving.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from activities.builtin_tools import tools_for
from activities.gemini import Answer, Gemini, recording_transport
from activities.media import with_media
from activities.media_cache import MediaCache
from activities.prompt import build_prompt
from perdure.agent import Agent
from perdure.structured import schema_of
from perdure.types import Json, JsonObject, SessionKey
from storage.sessions import Context, SessionStore

__all__ = ["ModelRequest", "body_of", "full_request", "model_request", "send"]


IN_WORDS = """\
When you have done what there is to do, answer with one JSON value and nothing else: no words around it.
It has to fit this JSON schema:
{schema}"""
"""For a model that cannot be given a schema beside tools. What it answers is checked all the same."""

_GENERATION = re.compile(r"gemini-(\d+)")
_PLACEHOLDER: JsonObject = {"role": "user", "parts": [{"text": "-"}]}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRequest:
    """What the model is asked; the fields are those of :meth:`activities.gemini.Gemini.generate`."""

    model: str
    system: str
    contents: Sequence[JsonObject]
    tools: Sequence[JsonObject]
    extra: Mapping[str, Json] | None
    timeout: float


async def full_request(
    store: SessionStore,
    key: SessionKey,
    agent: Agent,
    context: Context,
    *,
    media: MediaCache | None = None,
    notes: Mapping[str, str] | None = None,
) -> ModelRequest:
    """The next model call of a session, as it goes out: with the media that the log only refers to.

    Args:
        store: where the session lives.
        key: the session.
        agent: the agent it is with.
        context: what the store has of it for the model.
        media: where the bytes of media are remembered; None: nowhere.
        notes: what goes before the words of messages, by their events' ids.

    Raises:
        InvalidInstruction: the instruction needs a state key that is not set.
    """
    request = model_request(agent, context, notes)
    limit = agent.limits.media_chars
    contents = await with_media(store, key, request.contents, limit=limit, cache=media)
    return replace(request, contents=contents)


def model_request(agent: Agent, context: Context, notes: Mapping[str, str] | None = None) -> ModelRequest:
    """The next model call of a session, media not loaded.

    Raises:
        InvalidInstruction: the instruction needs a state key that is not set.
    """
    prompt = build_prompt(agent, context.session.state, context.summary, context.events, notes)
    tools = [tool.declaration for tool in tools_for(agent, context.summary, context.events)]
    system, extra = prompt.system, agent.generation
    if agent.output_schema is not None:
        schema = schema_of(agent.output_schema)
        if tools and not _takes_schema_with_tools(agent.model):
            system = f"{system}\n\n{IN_WORDS.format(schema=json.dumps(schema, ensure_ascii=False))}".lstrip()
        else:
            asked: JsonObject = {"response_mime_type": "application/json", "response_json_schema": schema}
            extra = {**(extra or {}), **asked}
    return ModelRequest(
        model=agent.model,
        system=system,
        contents=prompt.contents,
        tools=tools,
        extra=extra,
        timeout=agent.limits.model_timeout,
    )


def _takes_schema_with_tools(model: str) -> bool:
    """Whether a model can be given both; before Gemini 3 the API refuses the request."""
    found = _GENERATION.match(model.removeprefix("models/"))
    return found is not None and int(found[1]) >= 3


async def send(
    gemini: Gemini,
    request: ModelRequest,
    *,
    on_chunk: Callable[[JsonObject], None] | None = None,
    usage: JsonObject | None = None,
) -> Answer:
    """Ask the model once; see :meth:`activities.gemini.Gemini.generate`."""
    return await gemini.generate(
        model=request.model,
        system=request.system,
        contents=request.contents,
        tools=request.tools,
        extra=request.extra,
        timeout=request.timeout,
        on_chunk=on_chunk,
        usage=usage,
    )


async def body_of(request: ModelRequest) -> JsonObject:
    """The body of the HTTP request that :func:`send` makes. Nothing is sent, and no key is needed.

    One without contents cannot be sent; its body is as it would be around the first message.

    Raises:
        ModelRefused: the client takes no such request.
    """
    sent: list[bytes] = []
    gemini = Gemini("http://127.0.0.1", transport=recording_transport(sent))
    try:
        await send(gemini, request if request.contents else replace(request, contents=[_PLACEHOLDER]))
    finally:
        await gemini.close()
    body: JsonObject = json.loads(sent[0])
    return body if request.contents else {**body, "contents": []}
