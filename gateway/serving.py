"""The gateway as a server: beside a worker, or as a process of its own.

With SQLite it runs beside the worker (``PERDURE_GATEWAY_ADDRESS``), because what a model is
just saying reaches only its own process there; with PostgreSQL anywhere (``perdure serve``).
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio.client import Client

from activities.mcp_servers import McpServers
from gateway.access import Access, TokenReader
from gateway.listening import address_of, listening
from gateway.opening import open_store
from gateway.rates import Rates
from gateway.remembering import open_memories
from gateway.runner import Runner, connect
from gateway.services import GatewayOptions
from gateway.strangers import Strangers
from gateway.tokens import ApiKeys, JsonWebTokens
from perdure import logs
from perdure.errors import InvalidOption
from perdure.registry import Registry, load_agents
from perdure.settings import Settings
from storage.sessions import SessionStore

__all__ = ["DEFAULT_ADDRESS", "access_of", "beside_worker", "is_loopback", "main", "options_of", "serving"]

DEFAULT_ADDRESS = "127.0.0.1:8000"
"""Where ``perdure serve`` listens, where nothing else is said."""
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")

_log = logging.getLogger("perdure.gateway")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def access_of(settings: Settings, store: SessionStore, host: str) -> Access:
    """Who may ask, by the settings.

    Raises:
        InvalidOption: everybody could, and from other machines.
    """
    if settings.gateway_auth == "none":
        if not is_loopback(host):
            raise InvalidOption(
                f"without tokens the gateway listens to this machine only, and {host} is open to others; "
                "leave PERDURE_GATEWAY_AUTH at `tokens`, or listen at 127.0.0.1"
            )
        return Access()
    readers: list[TokenReader] = [ApiKeys(store)]
    if settings.jwt_secret is not None or settings.jwt_jwks_url is not None:
        secret = settings.jwt_secret
        readers.append(
            JsonWebTokens(
                secret=secret.get_secret_value() if secret else None,
                jwks_url=settings.jwt_jwks_url,
                issuer=settings.jwt_issuer,
                audience=settings.jwt_audience,
            )
        )
    rates = Rates(settings.gateway_rate, settings.gateway_burst)
    return Access(readers, rates=rates, strangers=Strangers())


def options_of(settings: Settings, host: str) -> GatewayOptions:
    """Limits, and whose pages may ask, by the settings; at a loopback address only its names are answered."""
    local = is_loopback(host)
    return GatewayOptions(
        body_limit=settings.gateway_body_limit,
        upload_limit=settings.gateway_upload_limit,
        hosts=settings.gateway_hosts or ((*LOOPBACK_NAMES, host) if local else ()),
        origins=settings.gateway_origins,
        check_origin=local,
    )


@asynccontextmanager
async def serving(
    settings: Settings,
    address: str,
    client: Client,
    store: SessionStore,
    agents: Registry,
    servers: McpServers | None = None,
) -> AsyncIterator[str]:
    """A gateway at an address for as long as the block runs; gives its URL.

    Raises:
        InvalidOption: it cannot listen there, or may not without tokens.
    """
    # Half of what a worker would import, and most workers serve nobody.
    from gateway.app import create_app

    host, port = address_of(address)
    async with open_memories(settings, store, agents) as memories:
        runner = Runner(client, store, task_queue=settings.task_queue, memories=memories)
        access, options = access_of(settings, store, host), options_of(settings, host)
        app = create_app(runner, access, agents=agents, options=options, servers=servers)
        async with listening(app, host, port) as chosen:
            url = f"http://{f'[{host}]' if ':' in host else host}:{chosen}"
            _log.info("the gateway is at %s", url)
            yield url


@asynccontextmanager
async def beside_worker(
    settings: Settings,
    client: Client,
    store: SessionStore,
    agents: Registry,
    servers: McpServers | None = None,
) -> AsyncIterator[str | None]:
    """In a worker's process: a gateway, if the settings give it an address; gives its URL."""
    if settings.gateway_address is None:
        yield None
        return
    async with serving(settings, settings.gateway_address, client, store, agents, servers) as url:
        print(f"gateway ready: {url}", flush=True)
        yield url


async def _serve(settings: Settings) -> None:
    if not settings.agents:
        raise InvalidOption("a gateway needs agents: set PERDURE_AGENTS or pass --agents examples.counter")
    if settings.database_url.startswith("sqlite"):
        raise InvalidOption(
            "with SQLite the gateway runs in the worker's process, where what a model says can be heard: "
            "set PERDURE_GATEWAY_ADDRESS for the worker, or use perdure dev"
        )
    agents = load_agents(settings.agents)
    client = await connect(settings)
    store = await open_store(settings)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        async with serving(
            settings, settings.gateway_address or DEFAULT_ADDRESS, client, store, agents
        ) as url:
            print(f"gateway ready: {url}", flush=True)
            await stop.wait()
    finally:
        await store.close()


def main(settings: Settings) -> None:
    """Be a gateway until SIGTERM or SIGINT.

    Raises:
        InvalidOption: no agents, SQLite, or an address that it cannot, or may not, listen at.
    """
    logs.configure(settings.log_level, content=settings.log_content)
    asyncio.run(_serve(settings))
