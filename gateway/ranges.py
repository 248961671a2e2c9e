"""The ``Range`` of a request (RFC 9110): one span of bytes."""

from __future__ import annotations

import re

from gateway.problems import HttpProblem

__all__ = ["span_of"]

_ONE = re.compile(r"bytes=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.IGNORECASE | re.ASCII)


def span_of(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the one behind the last that are asked for.

    Returns:
        None for all of them: there is no header, or one of several spans, which nobody has to
        honour, or one that is none.

    Raises:
        HttpProblem: 416, for a span that begins behind the end.
    """
    found = _ONE.fullmatch(header or "")
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, stop = max(0, size - int(found[2])), size
    else:
        start, stop = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= size:
        raise HttpProblem(
            416,
            "range-not-satisfiable",
            f"the artifact has {size} bytes; ask for a range within them",
            headers={"content-range": f"bytes */{size}"},
        )
    return start, stop
