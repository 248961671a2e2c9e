"""The commands put together, and the one place that turns an error into a line and an exit code."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

import perdure
from cli import chat, cluster, dev, keys, memory, retention, serve, sessions, users
from perdure.errors import PerdureError
from perdure.loading import loading

__all__ = ["app", "run"]

app = typer.Typer(
    name="perdure",
    help="A durable agent runtime: sessions that survive whatever dies.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(dev.dev)
app.command()(dev.worker)
app.command()(serve.serve)
app.command()(chat.chat)
app.add_typer(sessions.app, name="sessions")
app.add_typer(memory.app, name="memory")
app.add_typer(users.app, name="users")
app.add_typer(keys.app, name="keys")
app.add_typer(retention.app, name="retention")
app.add_typer(cluster.database, name="db")
app.add_typer(cluster.temporal, name="temporal")


@app.command()
def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave it running at the end, with the Temporal UI.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="The folder to play in, kept; default: a temporary one.")
    ] = None,
) -> None:
    """Play the story of a session that survives: kills, rewinds, compaction, restarts."""
    with loading():
        from cli import demo as story
        from cli.quiet import quiet

    quiet()
    story.run(keep=keep, data=data)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"perdure {perdure.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


def run() -> int:
    """Run the command line; the exit code. What goes wrong is one readable line on stderr and 1."""
    try:
        app()
    except SystemExit as left:  # how Typer ends every command
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except PerdureError as error:
        return _fail(type(error).__name__, error)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        return _fail("InvalidOption", error, f"a setting is wrong: {problems}")
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - the edge of the program: the last place to say it readably
        return _fail(type(error).__name__, error)
    return 0


def _fail(kind: str, error: Exception, message: str | None = None) -> int:
    print(f"perdure: {kind}: {message or str(error) or 'no details'}", file=sys.stderr)
    if os.environ.get("PERDURE_LOG_LEVEL", "").upper() == "DEBUG":
        traceback.print_exception(error)
    return 1
