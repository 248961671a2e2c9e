"""Gemini's side of the protocol: what it refuses, how its errors look, how an answer is streamed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from perdure.testing.request import Request
from perdure.testing.structured import problem_with_schema
from perdure.types import JsonObject

__all__ = ["STATUS_NAMES", "chunks_of", "error_body", "problem_with", "usage_of"]

STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
MODEL_VERSION = "stand-in"

_DATA = {
    "codeExecutionResult",
    "executableCode",
    "fileData",
    "functionCall",
    "functionResponse",
    "inlineData",
    "text",
    "toolCall",
    "toolResponse",
}
_BESIDE = {"mediaResolution", "partMetadata", "thought", "thoughtSignature", "videoMetadata"}
_PIECES = 4
_SHORTEST_PIECE = 8


def error_body(status: int, message: str, *, retry_delay: float | None = None) -> JsonObject:
    """An error as Gemini sends it, with ``RetryInfo`` if a delay in seconds is given."""
    error: JsonObject = {"code": status, "message": message, "status": STATUS_NAMES.get(status, "UNKNOWN")}
    if retry_delay is not None:
        kind = "type.googleapis.com/google.rpc.RetryInfo"
        error["details"] = [{"@type": kind, "retryDelay": f"{retry_delay:g}s"}]
    return {"error": error}


def problem_with(request: Request, known: Iterable[str] = ()) -> str | None:
    """What Gemini would answer 400 with, or None if it would take the request.

    Args:
        request: as it came.
        known: further names of part fields to let pass.
    """
    contents = request.body.get("contents")
    if not isinstance(contents, list) or not contents:
        return "* GenerateContentRequest.contents: contents is not specified\n"
    names = {form for name in _DATA | _BESIDE | set(known) for form in (name, _snake(name))}
    for index, content in enumerate(contents):
        found = _problem_with_content(content, f"contents[{index}]", names)
        if found:
            return found
    if contents[0].get("role", "user") != "user":
        return "Please ensure that multiturn requests begin with a user turn."
    return _problem_with_pairs(contents) or _problem_with_tools(request) or problem_with_schema(request)


def chunks_of(
    request: Request,
    parts: Sequence[JsonObject],
    finish: str,
    finish_message: str | None,
    last: JsonObject | None,
) -> list[JsonObject]:
    """The answer as the chunks of a stream; the last one carries the finish reason.

    Args:
        request: what is answered.
        parts: of the answer.
        finish: its finish reason.
        finish_message: what goes with it.
        last: the part of the last chunk; Gemini sends an empty text, often with a signature.
    """
    asked = prompt_tokens(request)
    said: list[JsonObject] = []
    chunks: list[JsonObject] = []
    for group in _grouped(parts):
        if group:
            said += group
            chunks.append(_chunk(request, group, _usage(asked, said)))
    end = _chunk(request, [last] if last is not None else [], _usage(asked, said))
    end["candidates"][0]["finishReason"] = finish
    if finish_message:
        end["candidates"][0]["finishMessage"] = finish_message
    return [*chunks, end]


def usage_of(request: Request, parts: Sequence[JsonObject]) -> JsonObject:
    """``usageMetadata`` at four characters a token."""
    return _usage(prompt_tokens(request), parts)


def prompt_tokens(request: Request) -> int:
    """The size of a prompt, at four characters a token."""
    return _tokens({key: value for key, value in request.body.items() if key != "generationConfig"})


def _usage(prompt: int, parts: Sequence[JsonObject]) -> JsonObject:
    answer = _tokens(list(parts)) if parts else 0
    usage = {"promptTokenCount": prompt, "candidatesTokenCount": answer, "totalTokenCount": prompt + answer}
    return {**usage, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}]}


def _chunk(request: Request, parts: Sequence[JsonObject], usage: JsonObject) -> JsonObject:
    content: JsonObject = {"role": "model"}
    if parts:
        content["parts"] = list(parts)
    return {
        "candidates": [{"content": content, "index": 0}],
        "usageMetadata": usage,
        "modelVersion": MODEL_VERSION,
        "responseId": f"stand-in-{request.number}",
    }


def _grouped(parts: Sequence[JsonObject]) -> Iterator[list[JsonObject]]:
    """Text in a few pieces, each a chunk; what is not text together with its neighbours."""
    together: list[JsonObject] = []
    for part in parts:
        if "text" in part and part.keys() <= {"text", "thought"}:
            yield together
            together = []
            for piece in _pieces(part["text"]):
                yield [{**part, "text": piece}]
        else:
            together.append(part)
    yield together


def _pieces(text: str) -> list[str]:
    size = max(_SHORTEST_PIECE, -(-len(text) // _PIECES))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _problem_with_content(content: Any, where: str, names: set[str]) -> str | None:
    if not isinstance(content, dict):
        return f"Invalid value at '{where}' (type.googleapis.com/google.ai.generativelanguage.v1beta.Content)"
    if content.get("role", "user") not in ("user", "model", "function"):
        return "Please use a valid role: user, model."
    parts = content.get("parts")
    if not isinstance(parts, list) or not parts:
        return f"* GenerateContentRequest.{where}.parts: contents.parts must not be empty.\n"
    data = {form for name in _DATA for form in (name, _snake(name))}
    for index, part in enumerate(parts):
        place = f"{where}.parts[{index}]"
        if not isinstance(part, dict):
            return (
                f"Invalid value at '{place}' (type.googleapis.com/google.ai.generativelanguage.v1beta.Part)"
            )
        unknown = sorted(part.keys() - names)
        if unknown:
            name = f'Unknown name "{unknown[0]}"'
            return f"Invalid JSON payload received. {name} at '{place}': Cannot find field."
        filled = part.keys() & data
        if len(filled) > 1:
            return f"Invalid value at '{place}' (oneof), oneof field 'data' is already set."
        if not filled and names.isdisjoint(part.keys() - _BESIDE):
            field = "required oneof field 'data' must have one initialized field"
            return f"* GenerateContentRequest.{place}.data: {field}\n"
    return None


def _problem_with_pairs(contents: Sequence[JsonObject]) -> str | None:
    waiting: list[JsonObject] = []
    for content in contents:
        calls = _found(content, "functionCall")
        responses = _found(content, "functionResponse")
        if len(responses) != len(waiting):
            if not waiting:
                return (
                    "Please ensure that function response turn comes immediately after a function call turn."
                )
            return (
                "Please ensure that the number of function response parts is equal to the number of "
                "function call parts of the function call turn."
            )
        ids = {call["id"] for call in waiting if call.get("id")}
        strange = [
            response["id"] for response in responses if response.get("id") and response["id"] not in ids
        ]
        if strange and ids:
            return (
                f"Function response id `{strange[0]}` does not match any function call id of the call turn."
            )
        names = sorted(str(call.get("name")) for call in waiting)
        if names != sorted(str(response.get("name")) for response in responses):
            return "Please ensure that the function response names match the names of the function call turn."
        waiting = calls if content.get("role") == "model" else []
    if waiting:
        return "Please ensure that function call turn is followed by a function response turn."
    return None


def _problem_with_tools(request: Request) -> str | None:
    names = request.tools
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    return f"Duplicate function declaration found: {twice[0]}" if twice else None


def _found(content: JsonObject, name: str) -> list[JsonObject]:
    parts = content.get("parts") or ()
    return [
        part.get(name) or part.get(_snake(name)) for part in parts if part.get(name) or part.get(_snake(name))
    ]


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _tokens(value: Any) -> int:
    return max(1, len(json.dumps(value, ensure_ascii=False)) // 4)
