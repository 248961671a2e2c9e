"""A studio whose pictures are rendered elsewhere: a turn waits until they are there, for days if need be.

    perdure dev examples/studio.py
    perdure chat studio                                   # "Render 'the sea'": the turn waits
    python examples/studio.py http://127.0.0.1:8000       # elsewhere: the farm does what there is to do

The farm knows nothing of sessions and calls. It gets a job with a task token, and answers by that; a token of
the gateway's, where one is needed, is read from ``PERDURE_TOKEN``. See docs/waiting.md.
"""

from __future__ import annotations

import json
import os
import sys
from hashlib import sha256
from pathlib import Path

from perdure import Agent, Client, ToolContext, tool
from perdure.errors import Conflict, NotFound

__all__ = ["agent", "render", "work"]

JOBS = Path(os.environ.get("STUDIO_JOBS", "studio-jobs"))
"""A folder stands for whatever carries jobs to the farm."""


@tool(long_running=True, result_timeout=7 * 86_400)
def render(scene: str, context: ToolContext) -> dict[str, str]:
    """Have a picture rendered.

    Args:
        scene: What is to be seen.
    """
    JOBS.mkdir(parents=True, exist_ok=True)
    # Under one name for every try of the call, so that it is rendered once; and there whole, or not at all.
    job = JOBS / f"{sha256(context.task_token.encode()).hexdigest()[:16]}.json"
    begun = job.with_suffix(".part")
    begun.write_text(json.dumps({"scene": scene, "answer_to": context.task_token}), encoding="utf-8")
    begun.replace(job)
    return {"job": job.stem}


def work(client: Client) -> list[str]:
    """Do the jobs that there are.

    Returns:
        What was rendered.
    """
    done: list[str] = []
    for job in sorted(JOBS.glob("*.json")):
        wanted = json.loads(job.read_text(encoding="utf-8"))
        token, scene = wanted["answer_to"], wanted["scene"]
        try:
            client.task_progress(token, f"rendering {scene}", percent=50)
            client.complete_task(
                token, {"url": f"https://example.com/{job.stem}.png", "of": scene}, by="farm"
            )
            done.append(scene)
        except (Conflict, NotFound) as error:  # cancelled, ended, or too late
            print(f"nobody waits for {scene!r}: {error}", file=sys.stderr)
        job.unlink()
    return done


agent = Agent(
    name="studio",
    instruction="You have pictures rendered, and give their URLs.",
    description="Has pictures rendered.",
    tools=[render],
)

if __name__ == "__main__":
    with Client(sys.argv[1], os.environ.get("PERDURE_TOKEN")) as found:
        print("rendered:", ", ".join(work(found)) or "nothing, there was no job")
