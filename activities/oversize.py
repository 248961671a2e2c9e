"""What is too large for the log: a pasted book, two megabytes from a tool, a picture.

It is saved as an artifact of the session before the event is appended, and the event keeps
what the model needs: of a text the head, the tail and the artifact's name, for
``read_artifact`` to read on; of media a reference, which every prompt turns back into the
same bytes (see :mod:`activities.media`). So the log, the context query and each prompt stay
small, and a prompt's beginning stays the same from turn to turn.

A version is staged under the event's own id and listed by that event's append. So it is
rewound, forked, exported and deleted with it, and an attempt that died in between leaves
nothing but a version that its retry takes over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from mimetypes import MimeTypes

from activities.fencing import still_wanted
from activities.media import Inline, inline_of, reference_part
from perdure.agent import Limits
from perdure.errors import EventConflict, SessionExists
from perdure.types import Event, Json, JsonObject, SessionKey
from storage.sessions import Confirm, SessionStore, Turn
from storage.storable import canonical
from storage.turns import JOINED

__all__ = [
    "OVERSIZE",
    "READ_ARTIFACT",
    "begin_turn",
    "fit_answer",
    "fit_message",
    "fit_response",
    "may_read",
    "says_the_same",
]

READ_ARTIFACT = "read_artifact"
"""The tool that reads what was put away."""

OVERSIZE = "oversize"
"""The key in an event's ``meta`` that says that something of it is in artifacts: ``digest`` of the
content as it was given, and ``read`` where there is text for the model to read."""

HEAD, TAIL = 2_000, 1_000
"""Characters that stay of a text that was put away, at most."""

WORTH_IT = 4_000
"""Characters of a text that is put away for the sake of others: of a shorter one, as much would stay."""

_ORDINAL = 1_000_000
"""Behind whatever a tool saves itself, so that a retry finds its own whatever the tool did."""

_LONGEST_ID = 120
_TEXT_TYPES = frozenset({"application/json", "application/xml", "application/javascript", "application/x-sh"})
_PLAIN = re.compile(r"[^\w.@+=-]")


async def begin_turn(
    store: SessionStore,
    key: SessionKey,
    event: Event,
    limits: Limits,
    *,
    epoch: int | None,
    reopen: bool,
    confirm: Confirm | None = None,
) -> Turn:
    """:meth:`SessionStore.begin_turn` for a message of any size.

    A message that is sent again is the same if it was the same when it was sent: the limits
    may have changed in between, and with them what was put away of it.

    Raises:
        SessionEnded, StaleEpoch, InvalidContent, SessionNotFound, InvocationRewound, EventConflict:
            as there; no artifact is listed.
    """
    if _is_large(event, limits):
        stored = await store.event(key, event.id)
        if stored is None:
            if epoch is None:
                # An artifact needs its session, and the first message of all is what makes one.
                with suppress(SessionExists):
                    await store.create(key, confirm=confirm)
            fitted = await fit_message(store, key, event, limits)
            return await store.begin_turn(key, fitted, epoch=epoch, reopen=reopen, confirm=confirm)
    try:
        return await store.begin_turn(key, event, epoch=epoch, reopen=reopen, confirm=confirm)
    except EventConflict:
        stored = await store.event(key, event.id)
        if stored is None or not says_the_same(stored, event):
            raise
        return await store.begin_turn(key, stored, epoch=epoch, reopen=reopen, confirm=confirm)


def says_the_same(stored: Event, event: Event) -> bool:
    """Whether a stored message was given as this one is, whatever was put away of it."""
    return _digest_of(stored) == _digest(event.content)


async def fit_answer(store: SessionStore, key: SessionKey, event: Event, limits: Limits) -> Event:
    """A model's answer with the media in it put away. Its text and calls stay as they came."""
    away = _Away(store, key, event, limits, f"answers/{_plain(event.invocation_id)}-{event.meta['step']}")
    for index, part in enumerate(_parts(event)):
        inline = inline_of(part)
        if inline is not None and len(inline.data) > limits.inline_bytes:
            away.put(index, await away.media(index, part, inline))
    return away.fitted()


async def fit_response(store: SessionStore, key: SessionKey, event: Event, limits: Limits) -> Event:
    """A tool's response, put away where its JSON is too long, and likewise the inline data in it."""
    [part] = (event.content or {})["parts"]
    response = part["functionResponse"]
    call = event.meta["call"]
    stem = f"results/{_plain(event.invocation_id)}-{call['step']}.{call['index']}"
    away = _Away(store, key, event, limits, stem)
    result = await away.result(response["response"])
    if away.saved:
        away.put(0, {**part, "functionResponse": {**response, "response": result}})
    return away.fitted()


def may_read(event: Event) -> bool:
    """Whether the event refers to a text that the model can read on in."""
    return bool(event.meta.get(OVERSIZE, {}).get("read"))


async def fit_message(store: SessionStore, key: SessionKey, event: Event, limits: Limits) -> Event:
    """A user's message, its texts and its inline data put away where they are too large."""
    message_id = event.meta.get(JOINED, event.invocation_id)
    away = _Away(store, key, event, limits, f"messages/{_plain(message_id)}")
    parts = _parts(event)
    long = _too_long(_texts(parts), limits.message_chars)
    for index, part in enumerate(parts):
        inline = inline_of(part)
        if index in long and inline is None:
            away.put(index, {**part, "text": await away.text(f"-{index}.txt", part["text"], "text/plain")})
        elif inline is not None and (index in long or len(inline.data) > limits.inline_bytes):
            away.put(index, await away.attachment(index, part, inline, whole=index not in long))
    return away.fitted()


class _Away:
    """Puts parts of one event into artifacts that are staged for it.

    Args:
        store: where the session lives.
        key: the session.
        event: as it was given.
        limits: the agent's.
        stem: what the names of the artifacts begin with.
    """

    def __init__(self, store: SessionStore, key: SessionKey, event: Event, limits: Limits, stem: str) -> None:
        self._store = store
        self._key = key
        self._event = event
        self._limits = limits
        self._stem = stem
        self._parts: dict[int, JsonObject] = {}
        self._read = False
        self.saved: dict[str, int] = {}

    def put(self, index: int, part: JsonObject) -> None:
        """This part stands where that one did."""
        self._parts[index] = part

    def fitted(self) -> Event:
        """The event with what was put; the same if nothing was."""
        if not self._parts:
            return self._event
        event = self._event
        content = event.content or {}
        parts = [self._parts.get(index, part) for index, part in enumerate(content["parts"])]
        note: JsonObject = {"digest": _digest(content)}
        if self._read:
            note["read"] = True
        return replace(
            event,
            content={**content, "parts": parts},
            artifact_delta={**event.artifact_delta, **self.saved},
            meta={**event.meta, OVERSIZE: note},
        )

    async def media(self, index: int, part: JsonObject, inline: Inline) -> JsonObject:
        """The part with a reference that prompts turn back into the bytes."""
        name, version = await self._save_inline(f".{index}", inline)
        return reference_part(part, inline, name, version)

    async def attachment(self, index: int, part: JsonObject, inline: Inline, *, whole: bool) -> JsonObject:
        """What a user sent along: media to be seen, text to be read, ``whole`` or not, or just its name."""
        text = _decoded(inline)
        if inline.is_media or (text is not None and whole):
            name, version = await self._save_inline(f"-{index}", inline)
            return reference_part(part, inline, name, version)
        if text is not None:
            ending = f"-{index}{_extension(inline.mime_type)}"
            return {"text": await self.text(ending, text, inline.mime_type)}
        name, version = await self._save_inline(f"-{index}", inline)
        return {
            "text": f"[A file of type {inline.mime_type}, {len(inline.data):,} bytes, was attached. "
            f"It is saved as artifact {json.dumps(name)}, version {version}, and cannot be shown here.]"
        }

    async def text(self, ending: str, text: str, mime_type: str) -> str:
        """What the prompt says instead of a text."""
        name, version = await self._save(ending, text.encode(), mime_type)
        self._read = True
        head, tail = _ends(text, min(self._limits.message_chars, len(text)))
        quoted = json.dumps(name, ensure_ascii=False)
        return (
            f"[This text has {len(text):,} characters and is saved as artifact {quoted}, version {version}. "
            f"Here are its first {len(head):,} and its last {len(tail):,} characters. The rest can be read: "
            f"{READ_ARTIFACT}(name={quoted}, version={version}, start={len(head)}).]\n"
            f"{head}\n[… {len(text) - len(head) - len(tail):,} characters are left out here …]\n{tail}"
        )

    async def result(self, result: JsonObject) -> JsonObject:
        """What the model is told instead of a result; the same if it is not too large."""
        result = await self._without_inline(result, [])
        if len(json.dumps(result, ensure_ascii=False)) <= self._limits.result_chars:
            return result
        alone = next(iter(result.values())) if set(result) in ({"result"}, {"error"}) else None
        text = alone if isinstance(alone, str) else json.dumps(result, ensure_ascii=False)
        ending, mime_type = (".txt", "text/plain") if text is alone else (".json", "application/json")
        name, version = await self._save(ending, text.encode(), mime_type)
        self._read = True
        head, tail = _ends(text, self._limits.result_chars)
        return {
            "artifact": name,
            "version": version,
            "characters": len(text),
            "error" if "error" in result else "head": head,
            "tail": tail,
            "note": "The result was too long and is saved as this artifact; here are its beginning and its "
            f"end. Read on with {READ_ARTIFACT}(name, version, start={len(head)}).",
        }

    async def _without_inline(self, value: Json, path: list[str]) -> Json:
        """The value with each large ``{"inlineData": …}`` in it replaced by the name of an artifact."""
        if isinstance(value, list):
            return [await self._without_inline(item, [*path, str(n)]) for n, item in enumerate(value)]
        if not isinstance(value, dict):
            return value
        inline = inline_of(value)
        if inline is None or len(inline.data) <= self._limits.inline_bytes:
            return {name: await self._without_inline(item, [*path, name]) for name, item in value.items()}
        name, version = await self._save_inline("-" + _plain(".".join(path) or "data"), inline)
        about = {"mime_type": inline.mime_type, "bytes": len(inline.data)}
        return {"artifact": name, "version": version, **about}

    async def _save_inline(self, ending: str, inline: Inline) -> tuple[str, int]:
        return await self._save(ending + _extension(inline.mime_type), inline.data, inline.mime_type)

    async def _save(self, ending: str, data: bytes, mime_type: str) -> tuple[str, int]:
        name = self._stem + ending
        version = await self._store.stage_artifact(
            *(self._key, name, data, mime_type),
            event_id=self._event.id,
            ordinal=_ORDINAL,
            confirm=still_wanted,
        )
        self.saved[name] = version
        return name, version


def _is_large(event: Event, limits: Limits) -> bool:
    parts = _parts(event)
    if _too_long(_texts(parts), limits.message_chars):
        return True
    inlines = (inline for part in parts if (inline := inline_of(part)) is not None)
    return any(len(inline.data) > limits.inline_bytes for inline in inlines)


def _texts(parts: Sequence[JsonObject]) -> dict[int, int]:
    """The characters of each part that is read as text, by its place; attached text files too."""
    found: dict[int, int] = {}
    for index, part in enumerate(parts):
        inline = inline_of(part)
        text = part.get("text") if inline is None else None if inline.is_media else _decoded(inline)
        if isinstance(text, str):
            found[index] = len(text)
    return found


def _too_long(texts: Mapping[int, int], limit: int) -> set[int]:
    """Which texts are put away: the longest, until those that stay are within the limit together."""
    away: set[int] = set()
    left = sum(texts.values())
    for index, length in sorted(texts.items(), key=lambda text: -text[1]):
        if left <= limit or length <= min(WORTH_IT, limit):
            break
        away.add(index)
        left -= length
    return away


def _parts(event: Event) -> Sequence[JsonObject]:
    """The parts, each in its place; what is no part, in a content that makes no sense, is an empty one."""
    parts = (event.content or {}).get("parts")
    return [part if isinstance(part, dict) else {} for part in parts] if isinstance(parts, list) else []


def _ends(text: str, limit: int) -> tuple[str, str]:
    """The head and the tail that stay of a text; together less than the limit."""
    return text[: min(HEAD, limit // 2)], text[-min(TAIL, limit // 4) :]


def _decoded(inline: Inline) -> str | None:
    """The text in it, if that is what it is."""
    kind = inline.mime_type.partition(";")[0].strip().lower()
    if not (kind.startswith("text/") or kind in _TEXT_TYPES or kind.endswith(("+json", "+xml"))):
        return None
    try:
        return inline.data.decode()
    except UnicodeDecodeError:
        return None


def _extension(mime_type: str) -> str:
    # The table that comes with Python, not the machine's: a retry elsewhere must find the same name.
    return MimeTypes().guess_extension(mime_type.partition(";")[0].strip().lower()) or ".bin"


def _plain(name: str) -> str:
    """An id as part of a name that people can type. Two ids may share one: they share versions, too."""
    return _PLAIN.sub("_", name)[:_LONGEST_ID]


def _digest_of(stored: Event) -> str:
    """The digest of what an event was given as, whatever was put away of it."""
    note = stored.meta.get(OVERSIZE)
    return str(note["digest"]) if note else _digest(stored.content)


def _digest(content: JsonObject | None) -> str:
    return sha256(canonical(content).encode()).hexdigest()
