"""``perdure serve``: the gateway as a process of its own."""

from __future__ import annotations

from typing import Annotated

import typer

from perdure.loading import loading
from perdure.settings import Settings

__all__ = ["serve"]


def serve(
    address: Annotated[
        str | None,
        typer.Option(help="host:port to listen at; default: PERDURE_GATEWAY_ADDRESS, or 127.0.0.1:8000."),
    ] = None,
    agents: Annotated[
        list[str] | None, typer.Option(help="A module or file that defines agents; may be given again.")
    ] = None,
) -> None:
    """Run the HTTP gateway: REST and streams over the sessions. Its settings are the PERDURE_* variables.

    Its tokens come from perdure keys, or are JWTs. With SQLite it runs in the worker instead, which
    perdure dev starts: give the worker PERDURE_GATEWAY_ADDRESS.
    """
    with loading():
        from gateway import serving

    update: dict[str, object] = {}
    if address is not None:
        update["gateway_address"] = address
    if agents:
        update["agents"] = tuple(agents)
    serving.main(Settings().model_copy(update=update))
