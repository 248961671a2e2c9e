"""How the programs import what they are made of."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["loading"]


@contextmanager
def loading() -> Iterator[None]:
    """Import modules inside without looking for garbage, and never look for any among them afterwards.

    They stay as long as the process does. Looking for garbage among half a million of their
    objects, again and again, is a quarter of the CPU that a worker takes to start.
    """
    looked = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if looked:
            gc.enable()
