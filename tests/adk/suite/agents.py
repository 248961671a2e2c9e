"""An ADK app to test with: a shopping list, its tools, and a model that answers by rule."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any

from google.adk.agents import LlmAgent
from google.adk.agents.run_config import RunConfig
from google.adk.apps import App
from google.adk.apps.app import EventsCompactionConfig
from google.adk.events import Event
from google.adk.models import BaseLlm
from google.adk.models.llm_request import LlmRequest
from google.adk.models.llm_response import LlmResponse
from google.adk.runners import Runner
from google.adk.tools.tool_context import ToolContext
from google.genai import types
from pydantic import Field

from integrations.google_adk import PerdureSessionService

APP, USER, SESSION = "shop", "ada", "s1"
WHO: dict[str, Any] = {"app_name": APP, "user_id": USER, "session_id": SESSION}


async def add(item: str, tool_context: ToolContext) -> dict[str, Any]:
    """Put an item on the list, and save the list as a file."""
    state = tool_context.state
    state["items"] = [*state.get("items", []), item]
    state["user:added"] = state.get("user:added", 0) + 1
    state["temp:last"] = item
    text = types.Part(text=", ".join(state["items"]))
    return {"items": state["items"], "version": await tool_context.save_artifact("list.txt", text)}


async def draw(item: str, tool_context: ToolContext) -> str:
    """Save a picture of an item, one file an item."""
    picture = types.Part.from_bytes(data=item.encode(), mime_type="image/png")
    await tool_context.save_artifact(f"{item}.png", picture)
    tool_context.state[f"drawn_{item}"] = True
    return "done"


class Gate:
    """A tool that waits in the middle of a turn."""

    def __init__(self) -> None:
        self.entered, self.opened = asyncio.Event(), asyncio.Event()

    async def wait(self, tool_context: ToolContext) -> str:
        """Wait until the gate opens, then write."""
        self.entered.set()
        await self.opened.wait()
        tool_context.state["late"] = True
        return "through"


class RuleModel(BaseLlm):
    """Calls what the user's words name (``add milk``, ``draw milk``, ``wait``), then says that it is done."""

    model: str = "rule"
    requests: list[list[str]] = Field(default_factory=list)
    """What each request had in it: the texts, calls and responses of its contents."""

    async def generate_content_async(
        self, llm_request: LlmRequest, stream: bool = False
    ) -> AsyncGenerator[LlmResponse, None]:
        said = [text for content in llm_request.contents for text in map(_read, content.parts or [])]
        self.requests.append(said)
        last = (llm_request.contents[-1].parts or [])[0]
        if last.text and (calls := _calls(last.text)):
            parts = [types.Part(function_call=call, thought_signature=b"\xff\xfe") for call in calls]
            yield LlmResponse(content=types.Content(role="model", parts=parts))
            return
        text = f"done with {len(self.requests)}"
        if stream:
            piece = types.Content(role="model", parts=[types.Part(text=text[:4])])
            yield LlmResponse(content=piece, partial=True)
        usage = types.GenerateContentResponseUsageMetadata(total_token_count=len(said))
        answer = types.Content(role="model", parts=[types.Part(text=text)])
        yield LlmResponse(content=answer, usage_metadata=usage, finish_reason=types.FinishReason.STOP)


class World:
    """A runner on a service, with one session."""

    def __init__(
        self, service: PerdureSessionService, *, compaction: EventsCompactionConfig | None = None
    ) -> None:
        self.service, self.gate, self.model = service, Gate(), RuleModel()
        agent = LlmAgent(name="shopper", model=self.model, tools=[add, draw, self.gate.wait])
        self.runner = Runner(
            app=App(name=APP, root_agent=agent, events_compaction_config=compaction),
            session_service=service,
            artifact_service=service.artifacts,
        )

    async def ask(self, text: str, *, run_config: RunConfig | None = None) -> list[Event]:
        """One turn; the events that it gave."""
        message = types.Content(role="user", parts=[types.Part(text=text)])
        run = self.runner.run_async(
            user_id=USER, session_id=SESSION, new_message=message, run_config=run_config
        )
        return [event async for event in run]

    async def turn(self, text: str) -> str:
        """One turn; its invocation id."""
        return (await self.ask(text))[-1].invocation_id

    async def rewind(self, before: str) -> None:
        """google-adk's own rewind."""
        await self.runner.rewind_async(user_id=USER, session_id=SESSION, rewind_before_invocation_id=before)

    async def files(self) -> dict[str, str]:
        """Every file that can be listed, and its content."""
        found = {}
        for name in await self.service.artifacts.list_artifact_keys(**WHO):
            part = await self.service.artifacts.load_artifact(**WHO, filename=name)
            assert part is not None
            found[name] = part.text or ((part.inline_data and part.inline_data.data) or b"").decode()
        return found


def _read(part: types.Part) -> str:
    if part.function_call:
        return f"call {part.function_call.name} {part.function_call.args}"
    if part.function_response:
        return f"response {part.function_response.name} {part.function_response.response}"
    return part.text or ""


def _calls(text: str) -> list[types.FunctionCall]:
    words = text.split()
    calls = [
        types.FunctionCall(name=name, args={"item": item})
        for name, item in pairwise(words)
        if name in ("add", "draw")
    ]
    return calls + [types.FunctionCall(name="wait", args={})] * ("wait" in words)
