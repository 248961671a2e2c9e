"""google-adk's own API server and ours, with the same agent, before the same stand-in for a model."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from embedded.ports import Claims, free_port
from gateway.access import Access
from gateway.app import create_app
from gateway.listening import listening
from perdure import Agent, ToolContext, tool
from perdure.registry import Registry
from tests.adk.environment import ROOT, command_environment
from tests.integration.harness import World

__all__ = ["agent", "open_ours", "open_theirs"]

APPS = ROOT / "tests" / "adk" / "suite" / "apps"


@tool
def count(name: str, context: ToolContext) -> dict[str, int]:
    """Count a visit.

    Args:
        name: who came.
    """
    visits: dict[str, int] = context.state.get("visits", {})
    context.state["visits"] = {**visits, name: visits.get(name, 0) + 1}
    return {name: visits.get(name, 0) + 1}


@tool
async def report(filename: str, context: ToolContext) -> dict[str, str]:
    """Save a file.

    Args:
        filename: its name.
    """
    await context.save_artifact(filename, b"all is well", "text/plain")
    return {"saved": filename}


@tool
def explode() -> str:
    """Raise an error."""
    raise RuntimeError("it exploded")


agent = Agent(
    name="tally",
    description="Counts visits.",
    instruction="You count visits.",
    tools=[count, report, explode],
)


@asynccontextmanager
async def open_ours(world: World) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a gateway that asks for no token."""
    app = create_app(world.runner, Access(), agents=Registry([agent]))
    async with listening(app, "127.0.0.1", 0) as port, _client(port) as client:
        yield client


@asynccontextmanager
async def open_theirs(python: Path, model_url: str, folder: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of google-adk's server, in an environment of its own."""
    claims = Claims()
    port = free_port(take=claims.take)  # it listens only when it has imported all that it needs
    log = folder / "adk.log"
    memory = ("--session_service_uri=memory://", "--artifact_service_uri=memory://")
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            *(python.with_name("adk"), "api_server", "--host=127.0.0.1", f"--port={port}", *memory, APPS),
            cwd=folder,
            env=command_environment(
                GOOGLE_API_KEY="none-needed",
                GOOGLE_GEMINI_BASE_URL=model_url,
                GOOGLE_GENAI_USE_VERTEXAI="0",
                PYTHONDONTWRITEBYTECODE="1",
            ),
            stdout=out,
            stderr=out,
        )
    try:
        async with _client(port) as client:
            await _answering(client, process, log)
            yield client
    finally:
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 10)
        except TimeoutError:
            process.kill()
            await process.wait()
        claims.release()


def _client(port: int) -> httpx2.AsyncClient:
    # google-adk's server hangs up after an error of its own, without saying so.
    each = httpx2.Limits(max_keepalive_connections=0)
    return httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False, limits=each)


async def _answering(client: httpx2.AsyncClient, process: Process, log: Path, *, within: float = 300) -> None:
    async with asyncio.timeout(within):
        while True:
            try:
                (await client.get("/health")).raise_for_status()
            except httpx2.TransportError:
                assert process.returncode is None, await asyncio.to_thread(log.read_text, errors="replace")
                await asyncio.sleep(0.05)
            else:
                return
