"""The loop of ``perdure chat``: line by line from the terminal or the pipe into the conversation."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence

from temporalio.service import RPCError

from cli.common import open_runner
from cli.conversation import Chat
from cli.keyboard import Keyboard
from perdure.errors import PerdureError
from perdure.settings import Settings
from perdure.types import SessionKey

__all__ = ["converse"]


def converse(settings: Settings, key: SessionKey, *, serves: Sequence[str], reopen: bool) -> bool:
    """Talk until /quit, Ctrl-D or the end of the pipe. Returns; the session stays.

    Args:
        settings: where the session is.
        key: the session.
        serves: the names of the agents that run there; none: not known.
        reopen: whether the first message may open an ended session again.

    Returns:
        Whether nothing that was said was refused or failed.
    """
    with asyncio.Runner() as loop:
        opened = open_runner(settings)
        runner = loop.run(opened.__aenter__())
        try:
            keyboard = Keyboard(sys.stdin.fileno()) if sys.stdin.isatty() else None
            chat = Chat(runner, key, reopen=reopen, keyboard=keyboard)
            loop.run(chat.greet())
            if serves and key.app not in serves:
                print(
                    f"perdure dev serves no agent named {key.app!r}, so what you say will be refused; "
                    f"there are: {', '.join(sorted(serves))}",
                    flush=True,
                )
            _talk(loop, chat)
            return not chat.failed
        finally:
            loop.run(opened.__aexit__(None, None, None))


def _talk(loop: asyncio.Runner, chat: Chat) -> None:
    for line in _lines():
        try:
            loop.run(chat.command(line) if line.startswith("/") else chat.say(line))
        except (PerdureError, RPCError) as error:
            chat.tell(error)


def _lines() -> Iterator[str]:
    """What is typed, or comes through a pipe, until /quit, Ctrl-D or Ctrl-C."""
    typed = sys.stdin.isatty()
    if typed:
        import readline  # noqa: F401 - gives input() editing and history
    while True:
        try:
            line = input("> " if typed else "").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if line in ("/quit", "/exit"):
            return
        if line and not typed:
            print(f"> {line}", flush=True)
        if line:
            yield line
