"""What several commands need: the settings of this folder, the store, a client of Temporal, the Runner."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import unquote, urlsplit

import typer

from perdure.errors import InvalidOption, PerdureError, StorageUnavailable
from perdure.loading import loading
from perdure.settings import Settings
from perdure.types import SessionKey

if TYPE_CHECKING:  # the store and Temporal take a second to import, which `--help` need not pay
    from temporalio.client import Client

    from gateway.runner import Runner
    from storage.sessions import SessionStore

__all__ = [
    "DEFAULT_DATA",
    "MAX_DAYS",
    "DataOption",
    "JsonOption",
    "NotReachable",
    "SessionArgument",
    "UserArgument",
    "connect",
    "find_settings",
    "open_runner",
    "open_store",
    "session_key",
    "user_named",
    "without_password",
]

MAX_DAYS = 36_500
"""A hundred years: far from where the calendar begins and ends."""
DEFAULT_DATA = Path(".perdure")
DataOption = Annotated[
    Path,
    typer.Option(
        "--data", envvar="PERDURE_DATA", help="The folder of perdure dev; settings given by hand go first."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SessionArgument = Annotated[
    str, typer.Argument(metavar="APP/USER/SESSION", help="The session, as list prints it.")
]
UserArgument = Annotated[
    str, typer.Argument(metavar="APP/USER", help="The user of an agent, as a session's first two parts.")
]


class NotReachable(PerdureError):
    """A server that the command needs does not answer. Start it, or check its address."""


def find_settings(data: Path) -> Settings:
    """The settings from the environment and ``.env``, and what they leave open from ``perdure dev``."""
    from embedded import devfile

    return devfile.settings_in(data, Settings())


def session_key(text: str) -> SessionKey:
    """The key that ``app/user/session`` names.

    Raises:
        InvalidOption: it is not three parts.
    """
    try:
        return SessionKey.parse(text)
    except PerdureError as error:
        raise InvalidOption(
            f"{text!r} names no session; it has to be APP/USER/SESSION, as list prints it"
        ) from error


def user_named(text: str) -> tuple[str, str]:
    """The app and the user that ``app/user`` names.

    Raises:
        InvalidOption: it is not two parts.
    """
    parts = [unquote(part) for part in text.split("/")]
    if len(parts) != 2 or not all(parts):
        raise InvalidOption(f"{text!r} names no user; it has to be APP/USER, as a session's first two parts")
    return parts[0], parts[1]


@asynccontextmanager
async def open_store(settings: Settings, *, migrate: bool = False) -> AsyncIterator[SessionStore]:
    """The store of these settings, closed at the end; with `migrate` its schema is brought up to date.

    Raises:
        NotReachable: there is no database, or it does not answer.
    """
    with loading():
        from gateway import opening

    if not migrate:
        _check_file(settings.database_url)
    try:
        store = await opening.open_store(settings, migrate=migrate)
    except (OSError, StorageUnavailable) as error:
        raise NotReachable(f"{without_password(settings.database_url)} does not answer: {error}") from error
    try:
        yield store
    finally:
        await store.close()


def without_password(url: str) -> str:
    """A database URL as it may be printed."""
    password = urlsplit(url).password
    return url.replace(f":{password}@", ":***@", 1) if password else url


def _check_file(database_url: str) -> None:
    path = database_url.removeprefix("sqlite:///")
    if path != database_url and not Path(path).exists():
        raise NotReachable(
            f"there is no database at {path}: start perdure dev here, or name its folder with --data"
        )


@asynccontextmanager
async def open_runner(settings: Settings) -> AsyncIterator[Runner]:
    """A Runner over the store and Temporal.

    Raises:
        NotReachable: the database or Temporal does not answer.
    """
    with loading():
        from gateway.runner import Runner

    async with open_store(settings) as store:
        yield Runner(await connect(settings), store, task_queue=settings.task_queue)


async def connect(settings: Settings) -> Client:
    """A client of Temporal.

    Raises:
        NotReachable: Temporal does not answer.
    """
    with loading():
        from cli.quiet import quiet
        from gateway import runner

    quiet()
    try:
        return await runner.connect(settings)
    except RuntimeError as error:  # how the SDK says it
        raise NotReachable(
            f"Temporal does not answer at {settings.temporal_address}: start perdure dev here, "
            f"name its folder with --data, or set PERDURE_TEMPORAL_ADDRESS ({error})"
        ) from error
