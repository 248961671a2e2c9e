"""Other versions of the session's workflow: what a release could have made of it, for tests.

The change is the same in each: after every turn it notes the number of turns in the workflow's
memo, which is one more command.
"""

from __future__ import annotations

from temporalio import workflow

from workflows.messages import Carry, Item, Reply
from workflows.session import AgentSession

__all__ = ["PATCH", "PatchedSession", "UnpatchedSession"]

PATCH = "turns-in-memo"


@workflow.defn(name="AgentSession")
class PatchedSession(AgentSession):
    """The change as it is to be made: runs that began before it go on as they did."""

    @workflow.init
    def __init__(self, carry: Carry | None = None) -> None:
        super().__init__(carry)

    @workflow.run
    async def run(self, carry: Carry | None = None) -> None:
        await super().run(carry)

    async def _take_turn(self, item: Item) -> Reply:
        reply = await super()._take_turn(item)
        if workflow.patched(PATCH):
            workflow.upsert_memo({"turns": self._standing.totals.turns})
        return reply


@workflow.defn(name="AgentSession")
class UnpatchedSession(AgentSession):
    """The same, made carelessly."""

    @workflow.init
    def __init__(self, carry: Carry | None = None) -> None:
        super().__init__(carry)

    @workflow.run
    async def run(self, carry: Carry | None = None) -> None:
        await super().run(carry)

    async def _take_turn(self, item: Item) -> Reply:
        reply = await super()._take_turn(item)
        workflow.upsert_memo({"turns": self._standing.totals.turns})
        return reply
