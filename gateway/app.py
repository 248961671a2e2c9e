"""The gateway: an ASGI app over one Runner."""

from __future__ import annotations

from fastapi import Depends, FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from activities.mcp_servers import McpServers
from gateway.access import Access
from gateway.guards import Authenticate, BodyLimit, HostCheck, SecurityHeaders
from gateway.liveness import install_liveness
from gateway.openapi import install_openapi
from gateway.problems import install_problems
from gateway.routes import ROUTERS
from gateway.runner import Runner
from gateway.services import GatewayOptions, Services, authorize
from perdure import __version__
from perdure.registry import Registry

__all__ = ["PUBLIC", "create_app"]

PUBLIC = ("/openapi.json", "/health", "/healthz", "/livez")
"""What is answered without a token: it tells nothing of anybody's."""

_EXPOSED = ["etag", "location", "content-range", "accept-ranges", "retry-after", "preference-applied"]


def create_app(
    runner: Runner,
    access: Access,
    *,
    agents: Registry,
    options: GatewayOptions | None = None,
    servers: McpServers | None = None,
) -> FastAPI:
    """The gateway as an ASGI app.

    Args:
        runner: what the routes work with; the caller opens and closes it.
        access: who may ask.
        agents: the agents that workers serve: what ``/list-apps`` lists.
        options: limits, and whose pages may ask.
        servers: what the worker in this process knows of the agents' MCP servers, if there is one.
    """
    chosen = options or GatewayOptions()
    app = FastAPI(
        title="Perdure",
        version=__version__,
        summary="Durable agent sessions over HTTP.",
        dependencies=[Depends(authorize)],
        middleware=_guards(chosen, access),
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    known = servers or McpServers()
    found = Services(runner=runner, access=access, agents=agents, options=chosen, servers=known)
    app.state.services = found
    app.state.before_exit = found.streams.close
    install_problems(app)
    for router in ROUTERS:
        app.include_router(router)
    install_openapi(app)
    install_liveness(app, runner)
    return app


def _guards(options: GatewayOptions, access: Access) -> list[Middleware]:
    """From the outside in."""
    guards = [
        Middleware(SecurityHeaders),
        Middleware(
            HostCheck, hosts=options.hosts, origins=options.origins, check_origin=options.check_origin
        ),
    ]
    if options.origins:
        guards.append(
            Middleware(
                CORSMiddleware,
                allow_origins=list(options.origins),
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=_EXPOSED,
            )
        )
    guards.append(Middleware(Authenticate, access=access, public=PUBLIC))
    guards.append(
        Middleware(
            BodyLimit,
            limit=options.body_limit,
            upload_limit=options.upload_limit,
            patience=options.body_patience,
        )
    )
    return guards
