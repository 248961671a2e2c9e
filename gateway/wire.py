"""JSON for server-sent events: on one line, and such that every client can read it."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["one_line"]

_COMPACT = (",", ":")


def one_line(data: Any) -> str:
    """The data as JSON on one line.

    A stream has sent its status by then, so what JSON or UTF-8 has no way to say must not end it.
    """
    try:
        text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=_COMPACT)
        text.encode()
    except UnicodeEncodeError:
        # Half of a surrogate pair, whose other half is in the next piece: only an escape can say it.
        return json.dumps(data, separators=_COMPACT)
    except ValueError:
        # NaN or an infinity, in whose place other writers of JSON put null, too.
        return one_line(json.loads(json.dumps(data), parse_constant=lambda _: None))
    return text
