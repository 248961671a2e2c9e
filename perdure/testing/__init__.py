"""For tests, examples and demos: a stand-in for Gemini that can be scripted, slowed and broken.

    from perdure.testing import StandIn, call, say

    async with StandIn() as gemini:
        gemini.script(call("increment_counter", counter_name="visits"), say("Done."))
        gemini.fail(503, retry_after=1)
        ...  # point the runtime at gemini.url
        assert gemini.requests[0].last_user_text == "Increment 'visits'"

It is a server, not a mock: the real client talks to it over HTTP, streaming included. Where
nothing is scripted it chooses among the declared tools by rule. Every request is recorded.

For crash tests there are named points at which a worker can be made to die by SIGKILL:
``CRASH_POINTS`` says which and what each means, ``crash_at`` gives the environment to start
it with, and after a dry run with ``note_in`` the points that it passed are ``noted``.
"""

from __future__ import annotations

from perdure.crashpoints import POINTS as CRASH_POINTS
from perdure.crashpoints import crash_at, note_in, noted
from perdure.testing.client import StandInClient
from perdure.testing.faults import Controls, Fault, Match, Script, call, say, think
from perdure.testing.request import Request
from perdure.testing.standin import StandIn

__all__ = [
    "CRASH_POINTS",
    "Controls",
    "Fault",
    "Match",
    "Request",
    "Script",
    "StandIn",
    "StandInClient",
    "call",
    "crash_at",
    "note_in",
    "noted",
    "say",
    "think",
]
