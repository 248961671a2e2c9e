"""A worker that knows nothing of Perdure, to be killed: ``python foreign.py ADDRESS QUEUE [hold]``.

Its activity ``render`` says when it runs, and with ``hold`` does not end.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from temporalio import activity
from temporalio.client import Client
from temporalio.worker import Worker

address, queue, *rest = sys.argv[1:]


@activity.defn
async def render(given: dict[str, Any]) -> dict[str, str]:
    print("runs", given["idempotency_key"], flush=True)
    while rest:
        activity.heartbeat()
        await asyncio.sleep(0.1)
    return {"by": "the second worker"}


async def main() -> None:
    """Poll until killed."""
    client = await Client.connect(address)
    async with Worker(client, task_queue=queue, activities=[render]):
        await asyncio.Event().wait()


asyncio.run(main())
