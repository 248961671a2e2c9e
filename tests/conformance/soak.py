"""The property test of SEMANTICS line 37, as long as one likes.

    python -m tests.conformance.soak --steps 1000000 [--seed 1] [--store memory | sqlite]

It stops at the first disagreement and prints the shortest program that leads there; the
same seed leads there again.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from storage.sessions import SessionStore
from tests.conformance.machine import Machine

__all__ = ["explore", "main"]

STEPS_A_MACHINE = 80
MACHINES_A_SEED = 25
"""Hypothesis remembers all that it has tried under one seed."""
STEPS_A_SEED = STEPS_A_MACHINE * MACHINES_A_SEED
STEPS_A_STORE = 5 * STEPS_A_SEED
"""Then comes a new one, so that the millionth step costs what the first did."""


def explore(store: SessionStore, loop: asyncio.AbstractEventLoop, *, steps: int, first: int) -> Iterator[int]:
    """Run machines under the seeds ``first``, ``first + 1``, … until so many steps were made.

    Yields:
        The steps made so far, after each seed.

    Raises:
        AssertionError: store and model disagree; hypothesis has printed the shortest way there.
    """
    kind: type[Machine] = type("Machine", (Machine,), {"store": store, "loop": loop, "steps": 0})
    how = settings(
        max_examples=MACHINES_A_SEED,
        stateful_step_count=STEPS_A_MACHINE,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    for number in itertools.count(first):
        run_state_machine_as_test(seed(number)(kind), settings=how)
        yield kind.steps
        if kind.steps >= steps:
            return


def main() -> int:
    """Run it; the exit status is 1 if store and model disagreed."""
    parser = argparse.ArgumentParser(description="Random sessions against a naive model.")
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=["memory", "sqlite"], default="memory")
    given = parser.parse_args()
    done, number, began = 0, given.seed, monotonic()
    while done < given.steps:
        before = done
        try:
            with tempfile.TemporaryDirectory(prefix="perdure-soak-") as folder:
                for made in _on_new_store(given.store, folder, given.steps - before, number):
                    done, number = before + made, number + 1
        except Exception:
            _say(done, f"disagreement under seed {number}; run it again with --seed {number}", began)
            raise
        _say(done, f"seeds {given.seed} to {number - 1}, no disagreement", began)
    return 0


def _on_new_store(kind: str, folder: str, steps: int, first: int) -> Iterator[int]:
    loop = asyncio.new_event_loop()
    url = "sqlite://" if kind == "memory" else f"sqlite:///{Path(folder) / 'soak.db'}"
    store = loop.run_until_complete(SessionStore.open(url, f"memory://soak-{first}", migrate=True))
    try:
        yield from explore(store, loop, steps=min(steps, STEPS_A_STORE), first=first)
    finally:
        loop.run_until_complete(store.close())
        loop.close()


def _say(done: int, what: str, began: float) -> None:
    print(f"{done:,} steps in {monotonic() - began:,.0f} s: {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
