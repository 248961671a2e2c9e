"""google-adk's own API server and ours get the same requests; their answers are compared byte for byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass

import httpx2
import pytest
import pytest_asyncio

from embedded.temporal import TemporalServer
from perdure.testing import StandIn
from perdure.types import JsonObject
from storage.sessions import SessionStore
from tests.adk.environment import ROOT, ensure
from tests.gateway.adk_script import SCRIPT, Step, comparable
from tests.gateway.adk_world import agent, open_ours, open_theirs
from tests.integration.harness import open_world

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What one server said to the script."""

    responses: Sequence[httpx2.Response]

    def told(self, index: int) -> str:
        """Status, a space and the body, made comparable."""
        response = self.responses[index]
        text = response.text
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            text = joined(text)
        return f"{response.status_code} {comparable(text)}"


@pytest_asyncio.fixture(scope="module")
async def both(
    temporal: TemporalServer, sqlite_store: SessionStore, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Answers, Answers]:
    """What google-adk's server said, and what ours did."""

    async def theirs() -> Answers:
        python = await asyncio.to_thread(ensure)
        folder = tmp_path_factory.mktemp("adk")
        async with StandIn() as gemini, open_theirs(python, gemini.url, folder) as client:
            return await play(client, gemini)

    async def ours() -> Answers:
        async with open_world(temporal.address, sqlite_store, [agent]) as world, open_ours(world) as client:
            return await play(client, world.gemini)

    return await asyncio.gather(theirs(), ours())


async def play(client: httpx2.AsyncClient, gemini: StandIn) -> Answers:
    """Send the script."""
    responses = []
    for step in SCRIPT:
        gemini.script(*step.answers)
        if step.fails is not None:
            gemini.fail(step.fails)
        headers = {"content-type": "application/json"} if step.raw is not None else {}
        responses.append(
            await client.request(
                step.method,
                step.path,
                json=step.body if step.raw is None and step.body is not None else None,
                content=step.raw,
                headers=headers,
            )
        )
        gemini.clear()
    return Answers(responses=responses)


@pytest.mark.parametrize(("index", "step"), list(enumerate(SCRIPT)), ids=[step.name for step in SCRIPT])
async def test_the_answers_are_equal_but_where_the_docs_say(
    both: tuple[Answers, Answers], index: int, step: Step
) -> None:
    theirs, ours = both
    their, our = theirs.told(index), ours.told(index)
    if step.differs is None:
        assert our == their
        kind = "content-type"
        assert ours.responses[index].headers.get(kind) == theirs.responses[index].headers.get(kind)
    else:
        assert step.differs.theirs in their
        assert step.differs.ours in our


def test_each_difference_is_in_the_docs() -> None:
    section = (ROOT / "docs" / "adk.md").read_text().partition("## The API server")[2].partition("\n## ")[0]
    rows = {line.removeprefix("| ").partition(" |")[0] for line in section.splitlines() if line[:2] == "| "}
    assert {step.differs.row for step in SCRIPT if step.differs} <= rows


def joined(stream: str) -> str:
    """A stream with the pieces of an answer made one: how it is cut is nobody's promise."""
    frames: list[JsonObject] = []
    for frame in stream.split("\n\n"):
        assert frame == "" or frame.startswith("data: {"), frame
        if not frame:
            continue
        event = json.loads(frame.removeprefix("data: "))
        if event.get("partial"):
            text = "".join(part.get("text", "") for part in event["content"].get("parts", ()))
            if frames and frames[-1].get("id") == event["id"] and "pieces" in frames[-1]:
                frames[-1]["pieces"] += text
                continue
            if not text:
                continue
            event = {
                "id": event["id"],
                "author": event["author"],
                "actions": event["actions"],
                "pieces": text,
            }
        frames.append(event)
    return "\n".join(json.dumps(frame, ensure_ascii=False, separators=(",", ":")) for frame in frames)
