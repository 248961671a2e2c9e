"""``/healthz`` and ``/livez`` of the gateway: can it serve, and is it there; ``/health`` is google-adk's."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.health import Checks, NotReady
from gateway.runner import Runner

__all__ = ["install_liveness"]


def install_liveness(app: FastAPI, runner: Runner) -> None:
    """Answer whoever probes, without a token; what is down is named, and why is for the log."""

    async def temporal() -> None:
        if not await runner.client.service_client.check_health():
            raise NotReady("Temporal does not serve")

    checks = Checks(
        {
            "temporal": temporal,
            "database": lambda: runner.store.ping_database(),
            "artifacts": lambda: runner.store.ping_artifacts(),
        }
    )

    async def healthz(_: Request) -> Response:
        down = sorted(await checks.down())
        return JSONResponse({"ready": not down, "down": down}, status_code=503 if down else 200)

    async def livez(_: Request) -> Response:
        return JSONResponse({"alive": True})

    async def health(_: Request) -> Response:
        return JSONResponse({"status": "ok"})  # as google-adk's server says it

    app.router.routes += [Route("/healthz", healthz), Route("/livez", livez), Route("/health", health)]
