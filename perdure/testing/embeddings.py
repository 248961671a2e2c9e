"""The stand-in's vectors: texts that share words are near, and a few words mean the same.

They are no model's. A word is some of the dimensions, by its hash, so the same text always has the
same vector, and a test can tell that what is near is found.
"""

from __future__ import annotations

import hashlib
import re

from perdure.testing.request import text_in
from perdure.types import JsonObject

__all__ = ["vectors_for"]

DIMENSIONS = 768
"""Where the request names none."""
MOST_DIMENSIONS = 3_072

_MEANS = {
    **dict.fromkeys(("kitten", "cat", "cats", "pet", "tabby"), "cat"),
    **dict.fromkeys(("car", "automobile", "vehicle"), "car"),
    **dict.fromkeys(("like", "love", "favourite", "favorite", "fond"), "like"),
    **dict.fromkeys(("a", "an", "and", "is", "my", "of", "the", "to", "what", "which"), ""),
}
"""Words by what they mean; those that mean nothing are left out."""


def vectors_for(body: JsonObject) -> list[list[float]] | None:
    """The vectors that a ``batchEmbedContents`` asks for; None if it is not one."""
    requests = body.get("requests")
    if not isinstance(requests, list) or not requests:
        return None
    found: list[list[float]] = []
    for request in requests:
        content = request.get("content") if isinstance(request, dict) else None
        if not isinstance(content, dict) or not text_in(content):
            return None
        dimensions = int(request.get("outputDimensionality") or DIMENSIONS)
        found.append(_vector(text_in(content), min(dimensions, MOST_DIMENSIONS)))
    return found


def _vector(text: str, dimensions: int) -> list[float]:
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()):
        if meaning := _MEANS.get(word, word):
            place = int.from_bytes(hashlib.sha256(meaning.encode()).digest()[:4], "big")
            vector[place % dimensions] += 1.0
    return vector
