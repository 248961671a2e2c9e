"""The routes of the gateway, a module a kind. Those with longer paths first, where two would match."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter

from gateway.routes import (
    adk,
    adk_artifacts,
    adk_dev,
    adk_run,
    adk_sse,
    events,
    files,
    manage,
    memory,
    messages,
    schedules,
    sessions,
    travel,
    users,
    waiting,
)

__all__ = ["ROUTERS"]

ROUTERS: Sequence[APIRouter] = (
    sessions.router,
    messages.router,
    events.router,
    manage.router,
    waiting.router,
    memory.router,
    users.router,
    schedules.router,
    travel.router,
    files.router,
    adk.router,
    adk_run.router,
    adk_sse.router,
    adk_artifacts.router,
    adk_dev.router,
)
