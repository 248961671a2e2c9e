"""``python -m tests.soak``: sessions under fire, for as long as one likes.

    python -m tests.soak --minutes 30 [--seed 1] [--database postgres | sqlite | both]

The exit status is 1 if anything was not as acknowledged.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path
from time import monotonic

from tests.soak.soak import Plan, soak

__all__ = ["main"]


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description="Random sessions under random faults, then a checker.")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--database", choices=["postgres", "sqlite", "both"], default="both")
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where data and logs stay; a new one, if not given")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="perdure-soak-"))
    databases = ["postgres", "sqlite"] if given.database == "both" else [given.database]
    began = monotonic()

    def say(line: str) -> None:
        print(f"{monotonic() - began:7.1f} s  {line}", flush=True)

    found = 0
    say(f"data and logs are in {folder}")
    for database in databases:
        plan = Plan(
            seconds=60 * given.minutes / len(databases),
            seed=given.seed,
            database=database,
            sessions=given.sessions,
            workers=given.workers,
        )
        home = folder / database
        home.mkdir(parents=True, exist_ok=True)
        found += len(asyncio.run(soak(plan, home, say)).found)
    say(f"seed {given.seed}: {found or 'no'} discrepancies")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
