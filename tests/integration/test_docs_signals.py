"""docs/signals.md and waiting.md: all that a session takes, as they say, by ``temporal`` and TypeScript."""

from __future__ import annotations

import asyncio
import os
import re
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import pytest_asyncio
from temporalio import workflow

from embedded.temporal import TemporalServer, find_temporal
from perdure.types import SessionKey
from storage.sessions import SessionStore
from tests.integration import signals_story, waiting_story
from tests.integration.harness import PATIENCE, World, open_world
from tests.integration.signals_story import Block, Step, play
from tests.typescript.environment import Absent, compiled
from workflows.session import AgentSession

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(
    r"^<!-- run: (?P<name>[\w ]+) -->\n```(?P<language>\w+)\n(?P<code>.*?)^```$"
    r"(?:\n\n```text\n(?P<text>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
DONE = "--- done ---\n"
FORMS = {
    ("sh", "signal"): r"temporal workflow signal[^#]* --(signal-)?name {}\b",
    ("sh", "update"): r"temporal workflow (update execute|execute-update)[^#]* --(update-)?name {}\b",
    ("sh", "query"): r"temporal workflow query[^#]* --type {}\b",
    ("ts", "signal"): r'signal(\(|: )"{}"',
    ("ts", "update"): r'executeUpdate(WithStart)?\("{}"',
    ("ts", "query"): r'query\("{}"',
}
"""How each language says what a block is named for."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page, and the story that its pieces tell."""

    name: str
    key: SessionKey
    story: Sequence[Step]

    def blocks(self, language: str) -> list[Block]:
        """Its pieces in a language, with what they print: a block of text, or comments."""
        return [
            Block(name=found["name"], code=found["code"], prints=found["text"] or _comments(found["code"]))
            for found in BLOCK.finditer((DOCS / self.name).read_text("utf-8"))
            if found["language"] == language
        ]

    @property
    def before(self) -> list[str]:
        """What its TypeScript needs: how it connects, and the page that it refers to before it."""
        return [page.blocks("ts")[0].code for page in (SIGNALS, WAITING) if page is self or page is SIGNALS]


SIGNALS = Page(name="signals.md", key=signals_story.KEY, story=signals_story.STORY)
WAITING = Page(name="waiting.md", key=waiting_story.KEY, story=waiting_story.STORY)
on_both_pages = pytest.mark.parametrize("page", [SIGNALS, WAITING], ids=lambda page: page.name)


def _comments(code: str) -> str:
    return "\n".join(re.findall(r"^// ?(.*)$", code, re.MULTILINE))


@pytest_asyncio.fixture
async def world(temporal: TemporalServer, sqlite_store: SessionStore) -> AsyncIterator[World]:
    """As ``perdure dev`` would have it: with the pages' queue and their agents."""
    agents = [signals_story.AGENT, waiting_story.CLERK]
    async with open_world(temporal.address, sqlite_store, agents, queue="perdure") as opened:
        yield opened


def environment(temporal: TemporalServer) -> dict[str, str]:
    """Whatever a command needs, and no settings or proxies of whoever runs the tests."""
    path = f"{Path(find_temporal()).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {"PATH": path, "HOME": os.environ.get("HOME", "/"), "TEMPORAL_ADDRESS": temporal.address}


@on_both_pages
async def test_by_the_temporal_program(temporal: TemporalServer, world: World, page: Page) -> None:
    commands = page.blocks("sh")

    async def send(number: int, step: Step) -> str:
        process = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-euc", commands[number].code), env=environment(temporal), stdout=PIPE, stderr=STDOUT
        )
        out, _ = await process.communicate()
        assert (process.returncode != 0) == step.fails, f"{step.name}:\n{out.decode()}"
        return out.decode()

    await play(world, page.key, page.story, commands, send)


@on_both_pages
async def test_from_typescript(temporal: TemporalServer, world: World, tmp_path: Path, page: Page) -> None:
    begin, *pieces = page.blocks("ts")
    assert begin.name == "connect"
    source = ["".join(page.before), *(piece.code for piece in pieces)]
    story = 'import { step } from "./steps.js";\n' + "".join(f"{code}await step();\n" for code in source)
    try:
        script = await asyncio.to_thread(compiled, story, tmp_path)
    except Absent as why:
        pytest.skip(str(why))
    process = await asyncio.create_subprocess_exec(
        "node", str(script), env=environment(temporal), stdin=PIPE, stdout=PIPE, stderr=STDOUT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    async def printed() -> str:
        said = ""
        while not said.endswith(DONE):
            line = (await stdout.readline()).decode()
            assert line, f"the script ended:\n{said}"
            said += line
        return said.removesuffix(DONE)

    async def send(_number: int, _step: Step) -> str:
        stdin.write(b"go on\n")
        return await printed()

    try:
        await asyncio.wait_for(printed(), PATIENCE)
        await play(world, page.key, page.story, pieces, send)
        stdin.close()
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_all_that_a_session_takes_is_there() -> None:
    taken = workflow._Definition.must_from_class(AgentSession)
    kinds = {"signal": taken.signals, "update": taken.updates, "query": taken.queries}
    names = {f"{kind} {name}" for kind, handlers in kinds.items() for name in handlers}
    names.remove("signal agent_waits")  # what a session's agents tell it; nobody else sends it
    others = {"refused ask", "list"}
    assert {step.name for page in (SIGNALS, WAITING) for step in page.story} == names | others
    for language, page in product(("sh", "ts"), (SIGNALS, WAITING)):
        for block in page.blocks(language):
            kind, _, name = block.name.partition(" ")
            if (form := FORMS.get((language, kind))) is not None:
                assert re.search(form.format(name), block.code), block
