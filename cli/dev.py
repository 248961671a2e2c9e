"""``perdure dev``: everything on one machine; ``perdure worker``: the production process."""

from __future__ import annotations

import asyncio
import http.client
import signal
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.common import DEFAULT_DATA, DataOption, NotReachable, connect, find_settings, without_password
from perdure.errors import InvalidOption
from perdure.loading import loading
from perdure.settings import Settings

if TYPE_CHECKING:
    from embedded.stack import Stack

__all__ = ["dev", "worker"]

PROBE_PATIENCE = 20.0
"""Seconds: longer than the worker gives what it asks."""

SpecArgument = Annotated[
    list[str], typer.Argument(metavar="SPEC...", help="Modules or files that define agents.")
]


def dev(
    specs: SpecArgument,
    data: DataOption = DEFAULT_DATA,
    port: Annotated[int | None, typer.Option(help="Temporal's port; default: as last time, or 7233.")] = None,
    ui_port: Annotated[int | None, typer.Option(help="The Temporal UI's port; default: 8233.")] = None,
    ui: Annotated[bool, typer.Option("--ui/--no-ui", help="Run the Temporal UI.")] = True,
    gateway_port: Annotated[
        int | None, typer.Option(help="The HTTP gateway's port; default: as last time, or 8000.")
    ] = None,
) -> None:
    """Run agents on this machine: Temporal with its UI, a worker, the HTTP gateway, SQLite, a folder.

    What dies is started again. Ctrl-C stops it; twice stops it at once. The next run on the same
    folder goes on where this one was.
    """
    with loading():
        from cli.quiet import quiet
        from embedded.stack import Stack
        from perdure.registry import load_agents

    quiet()
    agents = list(load_agents(specs))
    stack = Stack(
        specs,
        data=data,
        names=agents,
        port=port,
        ui_port=ui_port,
        ui=ui,
        gateway_port=gateway_port,
        say=_say,
    )
    asyncio.run(_run(stack, agents, data))


def worker(
    agents: Annotated[
        list[str] | None, typer.Option(help="A module or file that defines agents; may be given again.")
    ] = None,
    task_queue: Annotated[
        str | None, typer.Option(help="The task queue to poll, instead of PERDURE_TASK_QUEUE's.")
    ] = None,
    tools_only: Annotated[
        bool, typer.Option("--tools-only", help="Run only the tools that name this task queue; no sessions.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="Only tell whether the worker can serve, by PERDURE_HEALTH_ADDRESS; without that, "
            "whether a worker of this host polls.",
        ),
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(
            help="With --tools-only: the folder of a perdure dev to work beside, on the same Temporal and "
            "database; settings given by hand go first."
        ),
    ] = None,
) -> None:
    """Run a worker: the production process. Its settings are the PERDURE_* variables.

    SIGTERM lets running activities finish, for as long as PERDURE_GRACEFUL_SHUTDOWN says, and hands
    back what is left; a second one ends it at once.
    """
    given = {"agents": tuple(agents or ()), "task_queue": task_queue, "tools_only": tools_only}
    if data is not None and not tools_only:
        raise InvalidOption("perdure dev has a worker for its sessions; --data goes with --tools-only")
    found = Settings() if data is None else find_settings(data)
    settings = found.model_copy(update={name: value for name, value in given.items() if value})
    if check:
        asyncio.run(_check(settings))
        return
    with loading():
        import worker as process

    process.main(settings)


async def _check(settings: Settings) -> None:
    if settings.health_address is not None:
        _say(_probe(settings.health_address))
        return
    from embedded.pollers import polls

    host = socket.gethostname()
    if not await polls(await connect(settings), settings.task_queue, host=host):
        raise NotReachable(f"no worker of {host} polls the task queue {settings.task_queue}")
    _say(f"a worker of {host} polls the task queue {settings.task_queue}")


def _probe(address: str) -> str:
    """What ``/healthz`` says.

    Raises:
        NotReachable: the worker is not ready, or does not answer.
    """
    host, _, port = address.rpartition(":")
    here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)
    connection = http.client.HTTPConnection(f"{here}:{port}", timeout=PROBE_PATIENCE)
    try:
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        said = response.read().decode("utf-8", "replace")
    except OSError as error:
        raise NotReachable(f"no worker answers at http://{here}:{port}/healthz: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise NotReachable(f"the worker at {here}:{port} is not ready: {said}")
    return f"the worker at {here}:{port} is ready"


async def _run(stack: Stack, agents: list[str], data: Path) -> None:
    stop, stop_now = asyncio.Event(), asyncio.Event()

    def asked_to_stop() -> None:
        (stop_now if stop.is_set() else stop).set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_stop)
    _say("starting Temporal and a worker …")
    if await _unless(stop, stack.start()):
        _introduce(stack, agents, data)
        await _unless(stop, stack.watch())
    _say("stopping; Ctrl-C again stops it at once")
    if not await _unless(stop_now, stack.stop()):
        await stack.kill()
    _say("stopped")


async def _unless(event: asyncio.Event, work: Coroutine[object, object, None]) -> bool:
    """Do the work, or cancel it when the event is set first; whether it was done."""
    task, waiter = asyncio.ensure_future(work), asyncio.ensure_future(event.wait())
    await asyncio.wait([task, waiter], return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if not task.done():
        task.cancel()
        await asyncio.wait([task])
    if task.cancelled():
        return False
    task.result()
    return True


def _introduce(stack: Stack, agents: list[str], data: Path) -> None:
    settings = stack.settings
    model = (
        f"a stand-in at {settings.model_base_url}; it answers by rule (GEMINI_API_KEY brings Gemini itself)"
    )
    lines = {
        "agents": ", ".join(agents),
        "Temporal": f"{settings.temporal_address}  namespace {settings.temporal_namespace}",
        "Temporal UI": stack.temporal.ui_url or "off",
        "gateway": f"http://{settings.gateway_address}{_tokens(settings)}",
        "task queue": settings.task_queue,
        "database": without_password(settings.database_url),
        "artifacts": settings.artifacts_url,
        "model": model if stack.standin is not None else settings.model_base_url or "Gemini",
        "logs": str(data / "logs"),
    }
    for name, value in lines.items():
        _say(f"  {name:<12} {value}")
    where = "" if data == DEFAULT_DATA else f" --data {data}"
    _say(f"ready. Talk to it with: perdure chat {agents[0]}{where}   Stop it with Ctrl-C.")


def _tokens(settings: Settings) -> str:
    return "  for this machine, without a token" if settings.gateway_auth == "none" else "  with a token"


def _say(line: str) -> None:
    print(line, flush=True)
