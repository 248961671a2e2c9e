"""What each process does once, done once for all of those that are forked from this one.

The first turn of a process takes ten times the CPU of the next one: the SDK of the model builds
its types, and the list of prices and the transport are loaded. Imported last by the fork server
(:mod:`tests.integration.crashes`), whose children all have it then, and look for no garbage
among it.
"""

from __future__ import annotations

import asyncio
import gc
import importlib

from activities.gemini import Gemini, recording_transport
from activities.prices import nano_usd
from perdure import Agent

TOOL = {"name": "note", "description": "Notes.", "parametersJsonSchema": {"type": "object"}}
USAGE = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}


async def ask() -> None:
    """Ask a model that is not there."""
    gemini = Gemini(api_key="none", transport=recording_transport([]))
    said = [{"role": "user", "parts": [{"text": "hello"}]}]
    await gemini.generate(model="gemini-flash-latest", system="", contents=said, tools=[TOOL], timeout=60)
    await gemini.close()


for name in ("httpcore2", "anyio._backends._asyncio"):
    importlib.import_module(name)
asyncio.run(ask())
nano_usd(Agent(name="warm", model="gemini-flash-latest"), "gemini-flash-latest", USAGE)
gc.freeze()
