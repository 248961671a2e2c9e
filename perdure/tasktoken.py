"""Task tokens: one text that says which call of which session waits for a result.

A long-running tool hands it to another service, which answers by it and needs to know nothing else.
It is no secret, and no permission: it holds the ids as they are, and whoever answers by it must be
allowed to write to the session. It is good for as long as the call waits.
"""

from __future__ import annotations

import json

from perdure.errors import InvalidTaskToken
from perdure.sealed import sealed, unsealed
from perdure.types import SessionKey

__all__ = ["read_task_token", "task_token"]

_VERSION = "pt1_"


def task_token(key: SessionKey, call_id: str) -> str:
    """The token of a call: letters, digits, ``-`` and ``_``.

    Args:
        key: the session.
        call_id: the call, as ``ToolContext.result_id`` has it.
    """
    names = [key.app, key.user_id, key.session_id, call_id]
    # ASCII, so that it is one text whatever is in the names: half of a surrogate pair, too.
    return sealed(_VERSION, json.dumps(names, separators=(",", ":")).encode())


def read_task_token(token: object) -> tuple[SessionKey, str]:
    """The session and the call that a token stands for.

    Raises:
        InvalidTaskToken: it is none, or not whole.
    """
    if not isinstance(token, str) or not token.startswith(_VERSION):
        raise InvalidTaskToken(
            f"{_shown(token)} is no task token of this release, which begins with {_VERSION!r}; "
            "send the tool's context.task_token"
        )
    body = unsealed(_VERSION, token)
    if body is None:
        raise InvalidTaskToken(
            f"the task token {_shown(token)} was cut or changed on its way; send it as the tool had it"
        )
    app, user_id, session_id, call_id = json.loads(body)
    return SessionKey(app=app, user_id=user_id, session_id=session_id), call_id


def _shown(token: object) -> str:
    shown = token if isinstance(token, str) else type(token).__name__
    return repr(shown if len(shown) <= 40 else f"{shown[:40]}…")
