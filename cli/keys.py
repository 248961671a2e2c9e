"""``perdure keys``: the gateway's API keys."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cli import render
from cli.common import DEFAULT_DATA, MAX_DAYS, DataOption, JsonOption, find_settings, open_store
from perdure.errors import InvalidOption
from perdure.settings import Settings

if TYPE_CHECKING:  # the database's library takes a second to import, which `--help` need not pay
    from storage.key_store import ApiKey

__all__ = ["app"]

app = typer.Typer(help="The gateway's API keys.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What you call it.")],
    apps: Annotated[
        list[str] | None, typer.Option("--app", help="An app it reaches; may be given again; default: all.")
    ] = None,
    users: Annotated[
        list[str] | None,
        typer.Option("--user", help="A user it reaches; may be given again. None: an administrator's."),
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=MAX_DAYS, help="Days until it ends by itself.")
    ] = None,
    data: DataOption = DEFAULT_DATA,
    json: JsonOption = False,
) -> None:
    """Make a key and print its token, which nobody can see again."""
    asyncio.run(_create(find_settings(data), name, apps=apps, users=users, days=days, json=json))


@app.command("list")
def list_(data: DataOption = DEFAULT_DATA, json: JsonOption = False) -> None:
    """List all keys, the ended ones included. Their tokens are stored nowhere."""
    asyncio.run(_list(find_settings(data), json=json))


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key, as list prints it.")],
    data: DataOption = DEFAULT_DATA,
) -> None:
    """End a key, from the next request on. Twice is the same as once."""
    asyncio.run(_revoke(find_settings(data), key))


async def _create(
    settings: Settings,
    name: str,
    *,
    apps: list[str] | None,
    users: list[str] | None,
    days: int | None,
    json: bool,
) -> None:
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    async with open_store(settings) as store:
        key, token = await store.create_key(
            name, apps=apps or None, users=users or None, expires_at=expires_at
        )
    if json:
        print(render.as_json({**_shown(key), "token": token}))
        return
    print(f"key {key.id} ({key.name}) reaches {_reach(key)}. Its token, shown this once:\n{token}")


async def _list(settings: Settings, *, json: bool) -> None:
    async with open_store(settings) as store:
        keys = await store.list_keys()
    if json:
        print(render.as_json({"keys": [_shown(key) for key in keys]}))
    elif not keys:
        print("no keys; make one: perdure keys create NAME")
    else:
        table = Table(box=None, pad_edge=False)
        for title in ("ID", "NAME", "REACHES", "CREATED", "STATUS"):
            table.add_column(title, overflow="fold")
        for key in keys:
            table.add_row(key.id, key.name, _reach(key), f"{key.created_at:%Y-%m-%d %H:%M}", _status(key))
        render.show(table)


async def _revoke(settings: Settings, key_id: str) -> None:
    async with open_store(settings) as store:
        key = await store.revoke_key(key_id)
    if key is None:
        raise InvalidOption(f"there is no key {key_id!r}; perdure keys list shows them")
    print(f"key {key.id} ({key.name}) is revoked.")


def _shown(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "apps": key.apps,
        "users": key.users,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def _reach(key: ApiKey) -> str:
    apps = "all apps" if key.apps is None else ", ".join(key.apps)
    return f"{apps}: {'every user' if key.users is None else ', '.join(key.users)}"


def _status(key: ApiKey) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "good"
    until = f"{key.expires_at:%Y-%m-%d %H:%M}"
    return f"good until {until}" if key.is_good(datetime.now(UTC)) else f"ended {until}"
