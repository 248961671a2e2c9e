"""What an artifact is in the store: bytes and a MIME type, wherever a genai ``Part`` is no more than that.

So a Perdure agent, or anybody with the bucket, reads an ADK agent's file as it is. A part
of text is its UTF-8 under a MIME type that tells it from a blob of text. Only what bytes
and a type cannot say (a display name, a reference to a file, custom metadata) makes the
blob a JSON envelope around the part.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from google.genai import types
from pydantic import BaseModel, ConfigDict, Field, WrapValidator

from integrations.adk_json.genai import careful
from integrations.adk_json.jsonform import json_of_model
from perdure.errors import InvalidContent
from storage.artifacts import DELETED

__all__ = [
    "TOMBSTONE",
    "Saved",
    "decode",
    "encode",
    "needs_bytes",
    "said_type",
]

TEXT = "text/plain; charset=utf-8; part=text"
ENVELOPE = "application/vnd.perdure.adk-part+json"
OURS = (TEXT, ENVELOPE, DELETED)
MAX_TYPE = 255

TOMBSTONE = types.Part(inline_data=types.Blob(mime_type="application/octet-stream", data=b""))
"""What google-adk's rewind saves for a file that is to be gone. All its services load it as none."""


class Saved(BaseModel):
    """A part, and what was said about it when it was saved."""

    model_config = ConfigDict(frozen=True)

    part: Annotated[types.Part, WrapValidator(careful)]
    metadata: dict[str, Any] = Field(default_factory=dict)


def encode(part: types.Part, metadata: dict[str, Any] | None) -> tuple[bytes, str]:
    """The bytes and the MIME type to store.

    Raises:
        InvalidContent: a part that is no file, no text and no reference, or metadata that is no JSON.
    """
    blob = part.inline_data
    if blob is not None and blob.data is None:
        raise InvalidContent("Artifact inline_data must contain data.")
    if blob is None and part.text is None and part.file_data is None:
        raise InvalidContent("Not supported artifact type.")
    if not metadata and part.text is not None and part == types.Part(text=part.text):
        return _utf8(part.text), TEXT
    if not metadata and blob is not None and _is_plain(part, blob):
        return blob.data or b"", blob.mime_type or ""
    wire = json_of_model(part, "an artifact")
    try:
        return _utf8(json.dumps({"part": wire, "metadata": metadata or {}}, allow_nan=False)), ENVELOPE
    except (TypeError, ValueError) as error:
        raise InvalidContent(f"The artifact's custom_metadata is no JSON: {error}.") from error


def decode(data: bytes, mime_type: str) -> Saved:
    """What was saved as these bytes under this type, by google-adk or by Perdure itself."""
    if mime_type == TEXT:
        return Saved(part=types.Part(text=data.decode()))
    if mime_type == ENVELOPE:
        return Saved.model_validate(json.loads(data))
    return Saved(part=types.Part(inline_data=types.Blob(data=data, mime_type=mime_type)))


def needs_bytes(mime_type: str) -> bool:
    """Whether what is said about a version stands in its bytes."""
    return mime_type == ENVELOPE


def said_type(mime_type: str, saved: Saved | None) -> str | None:
    """The MIME type that google-adk reports for a version."""
    if mime_type == TEXT:
        return "text/plain"
    if saved is None:
        return mime_type
    part = saved.part
    if part.text is not None:
        return "text/plain"
    described = part.inline_data or part.file_data
    return described.mime_type if described is not None else None


def _is_plain(part: types.Part, blob: types.Blob) -> bool:
    kind = blob.mime_type
    plain = types.Part(inline_data=types.Blob(data=blob.data, mime_type=kind))
    return bool(kind) and kind not in OURS and len((kind or "").encode()) <= MAX_TYPE and part == plain


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidContent("The artifact's text holds a lone surrogate; it has no UTF-8.") from error
