"""The one place that talks to a model: Google's Gemini API, through its own SDK, streaming.

Contents go out and come back in wire form, as JSON. What was stored is sent word for word
(``extra_body`` replaces the SDK's own rendering of the contents), and what is stored is
what was received (see :mod:`activities.model_wire`): thought signatures, function-call ids
and fields that this release of the SDK has never heard of survive the round trip.

Three habits of the SDK are turned off, because Temporal does them better or nobody should:
its retries, its automatic function calling, and its choice of HTTP library. The last one
depends on what else is installed (aiohttp arrives with s3fs and wins), so we hand it a
client of our own: httpx2, which google-genai 3 brings, or httpx, which 2 brings.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit

from google import genai
from google.genai import types

from activities.model_errors import REFUSED_FINISHES, refused_finish, sort_error
from activities.model_wire import Reading, Wire
from perdure.crashpoints import reach
from perdure.errors import ModelError, ModelRefused, ModelUnavailable
from perdure.settings import Settings
from perdure.types import JsonObject

__all__ = ["Answer", "Gemini", "recording_transport"]

_NO_KEY = (
    "there is no API key for the Gemini API: set GEMINI_API_KEY, "
    "or PERDURE_MODEL_BASE_URL to a server that needs none"
)
_PLACEHOLDER_KEY = "none-needed"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_OURS = frozenset({"automatic_function_calling", "http_options", "system_instruction"})
_REPLACED = types.Content(role="user", parts=[types.Part(text="replaced by extra_body")])

_A_WORD = 'data: {"candidates": [{"content": {"parts": [{"text": "-"}]}, "finishReason": "STOP"}]}\n\n'

_wire: ContextVar[Wire] = ContextVar("perdure_model_wire")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a model answered, whole."""

    content: JsonObject
    """A genai ``Content`` in wire form, exactly as it came; adjacent text is joined."""
    finish_reason: str
    """``STOP``, ``MAX_TOKENS``, or what else the server calls an end with something in it."""
    usage: JsonObject
    """``usageMetadata`` in wire form; empty if the server sent none."""
    model_version: str | None
    """Which model answered, in the server's words."""


class _HttpClient(Protocol):
    """What we need of httpx's and httpx2's ``AsyncClient``."""

    async def aclose(self) -> None: ...


class Gemini:
    """A client of the Gemini API, shared by the concurrent calls of one event loop.

    Nothing is opened, and no key is asked for, before the first call.

    Args:
        base_url: where the API is; None means Google's own.
        api_key: may be None if there is a ``base_url`` that needs none.
        api_version: of the Gemini API. We name it because the SDK's default moved from v1beta
            to v1 with its release 3, and v1 lacks the ``-latest`` aliases of models.
        transport: what carries requests in place of the network, see :func:`recording_transport`.
    """

    def __init__(
        self,
        base_url: str | None = None,
        api_key: str | None = None,
        *,
        api_version: str = "v1beta",
        transport: Any = None,
    ) -> None:
        self._base_url = base_url or None
        self._api_key = (api_key or "").strip() or (_PLACEHOLDER_KEY if self._base_url else None)
        self._api_version = api_version
        self._transport = transport
        self._client: genai.Client | None = None
        self._http: _HttpClient | None = None

    @classmethod
    def of(cls, settings: Settings) -> Gemini:
        """The client that the settings name."""
        key = settings.gemini_api_key
        return cls(settings.model_base_url, key.get_secret_value() if key else None)

    async def generate(
        self,
        *,
        model: str,
        system: str | None,
        contents: Sequence[JsonObject],
        tools: Sequence[Mapping[str, Any]] = (),
        extra: Mapping[str, Any] | None = None,
        on_chunk: Callable[[JsonObject], None] | None = None,
        usage: JsonObject | None = None,
        timeout: float,  # noqa: ASYNC109 - it also goes to the server, as the deadline of the request
    ) -> Answer:
        """Ask once, without any retry, and wait for the whole answer.

        Args:
            model: its name, such as ``gemini-3-flash-preview``.
            system: the system instruction; None or "" for none.
            contents: the conversation in wire form.
            tools: function declarations: name, description and ``parametersJsonSchema``.
            extra: further fields of genai's ``GenerateContentConfig``.
            on_chunk: called with the content of each piece as it arrives, for those who follow the session.
            usage: an empty object that gets what the server says of the call's tokens, as it says it: so it
                is there also where the caller was cancelled.
            timeout: seconds the whole call may take.

        Raises:
            ModelUnavailable: it may succeed later; see :mod:`activities.model_errors`.
            ModelRefused: it would fail again.
        """
        config = _config(model, system, contents, tools, extra, timeout)
        client = self._connected()
        wire = Wire()
        usage = {} if usage is None else usage
        token = _wire.set(wire)
        try:
            async with asyncio.timeout(timeout) as limit:
                return await _read(client, model, config, wire, on_chunk, usage)
        except TimeoutError:
            if not limit.expired():
                raise
            late = ModelUnavailable(f"model {model} did not finish its answer within {timeout:g} s")
            late.usage = usage
            raise late from None
        except ModelError as error:
            error.usage = usage
            raise
        finally:
            _wire.reset(token)
            await wire.close()

    async def embed(
        self,
        *,
        model: str,
        texts: Sequence[str],
        dimensions: int,
        query: bool,
        timeout: float,  # noqa: ASYNC109 - it also goes to the server, as the deadline of the request
    ) -> list[list[float]]:
        """The vectors of some texts, in their order. Asks once, without any retry.

        Args:
            model: an embedding model, such as ``gemini-embedding-001``.
            texts: at most 100.
            dimensions: of the vectors.
            query: they are looked for, and not looked through: models tell the two apart.
            timeout: seconds it may take.

        Raises:
            ModelUnavailable: it may succeed later.
            ModelRefused: it would fail again.
        """
        client = self._connected()
        config = types.EmbedContentConfig(
            task_type="RETRIEVAL_QUERY" if query else "RETRIEVAL_DOCUMENT",
            output_dimensionality=dimensions,
            http_options=types.HttpOptions(timeout=max(1, round(timeout * 1000))),
        )
        # Strings would be parts of one content for some models, and so one vector.
        contents = [types.Content(role="user", parts=[types.Part(text=text)]) for text in texts]
        try:
            async with asyncio.timeout(timeout):
                answer = await client.aio.models.embed_content(model=model, contents=contents, config=config)
        except Exception as error:
            raise sort_error(error, model=model, answering=False) from error
        vectors = [list(each.values or ()) for each in answer.embeddings or ()]
        if len(vectors) != len(texts) or any(len(vector) != dimensions for vector in vectors):
            raise ModelRefused(
                f"model {model} gave {len(vectors)} vectors for {len(texts)} texts, or not of {dimensions} "
                "dimensions; use another embedding_model, or other dimensions"
            )
        return vectors

    async def close(self) -> None:
        """Close all connections. A later call opens new ones."""
        client, self._client = self._client, None
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()
        if client is not None:
            await client.aio.aclose()
            client.close()

    def _connected(self) -> genai.Client:
        if self._client is None:
            if self._api_key is None:
                raise ModelRefused(_NO_KEY)
            self._http = _http_client(self._base_url, self._transport)
            self._client = genai.Client(
                vertexai=False,
                api_key=self._api_key,
                http_options=types.HttpOptions(
                    base_url=self._base_url,
                    api_version=self._api_version,
                    httpx_async_client=self._http,
                    retry_options=types.HttpRetryOptions(attempts=1),
                ),
            )
        return self._client


async def _read(
    client: genai.Client,
    model: str,
    config: types.GenerateContentConfig,
    wire: Wire,
    on_chunk: Callable[[JsonObject], None] | None,
    usage: JsonObject,
) -> Answer:
    """Read to the end, with what it takes kept in ``usage``, which outlives a failure."""
    reading = Reading()
    finish: str | None = None
    version: str | None = None
    async with aclosing(_chunks(client, model, config, wire)) as chunks:
        async for chunk in chunks:
            content = reading.add(wire.take(partial(_dump, chunk)))
            reach("model.chunk")
            if chunk.usage_metadata is not None:
                usage.clear()
                usage.update(_dump(chunk.usage_metadata))
            feedback = chunk.prompt_feedback
            if feedback is not None and feedback.block_reason is not None:
                said = f": {feedback.block_reason_message}" if feedback.block_reason_message else ""
                brief = f"model {model} blocked the prompt, {_name(feedback.block_reason)}"
                raise ModelRefused(brief + said, brief=brief)
            if chunk.candidates and chunk.candidates[0].finish_reason is not None:
                finish = _name(chunk.candidates[0].finish_reason)
            version = chunk.model_version or version
            if on_chunk is not None:
                on_chunk(content)
    _check(reading, finish, model)
    return Answer(content=reading.content, finish_reason=finish or "", usage=usage, model_version=version)


async def _chunks(
    client: genai.Client, model: str, config: types.GenerateContentConfig, wire: Wire
) -> AsyncGenerator[types.GenerateContentResponse, None]:
    """The SDK's chunks, with everything that can go wrong in the SDK and below it sorted."""
    try:
        stream = await client.aio.models.generate_content_stream(
            model=model, contents=[_REPLACED], config=config
        )
        async for chunk in stream:
            yield chunk
    except Exception as error:
        raise sort_error(error, model=model, answering=wire.answering) from error


def _check(reading: Reading, finish: str | None, model: str) -> None:
    """Refuse what is not an answer."""
    if finish is None:
        raise ModelUnavailable(f"model {model}: the stream was cut before the end of the answer")
    if finish in REFUSED_FINISHES:
        raise refused_finish(finish, reading.finish_message, model=model)
    if reading.usable:
        return
    if finish == "STOP":
        raise ModelUnavailable(f"model {model} answered with nothing (finish reason STOP)")
    if finish == "MAX_TOKENS":
        raise ModelRefused(
            f"model {model} spent its output tokens before any answer: raise max_output_tokens"
        )
    raise refused_finish(finish, reading.finish_message, model=model)


def _config(
    model: str,
    system: str | None,
    contents: Sequence[JsonObject],
    tools: Sequence[Mapping[str, Any]],
    extra: Mapping[str, Any] | None,
    timeout: float,
) -> types.GenerateContentConfig:
    if not contents:
        raise ModelRefused(f"model {model}: there is nothing to send, the conversation is empty")
    taken = sorted(_OURS & set(extra or {}))
    if taken:
        raise ModelRefused(
            f"model {model}: {', '.join(taken)} cannot be set in an agent's generation options"
        )
    try:
        declarations = [types.FunctionDeclaration.model_validate(dict(tool)) for tool in tools]
        fields = dict(extra or {})
        declared = [types.Tool(function_declarations=declarations)] if declarations else []
        fields["tools"] = [*declared, *(fields.get("tools") or [])] or None
        return types.GenerateContentConfig(
            **fields,
            system_instruction=system or None,
            automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
            http_options=types.HttpOptions(
                timeout=max(1, round(timeout * 1000)), extra_body={"contents": list(contents)}
            ),
        )
    except ValueError as error:
        raise sort_error(error, model=model, answering=False) from error


def _http_client(base_url: str | None, transport: Any) -> _HttpClient:
    async def listen(response: Any) -> None:
        if (wire := _wire.get(None)) is not None:
            wire.listen(response)

    httpx = _httpx()
    client: _HttpClient = httpx.AsyncClient(
        event_hooks={"response": [listen]},
        follow_redirects=True,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
        transport=transport,
        # A proxy has no business between this machine and itself.
        trust_env=urlsplit(base_url or "").hostname not in _LOOPBACK,
    )
    return client


def recording_transport(sent: list[bytes]) -> Any:
    """A transport that keeps the bodies of requests in ``sent``, and answers each with a word."""

    async def answer(request: Any) -> Any:
        sent.append(await request.aread())
        return _httpx().Response(200, text=_A_WORD, headers={"content-type": "text/event-stream"})

    return _httpx().MockTransport(answer)


def _httpx() -> Any:
    try:
        return importlib.import_module("httpx2")
    except ImportError:
        return importlib.import_module("httpx")


def _dump(record: Any) -> JsonObject:
    dumped: JsonObject = record.model_dump(mode="json", by_alias=True, exclude_none=True)
    return dumped


def _name(reason: Any) -> str:
    return str(getattr(reason, "value", reason))
