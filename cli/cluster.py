"""What an operator runs once a release: the database's schema, the cluster's search attributes."""

from __future__ import annotations

import asyncio
import shlex
import signal
from typing import TYPE_CHECKING, Annotated

import typer

from cli.common import DEFAULT_DATA, DataOption, find_settings, open_store, without_password
from perdure import searchattributes
from perdure.errors import InvalidOption
from perdure.settings import Settings

if TYPE_CHECKING:  # Temporal takes a second to import, which `--help` need not pay
    from temporalio.converter import PayloadCodec

__all__ = ["database", "setup_commands", "temporal"]

UI_ORIGINS = ["http://localhost:8233", "http://127.0.0.1:8233"]
"""Where ``perdure dev`` has the Temporal UI."""

database = typer.Typer(help="The database's schema.", no_args_is_help=True, rich_markup_mode=None)
temporal = typer.Typer(help="What a Temporal cluster needs.", no_args_is_help=True, rich_markup_mode=None)


@database.callback()
def _database() -> None:
    """The database's schema."""


@temporal.callback()
def _temporal() -> None:
    """What a Temporal cluster needs."""


@database.command()
def upgrade(data: DataOption = DEFAULT_DATA) -> None:
    """Bring the schema up to date. Safe to run twice, also at the same time."""
    settings = find_settings(data)
    asyncio.run(_upgrade(settings))
    typer.echo(f"the schema of {without_password(settings.database_url)} is up to date")


@temporal.command()
def setup(data: DataOption = DEFAULT_DATA) -> None:
    """Print the commands that prepare a cluster; perdure dev needs none of them."""
    for command in setup_commands(find_settings(data)):
        typer.echo(command)


@temporal.command("codec-server")
def codec_server(
    host: Annotated[
        str, typer.Option(help="Where to listen. Whoever can reach it can read what Temporal stores.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Its port; 0 for a free one.")] = 8082,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            help="The origin of the Temporal UI, whose pages may ask; may be given again. "
            "Default: http://localhost:8233 and http://127.0.0.1:8233."
        ),
    ] = None,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Decrypt payloads for the Temporal UI and CLI, with the keys in PERDURE_CODEC_KEYS.

    Give its address to the UI as its codec server, and to `temporal` as --codec-endpoint. It asks
    nobody who they are: bound to more than this machine it needs a proxy in front that does.
    """
    from activities.codec import codec

    found = codec(find_settings(data).codec_keys)
    if not found.encrypts:
        raise InvalidOption("there are no keys to decrypt with: set PERDURE_CODEC_KEYS")
    asyncio.run(_serve_codec(found, host, port, origin or UI_ORIGINS))


async def _serve_codec(codec: PayloadCodec, host: str, port: int, origins: list[str]) -> None:
    from gateway.codec_server import codec_app
    from gateway.listening import listening

    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with listening(codec_app(codec, origins), host, port) as bound:
        shown = f"[{host}]" if ":" in host else host
        print(f"decrypting at http://{shown}:{bound} for {', '.join(origins)}; Ctrl-C stops it", flush=True)
        await stop.wait()


def setup_commands(settings: Settings) -> list[str]:
    """One command a search attribute, for the ``temporal`` program."""
    where = ["--address", settings.temporal_address, "--namespace", settings.temporal_namespace]
    names = (searchattributes.APP, searchattributes.USER, searchattributes.STATUS)
    create = ["temporal", "operator", "search-attribute", "create"]
    return [shlex.join([*create, *where, "--name", name, "--type", "Keyword"]) for name in names]


async def _upgrade(settings: Settings) -> None:
    async with open_store(settings, migrate=True):
        pass
