"""What an operator runs once a release: the database's schema, the cluster's search attributes."""

from __future__ import annotations

import asyncio
import shlex

import typer

from cli.common import DEFAULT_DATA, DataOption, find_settings, open_store, without_password
from perdure import searchattributes
from perdure.settings import Settings

__all__ = ["database", "setup_commands", "temporal"]

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


def setup_commands(settings: Settings) -> list[str]:
    """One command a search attribute, for the ``temporal`` program."""
    where = ["--address", settings.temporal_address, "--namespace", settings.temporal_namespace]
    names = (searchattributes.APP, searchattributes.USER, searchattributes.STATUS)
    create = ["temporal", "operator", "search-attribute", "create"]
    return [shlex.join([*create, *where, "--name", name, "--type", "Keyword"]) for name in names]


async def _upgrade(settings: Settings) -> None:
    async with open_store(settings, migrate=True):
        pass
