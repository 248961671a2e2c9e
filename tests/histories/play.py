"""One session that is recorded."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from temporalio.client import WorkflowHandle

from perdure.testing import call, say
from perdure.types import SessionKey
from tests.integration.agents import gate
from tests.integration.harness import World, until

__all__ = ["Play"]


@dataclass
class Play:
    """One session to record."""

    world: World
    key: SessionKey
    workflow_id: str = ""
    """The workflow, where it is not the session's."""

    async def ask(self, text: str, message_id: str) -> str:
        """A turn; how it ended."""
        return (await self.world.runner.ask(self.key, text, message_id=message_id)).status

    async def held(self, message_id: str) -> asyncio.Task[str]:
        """A turn that is held in its tool."""
        gate.reset()
        self.world.gemini.script(call("wait_at_gate", label=message_id), say("went through"))
        task = asyncio.create_task(self.ask("hold", message_id))
        await asyncio.wait_for(gate.entered.wait(), 20)
        return task

    @property
    def handle(self) -> WorkflowHandle[object, object]:
        """The workflow to record."""
        return self.world.client.get_workflow_handle(self.workflow_id or self.key.workflow_id)

    async def closed(self) -> None:
        """The workflow has come to its end."""

        async def done() -> bool:
            return (await self.handle.describe()).close_time is not None

        await until(done)

    async def failed(self, text: str, message_id: str) -> None:
        """A turn that goes past a limit."""
        answer = await self.world.runner.ask(self.key, text, message_id=message_id)
        assert answer.failure is not None
        assert answer.failure.type == "LimitExceeded"

    async def held_too_long(self, message_id: str) -> None:
        """A turn that its limit ends in its tool."""
        assert await (await self.held(message_id)) == "failed"
        gate.open.set()
