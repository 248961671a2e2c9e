"""What logs may tell: ids, names, counts and kinds of errors; never what anybody said, unless asked to.

An error's words may quote a message, an answer, a tool's arguments or a row. So a line that
wants to show such words wraps them in :class:`Private`, and the formatter of a worker's log
prints a traceback as places and kinds of errors. ``PERDURE_LOG_CONTENT=true`` shows it all.
"""

from __future__ import annotations

import logging
import sys
import traceback
from types import TracebackType

__all__ = ["Formatter", "Private", "configure", "words_of"]

WITHHELD = "(PERDURE_LOG_CONTENT=true shows the words)"

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

_CARELESS = ("asyncio", "temporalio")
"""Loggers that put an error's words into the first line of a traceback's message, or a future's ``repr``."""


class _Policy:
    shows_content = False


class Private:
    """What may stand in a log only where content was asked for; else it says that it is withheld.

    Args:
        value: what to show then.
    """

    def __init__(self, value: object) -> None:
        self._value = value

    def __str__(self) -> str:
        return str(self._value) if _Policy.shows_content else WITHHELD


def words_of(error: BaseException) -> str:
    """An error for a log line: its kind, and as much of its words as may be shown."""
    if _Policy.shows_content:
        return f"{type(error).__name__}: {error}"
    return f"{type(error).__name__}: {getattr(error, 'brief', None) or WITHHELD}"


class Formatter(logging.Formatter):
    """Lines as a worker writes them.

    Args:
        content: whether they may quote what was said.
    """

    def __init__(self, *, content: bool) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self._content = content

    def format(self, record: logging.LogRecord) -> str:
        """One record, its error without words unless they may be shown."""
        if self._content:
            return super().format(record)
        told = logging.makeLogRecord(record.__dict__)
        told.exc_text = None  # what another formatter left there
        if isinstance(told.args, tuple):
            told.args = tuple(_told(item) for item in told.args)
        if told.name.partition(".")[0] in _CARELESS and told.exc_info:
            told.msg, told.args = told.getMessage().partition("\n")[0].partition(" error: ")[0], ()
        return super().format(told)

    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 - logging's name
        """A traceback; where words are withheld, its places and the kinds of its errors."""
        if self._content or ei[1] is None:
            return super().formatException(ei)
        return "\n".join(_chain(ei[1]))


def configure(level: str, *, content: bool) -> None:
    """Log to stderr, once and for the whole process.

    Args:
        level: of Perdure's own loggers, and of the libraries' from INFO up: what they log below
            that is payloads and requests, so it is shown only with content.
        content: whether lines may quote what users, models and tools said.
    """
    _Policy.shows_content = content
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(content=content))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(level if content else max(logging.getLevelName(level), logging.INFO))
    logging.getLogger("perdure").setLevel(level)
    logging.getLogger("alembic").setLevel(logging.WARNING)


def _told(item: object) -> object:
    return words_of(item) if isinstance(item, BaseException) else item


def _chain(error: BaseException) -> list[str]:
    """The error and what led to it, the first of them first."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines = [*_chain(before), ""] if before is not None and before is not error else []
    frames = traceback.extract_tb(error.__traceback__)
    lines += [f"  {frame.filename}:{frame.lineno} in {frame.name}" for frame in frames]
    brief = getattr(error, "brief", None)
    lines.append(f"{type(error).__qualname__}: {brief or WITHHELD}")
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            lines += [f"  | {line}" for line in _chain(each)]
    return lines
