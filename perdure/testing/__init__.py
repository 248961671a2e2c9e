"""For tests, examples and demos: a stand-in for Gemini that can be scripted, slowed and broken.

    from perdure.testing import StandIn, call, say

    async with StandIn() as gemini:
        gemini.script(call("increment_counter", counter_name="visits"), say("Done."))
        gemini.fail(503, retry_after=1)
        ...  # point the runtime at gemini.url
        assert gemini.requests[0].last_user_text == "Increment 'visits'"

It is a server, not a mock: the real client talks to it over HTTP, streaming included. Where
nothing is scripted it chooses among the declared tools by rule. Every request is recorded.
"""

from __future__ import annotations

from perdure.testing.client import StandInClient
from perdure.testing.faults import Controls, Fault, Match, Script, call, say, think
from perdure.testing.request import Request
from perdure.testing.standin import StandIn

__all__ = [
    "Controls",
    "Fault",
    "Match",
    "Request",
    "Script",
    "StandIn",
    "StandInClient",
    "call",
    "say",
    "think",
]
