"""The model side of the stand-in: an ASGI application that records, answers and fails as told.

It is plain ASGI rather than a Starlette endpoint, because it must notice at once when the
client of a hanging request goes away: that is how a test sees a worker die.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from starlette.types import Receive, Scope, Send

from perdure.testing.embeddings import vectors_for
from perdure.testing.faults import Fault, Script
from perdure.testing.request import Kind, Request
from perdure.testing.rules import answer_by_rule
from perdure.testing.signatures import decode, missing_signature, seal, signed
from perdure.testing.structured import value_of, wanted_schema
from perdure.testing.summaries import asks_for_summary, summarise
from perdure.testing.wire import MODEL_VERSION, chunks_of, error_body, problem_with, prompt_tokens, usage_of
from perdure.types import JsonObject

__all__ = ["ModelService"]

T = TypeVar("T", Fault, Script)

_METHODS = frozenset({"batchEmbedContents", "generateContent", "streamGenerateContent", "countTokens"})
TOO_LONG = "The input token count ({}) exceeds the maximum number of tokens allowed ({})."
"""What Gemini says."""
_SSE = "text/event-stream"
_JSON = "application/json; charset=UTF-8"


class ModelService:
    """Answers model requests.

    Args:
        hang_up: closes the connection of a request, after what was sent to it.
        signatures: whether a call must come back with its thought signature, as with Gemini 3.
        call_ids: whether calls carry ids; None: every other answer that calls something.
        input_limit: of how many tokens a prompt may be; None: any.
    """

    def __init__(
        self,
        hang_up: Callable[[Scope], None],
        *,
        signatures: bool = True,
        call_ids: bool | None = None,
        input_limit: int | None = None,
    ) -> None:
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.scripts: list[Script] = []
        self.changed = asyncio.Event()
        self._released = asyncio.Event()
        self._hang_up = hang_up
        self._signatures = signatures
        self._call_ids = call_ids
        self._input_limit = input_limit
        self._calling_answers = 0
        self._issued: set[bytes] = set()
        self._known_fields: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or stop when its client goes."""
        body = await _whole_body(receive)
        request = self._record(scope["path"], body)
        reply = _Reply(request, send, stream=b"alt=sse" in scope.get("query_string", b""))
        answering = asyncio.create_task(self._answer(request, scope, reply, self._released))
        gone = asyncio.create_task(_until_gone(receive))
        try:
            await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            request.aborted = not answering.done() and not request.cut
            answering.cancel()
            gone.cancel()
            await asyncio.wait({answering, gone})
            request.finished = datetime.now(UTC)
            self.tell()
        if not answering.cancelled():
            answering.result()

    def tell(self) -> None:
        """Wake whoever waits for something to change."""
        self.changed.set()
        self.changed = asyncio.Event()

    def release(self) -> None:
        """Let the requests that have come so far go on, also those that are only about to wait."""
        self._released.set()
        self._released = asyncio.Event()

    def add(self, items: Sequence[Fault | Script]) -> None:
        """Queue what was told."""
        for item in items:
            if isinstance(item, Fault):
                self.faults.append(item)
            else:
                self.scripts.append(item)
                self._remember(item)

    def _remember(self, script: Script) -> None:
        """Take back later what the script gives out, however odd."""
        for part in script.parts:
            self._known_fields |= part.keys()
            data = decode(str(part.get("thoughtSignature", "")))
            if data:
                self._issued.add(data)

    def _record(self, path: str, body: bytes) -> Request:
        try:
            parsed = json.loads(body)
        except ValueError:
            parsed = None
        request = Request(
            number=len(self.requests) + 1,
            model=path.rsplit("/", 1)[-1].partition(":")[0],
            kind="generate",
            path=path,
            body=parsed if isinstance(parsed, dict) else {},
            raw=body,
            started=datetime.now(UTC),
        )
        request.kind = _kind_of(request)
        self.requests.append(request)
        self.tell()
        return request

    async def _answer(self, request: Request, scope: Scope, reply: _Reply, released: asyncio.Event) -> None:
        method = request.path.rpartition(":")[2]
        if method not in _METHODS:
            await reply.error(404, f"{request.path} is not found for this API version")
            return
        fault = _first_fitting(self.faults, request)
        if fault and (fault.kind == "delay" or (fault.kind == "hang" and fault.after is None)):
            await _wait(released, fault.seconds if fault.kind == "delay" else None)
        if fault and fault.kind == "status":
            await reply.fault(fault)
        elif fault and fault.kind == "garbage":
            await reply.whole(fault.text.encode(), content_type=_SSE)
        elif request.kind == "embed":
            await self._embed(request, reply)
        elif problem := self._problem(request):
            await reply.error(400, problem)
        elif method == "countTokens":
            await reply.json({"totalTokens": prompt_tokens(request)})
        elif self._input_limit is not None and (tokens := prompt_tokens(request)) > self._input_limit:
            await reply.error(400, TOO_LONG.format(tokens, self._input_limit))
        elif fault and fault.kind == "block":
            await reply.chunks([_blocked(request, fault)])
        else:
            await self._stream(request, reply, scope, fault, released)

    async def _embed(self, request: Request, reply: _Reply) -> None:
        vectors = vectors_for(request.body)
        if vectors is None:
            await reply.error(400, "* BatchEmbedContentsRequest.requests: each has a content of text\n")
        else:
            await reply.json({"embeddings": [{"values": vector} for vector in vectors]})

    async def _stream(
        self, request: Request, reply: _Reply, scope: Scope, fault: Fault | None, released: asyncio.Event
    ) -> None:
        chunks = self._chunks(request, fault)
        stop = None if fault is None or fault.after is None else min(fault.after, len(chunks) - 1)
        if stop is None:
            await reply.chunks(chunks)
            return
        await reply.some(chunks[:stop])
        if fault is not None and fault.kind == "cut":
            request.cut = True
            self._hang_up(scope)
            await asyncio.Event().wait()  # The connection closes, and this is cancelled.
        await _wait(released, None)
        await reply.rest(chunks, stop)

    def _chunks(self, request: Request, fault: Fault | None) -> list[JsonObject]:
        last: JsonObject | None = {"text": ""}
        finish, message = "STOP", None
        if fault and fault.kind == "finish":
            parts: list[JsonObject] = [{"text": fault.text}] if fault.text else []
            finish, message, last = fault.reason, fault.message or None, None
        elif fault and fault.kind == "huge":
            parts = [{"text": "A stand-in's long answer. " * (fault.size // 26 + 1)}]
            parts[0]["text"] = parts[0]["text"][: fault.size]
        elif script := _first_fitting(self.scripts, request):
            parts = signed(script.parts)
            last = None
        else:
            parts = self._by_rule(request)
            if parts and "text" in parts[-1]:
                last = {"text": "", "thoughtSignature": seal(parts[-1])}
        request.answer = parts
        self.tell()
        return chunks_of(request, parts, finish, message, last)

    def _by_rule(self, request: Request) -> list[JsonObject]:
        if request.kind == "summarise":
            return [{"text": summarise(request.contents)}]
        parts = answer_by_rule(request.contents, request.declarations)
        schema = wanted_schema(request)
        if schema is not None and "text" in parts[0]:
            parts = [{"text": json.dumps(value_of(schema, parts[0]["text"]), ensure_ascii=False)}]
        calls = [part["functionCall"] for part in parts if "functionCall" in part]
        if calls:
            self._calling_answers += 1
            if self._call_ids or (self._call_ids is None and self._calling_answers % 2):
                for index, call in enumerate(calls):
                    call["id"] = f"call-{request.number}-{index}"
        return signed(parts)

    def _problem(self, request: Request) -> str | None:
        if not request.body:
            return "Invalid JSON payload received. Expected an object."
        found = problem_with(request, self._known_fields)
        if found is None and self._signatures:
            found = missing_signature(request.contents, self._issued)
        return found


class _Reply:
    """Sends one response, as a stream of events or as one JSON."""

    def __init__(self, request: Request, send: Send, *, stream: bool) -> None:
        self._request = request
        self._send = send
        self._stream = stream and request.path.endswith(":streamGenerateContent")

    async def error(self, status: int, message: str) -> None:
        await self.json(error_body(status, message), status)

    async def fault(self, fault: Fault) -> None:
        message = fault.message or f"The stand-in was told to answer {fault.status}."
        body = error_body(fault.status, message, retry_delay=fault.retry_delay)
        headers = [(b"retry-after", fault.retry_after.encode())] if fault.retry_after is not None else []
        await self.json(body, fault.status, headers)

    async def json(self, body: Any, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        await self.whole(json.dumps(body).encode(), status=status, headers=headers)

    async def whole(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: str = _JSON,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        await self._start(status, content_type, headers)
        await self._end(body)

    async def chunks(self, chunks: Sequence[JsonObject]) -> None:
        await self.some([])
        await self.rest(chunks, 0)

    async def some(self, chunks: Sequence[JsonObject]) -> None:
        """Start, and send these chunks; a reply that is not a stream has sent nothing of its body yet."""
        await self._start(200, _SSE if self._stream else _JSON, ())
        for chunk in chunks if self._stream else ():
            await self._send({"type": "http.response.body", "body": _event(chunk), "more_body": True})

    async def rest(self, chunks: Sequence[JsonObject], start: int) -> None:
        """Send the chunks from ``start`` on, and end."""
        if not self._stream:
            await self._end(json.dumps(_merged(chunks)).encode())
            return
        for chunk in chunks[start:]:
            await self._send({"type": "http.response.body", "body": _event(chunk), "more_body": True})
        await self._end(b"")

    async def _start(self, status: int, content_type: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._request.status = status
        named = [(b"content-type", content_type.encode()), (b"server", b"perdure-stand-in"), *headers]
        await self._send({"type": "http.response.start", "status": status, "headers": named})

    async def _end(self, body: bytes) -> None:
        self._request.answered = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})


def _event(chunk: JsonObject) -> bytes:
    return b"data: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\r\n\r\n"


def _merged(chunks: Sequence[JsonObject]) -> JsonObject:
    """The chunks as the one response of ``generateContent``: all parts in the last one."""
    last = chunks[-1]
    if not last.get("candidates"):
        return last
    parts: list[JsonObject] = []
    for chunk in chunks:
        for part in chunk["candidates"][0]["content"].get("parts") or ():
            if parts and "text" in parts[-1] and part.keys() == parts[-1].keys() <= {"text", "thought"}:
                parts[-1] = {**part, "text": parts[-1]["text"] + part["text"]}
            else:
                parts.append(part)
    candidate = {**last["candidates"][0], "content": {"role": "model", "parts": parts}}
    return {**last, "candidates": [candidate]}


def _blocked(request: Request, fault: Fault) -> JsonObject:
    feedback: JsonObject = {"blockReason": fault.reason}
    if fault.message:
        feedback["blockReasonMessage"] = fault.message
    return {"promptFeedback": feedback, "usageMetadata": usage_of(request, []), "modelVersion": MODEL_VERSION}


def _kind_of(request: Request) -> Kind:
    if request.path.endswith(":countTokens"):
        return "count"
    if request.path.endswith(":batchEmbedContents"):
        return "embed"
    asked = asks_for_summary(request.system, request.last_user_text, has_tools=bool(request.tools))
    return "summarise" if asked else "generate"


def _first_fitting(queue: list[T], request: Request) -> T | None:
    """Take the first of a queue that is for this request."""
    for index, item in enumerate(queue):
        if item.match.fits(request):
            return queue.pop(index)
    return None


async def _wait(released: asyncio.Event, seconds: float | None) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await released.wait()


async def _whole_body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
