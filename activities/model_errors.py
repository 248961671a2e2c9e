"""Sorts what can go wrong with a model call into the two errors the runtime knows.

:class:`~perdure.errors.ModelUnavailable` is what may succeed later: Temporal retries it,
and waits as long as the server asked for. :class:`~perdure.errors.ModelRefused` is what
would fail again: it becomes the turn's error.

============================================  ===========
what happened                                 becomes
============================================  ===========
HTTP 408, 409, 425, 429, 499, any 5xx         unavailable
400 for too many tokens or bytes, 413         refused, as :class:`~perdure.errors.PromptTooLong`
any other HTTP error                          refused
no connection, connection lost, time-out      unavailable
a stream that ends without a finish reason    unavailable
a 200 that is not JSON, or not an answer      unavailable
STOP with nothing in it                       unavailable
prompt blocked, answer blocked                refused
a function call that makes no sense           refused
all output tokens spent before any answer     refused
a request that cannot be built                refused
============================================  ===========

Garbage in a 200 and an empty STOP are retried because both come and go with a proxy or a
sampling; the caller caps the attempts. The SDK speaks over httpx or httpx2, whose
exceptions have no common base but :class:`Exception`, so everything that is not an HTTP
status is sorted by whether the server had begun to answer, not by its class.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from google.genai.errors import APIError

from perdure.errors import ModelError, ModelRefused, ModelUnavailable, PromptTooLong

__all__ = ["REFUSED_FINISHES", "RETRYABLE_STATUSES", "refused_finish", "retry_after", "sort_error"]

RETRYABLE_STATUSES = frozenset({408, 409, 425, 429, 499, *range(500, 600)})
"""HTTP statuses after which the same request may succeed."""

REFUSED_FINISHES = frozenset(
    {
        "BLOCKLIST",
        "ESCALATION",
        "IMAGE_OTHER",
        "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION",
        "IMAGE_SAFETY",
        "LANGUAGE",
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "MODEL_ARMOR",
        "NO_IMAGE",
        "OTHER",
        "PROHIBITED_CONTENT",
        "PUP_LIMITED_DISABLED",
        "RECITATION",
        "SAFETY",
        "SPII",
        "TOO_MANY_TOOL_CALLS",
        "UNEXPECTED_TOOL_CALL",
    }
)
"""Finish reasons that are not an answer, whatever text came before: half a sentence that a
filter cut, or the announcement of a call that never came, must not end a turn as if it were
the reply. A reason that is not in this list, also one we never heard of, is judged by content."""

_KEY_HINT = "check GEMINI_API_KEY: it must be a valid key whose project may use this model"
_TOO_LONG = re.compile(
    r"token count .*exceeds|exceeds the maximum number of tokens|payload size exceeds|input is too long",
    re.IGNORECASE,
)
_TOO_LONG_HINT = (
    "the session goes on: rewind this message or an earlier one, or compact the session; an agent's "
    "compaction and its limits keep prompts short"
)
_LONGEST_QUOTE = 500
_STATUS = re.compile(r"[A-Z_]{1,40}")
_REQUEST_FAULTS = (TypeError, ValueError, KeyError, AttributeError)


def sort_error(error: Exception, *, model: str, answering: bool) -> ModelError:
    """The error to raise instead of one that came out of the SDK or its transport.

    Args:
        error: what was caught.
        model: the model that was asked, for the message.
        answering: whether the server's response had begun to arrive.
    """
    if isinstance(error, ModelError):
        return error
    if isinstance(error, APIError) and isinstance(error.code, int):
        return _sort_status(error, model)
    kind = type(error).__name__
    what = f"{kind}: {_short(str(error)) or 'no details'}"
    if answering:
        said = f"model {model}: the answer broke off or made no sense"
        return ModelUnavailable(f"{said} ({what})", brief=f"{said} ({kind})")
    if isinstance(error, _REQUEST_FAULTS):
        said = f"model {model}: the request could not be built"
        return ModelRefused(f"{said} ({what})", brief=f"{said} ({kind})")
    said = f"model {model}: could not be reached"
    return ModelUnavailable(f"{said} ({what})", brief=f"{said} ({kind})")


def refused_finish(reason: str, message: str | None, *, model: str) -> ModelRefused:
    """The error for an answer that ended with one of :data:`REFUSED_FINISHES`."""
    said = f": {_short(message)}" if message else ""
    brief = f"model {model} gave no usable answer, finish reason {reason}"
    return ModelRefused(brief + said, brief=brief)


def retry_after(headers: Mapping[str, str], details: Any, *, now: datetime | None = None) -> float | None:
    """Seconds the server asked us to wait, or None if it did not.

    Args:
        headers: of the response; ``Retry-After`` in seconds or as an HTTP date.
        details: the JSON body; a ``google.rpc.RetryInfo`` among its error details.
        now: for tests; the clock otherwise.
    """
    header = _header_seconds(headers.get("retry-after"), now or datetime.now(UTC))
    return header if header is not None else _retry_info_seconds(details)


def _sort_status(error: APIError, model: str) -> ModelError:
    words = _short(error.message or str(error.details))
    status = error.status if error.status and _STATUS.fullmatch(error.status) else ""
    brief = f"model {model}: HTTP {error.code} {status}".rstrip()
    said = f"model {model}: HTTP {error.code} {error.status or ''}".rstrip() + f": {words}"
    if error.code in RETRYABLE_STATUSES:
        headers = getattr(error.response, "headers", None)
        wait = retry_after(headers if isinstance(headers, Mapping) else {}, error.details)
        return ModelUnavailable(said, brief=brief, retry_after=wait)
    if error.code in (401, 403) or "API_KEY_INVALID" in str(error.details):
        return ModelRefused(f"{said} ({_KEY_HINT})", brief=f"{brief} ({_KEY_HINT})")
    if error.code == 413 or (error.code == 400 and _TOO_LONG.search(error.message or "")):
        return PromptTooLong(f"{said} ({_TOO_LONG_HINT})", brief=f"{brief} ({_TOO_LONG_HINT})")
    if error.code == 404:
        hint = "check the agent's model name"
        return ModelRefused(f"{said} ({hint})", brief=f"{brief} ({hint})")
    return ModelRefused(said, brief=brief)


def _header_seconds(value: str | None, now: datetime) -> float | None:
    if not value:
        return None
    seconds = _seconds(value)
    if seconds is not None:
        return seconds
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def _retry_info_seconds(details: Any) -> float | None:
    for detail in _error_details(details):
        if str(detail.get("@type", "")).endswith("google.rpc.RetryInfo"):
            delay = detail.get("retryDelay")
            if isinstance(delay, Mapping):
                return _seconds(f"{delay.get('seconds', 0)}") or 0.0
            return _seconds(str(delay).removesuffix("s"))
    return None


def _error_details(details: Any) -> Iterable[Mapping[str, Any]]:
    error = details.get("error", details) if isinstance(details, Mapping) else None
    found = error.get("details") if isinstance(error, Mapping) else None
    return [detail for detail in found if isinstance(detail, Mapping)] if isinstance(found, list) else []


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _short(text: str | None) -> str:
    text = " ".join((text or "").split())
    return text if len(text) <= _LONGEST_QUOTE else text[: _LONGEST_QUOTE - 1] + "…"
