"""Media between the log and the prompt: what the log refers to, the prompt holds in full.

An event keeps a part with ``fileData`` where ``inlineData`` was; its ``fileUri`` names an
artifact of the session: ``artifact:messages/m1-0.png?version=1&bytes=300000``. It stays a
genai ``Part`` like any other. Every prompt turns it back into the part that came, letter by
letter: a thought signature, the order of the fields and the spelling of the base64 are kept,
and the prompt's beginning stays as the model's cache knows it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote

from activities.media_cache import MediaCache
from perdure.errors import ArtifactDamaged, ArtifactNotFound, InvalidName
from perdure.types import JsonObject, SessionKey
from storage.sessions import SessionStore

__all__ = ["Inline", "Reference", "inline_of", "reference_of", "reference_part", "shown_from", "with_media"]

SCHEME = "artifact:"

_MEDIA = ("image/", "audio/", "video/", "application/pdf")
_TO_FILE = {"inlineData": "fileData", "inline_data": "file_data"}
_TO_INLINE = {file: inline for inline, file in _TO_FILE.items()}
_URI = {"fileData": "fileUri", "file_data": "file_uri"}
_KEPT_WITH_TEXT = ("thought", "thoughtSignature", "thought_signature")
_LONGEST_TYPE = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Inline:
    """The inline data of a part."""

    mime_type: str
    data: bytes
    url_safe: bool
    """Whether its base64 is spelled with ``-`` and ``_``, as google-genai writes it."""

    @property
    def is_media(self) -> bool:
        """Whether it is for eyes and ears: what the model sees in full or not at all."""
        return self.mime_type.lower().startswith(_MEDIA)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A part's reference to an artifact."""

    name: str
    version: int
    bytes: int
    url_safe: bool
    mime_type: str

    @property
    def chars(self) -> int:
        """What it takes of a prompt: the length of its base64."""
        return (self.bytes + 2) // 3 * 4


def inline_of(part: JsonObject) -> Inline | None:
    """The inline data in a part; None if there is none, or none that base64 can read."""
    held = next((part[key] for key in _TO_FILE if isinstance(part.get(key), dict)), None)
    if held is None or not isinstance(held.get("data"), str):
        return None
    text: str = held["data"]
    url_safe = "-" in text or "_" in text
    try:
        data = base64.b64decode(text, altchars=b"-_" if url_safe else None, validate=True)
    except (binascii.Error, ValueError):
        return None
    if _encoded(data, url_safe) != text:
        return None
    mime_type = held.get("mimeType") or held.get("mime_type")
    usable = isinstance(mime_type, str) and mime_type.isprintable() and len(mime_type) <= _LONGEST_TYPE
    return Inline(
        mime_type=str(mime_type) if usable else "application/octet-stream", data=data, url_safe=url_safe
    )


def reference_part(part: JsonObject, inline: Inline, name: str, version: int) -> JsonObject:
    """The part with a reference to the artifact in the place of its inline data."""
    uri = f"{SCHEME}{quote(name)}?version={version}&bytes={len(inline.data)}"
    uri += "&base64=url" if inline.url_safe else ""
    changed: JsonObject = {}
    for key, value in part.items():
        if file := _TO_FILE.get(key):
            changed[file] = _replaced(value, "data", _URI[file], uri)
        else:
            changed[key] = value
    return changed


def reference_of(part: JsonObject) -> Reference | None:
    """The reference in a part, if there is one to an artifact of the session."""
    held: JsonObject = next((part[key] for key in _TO_INLINE if isinstance(part.get(key), dict)), {})
    uri = held.get("fileUri") or held.get("file_uri")
    if not isinstance(uri, str) or not uri.startswith(SCHEME):
        return None
    name, _, query = uri.removeprefix(SCHEME).partition("?")
    said = {key: values[0] for key, values in parse_qs(query).items()}
    if not name or not said.get("version", "").isdigit() or not said.get("bytes", "").isdigit():
        return None
    return Reference(
        name=unquote(name),
        version=int(said["version"]),
        bytes=int(said["bytes"]),
        url_safe=said.get("base64") == "url",
        mime_type=str(held.get("mimeType") or held.get("mime_type")),
    )


async def with_media(
    store: SessionStore,
    key: SessionKey,
    contents: Sequence[JsonObject],
    *,
    limit: int,
    cache: MediaCache | None = None,
) -> list[JsonObject]:
    """The contents with the bytes of what they refer to, as the model is to see them.

    Args:
        store: where the artifacts are.
        key: the session.
        contents: the conversation; not changed.
        limit: how many characters of base64 a prompt may hold; before that the oldest media
            are named only. What cannot be found any more is named, too: no turn fails of it.
        cache: where the bytes are remembered; None: nowhere.
    """
    found = [
        (row, column, reference)
        for row, content in enumerate(contents)
        for column, part in enumerate(content.get("parts") or ())
        if (reference := reference_of(part)) is not None
    ]
    if not found:
        return list(contents)
    first = shown_from([reference.chars for _, _, reference in found], limit)
    data = await asyncio.gather(*(_load(store, key, reference, cache) for _, _, reference in found[first:]))
    changed = [{**content, "parts": list(content.get("parts") or ())} for content in contents]
    for number, (row, column, reference) in enumerate(found):
        parts = changed[row]["parts"]
        found_data = data[number - first] if number >= first else None
        if found_data is None:
            parts[column] = _named(parts[column], reference, left_out=number < first)
        else:
            parts[column] = _restored(parts[column], reference, found_data)
    return changed


def shown_from(sizes: Sequence[int], limit: int) -> int:
    """The first of the media in a conversation that is shown in full, and all after it are.

    When one more does not fit, so many of the oldest go that half the room is free. So the
    place where a prompt first differs from the one before moves seldom, not with each picture.
    """
    first = total = 0
    for number, size in enumerate(sizes):
        total += size
        if total <= limit:
            continue
        while first < number and total > limit // 2:
            total -= sizes[first]
            first += 1
        if total > limit:
            total, first = 0, number + 1
    return first


async def _load(
    store: SessionStore, key: SessionKey, reference: Reference, cache: MediaCache | None
) -> bytes | None:
    try:
        found, chunks = await store.stream_artifact(key, reference.name, version=reference.version)
        # A reference may come from outside, and say that something huge is small.
        if found.size != reference.bytes:
            return None
        if cache is None:
            return b"".join([chunk async for chunk in chunks])
        data = cache.get(found.blob)
        if data is None:
            data = b"".join([chunk async for chunk in chunks])
            cache.keep(found.blob, data)
        return data
    except (ArtifactNotFound, ArtifactDamaged, InvalidName):
        return None


def _restored(part: JsonObject, reference: Reference, data: bytes) -> JsonObject:
    restored: JsonObject = {}
    for key, value in part.items():
        if inline := _TO_INLINE.get(key):
            text = _encoded(data, reference.url_safe)
            restored[inline] = _replaced(value, _URI[key], "data", text)
        else:
            restored[key] = value
    return restored


def _named(part: JsonObject, reference: Reference, *, left_out: bool) -> JsonObject:
    why = "It is not shown: a prompt may not hold so many media." if left_out else "It is gone."
    text = (
        f"[Here was a file of type {reference.mime_type}, {reference.bytes:,} bytes: artifact "
        f"{json.dumps(reference.name, ensure_ascii=False)}, version {reference.version}. {why}]"
    )
    return {"text": text, **{key: part[key] for key in _KEPT_WITH_TEXT if key in part}}


def _replaced(held: JsonObject, field: str, by: str, value: str) -> JsonObject:
    """The object with another field, of this value, where that one stood."""
    return dict((by, value) if name == field else (name, said) for name, said in held.items())


def _encoded(data: bytes, url_safe: bool) -> str:
    return (base64.urlsafe_b64encode(data) if url_safe else base64.b64encode(data)).decode()
