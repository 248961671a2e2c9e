"""A researcher who can be told something while it works, and who reports every morning.

    perdure dev examples.steering
    perdure sessions send researcher/ada/main "Read the pages 1 to 50" --no-wait
    perdure sessions send researcher/ada/main "Only those about ships" --during join
    perdure sessions send researcher/ada/main "Leave that: what have you found?" --during interrupt
    perdure sessions schedule researcher/ada/main "0 8 * * 1-5" "What is new?" --id morning

See docs/steering.md.
"""

from __future__ import annotations

import asyncio
import time

from perdure import Agent, ToolContext, tool

__all__ = ["agent", "count_words", "read_page"]

SECONDS_A_PAGE = 2.0


@tool
async def read_page(number: int) -> str:
    """Read a page.

    Args:
        number: Which.
    """
    # Whatever is awaited hears of a cancel: here it ends in a CancelledError.
    await asyncio.sleep(SECONDS_A_PAGE)
    return f"Page {number} is about ships."


@tool
def count_words(pages: int, context: ToolContext) -> int:
    """Count the words of so many pages, the long way.

    Args:
        pages: How many.
    """
    words = 0
    for _ in range(pages):
        if context.cancelled:  # nothing can stop a thread from outside: it has to look
            break
        time.sleep(SECONDS_A_PAGE)
        words += 300
    return words


agent = Agent(
    name="researcher",
    instruction="Read one page at a time. Heed what the user says meanwhile.",
    description="Reads, and can be told something while it does.",
    tools=[read_page, count_words],
)
