"""A person at a terminal reads what a command says; what libraries log of their retries would drown it."""

from __future__ import annotations

import logging
import os

from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

__all__ = ["quiet"]


def quiet() -> None:
    """Let only errors of the Temporal SDK through, and none of asyncio's remarks on them.

    A command tells by itself what failed and what it does about it. PERDURE_LOG_LEVEL=DEBUG
    leaves everything as it is.
    """
    if os.environ.get("PERDURE_LOG_LEVEL", "").upper() == "DEBUG":
        return
    errors = LoggingConfig(filter=TelemetryFilter(core_level="ERROR", other_level="ERROR"))
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=errors)), error_if_already_set=False)
    # The SDK fails futures that nobody else has seen when a call fails; asyncio reports each of them.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
