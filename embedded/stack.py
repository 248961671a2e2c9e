"""All that ``perdure dev`` runs on one folder: Temporal and its UI, a worker, and with no key the stand-in.

    data/
      dev.json           where things are; the next run uses the same ports
      dev.lock           held by the one run that owns the folder
      perdure.db         sessions (SQLite)
      artifacts/
      temporal/          Temporal's own database
      logs/              temporal.log, worker.log, standin.log
      run/               pid files

Nothing here is needed to survive: kill it at any moment, and the next run on the folder
ends what was left running and goes on.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from pydantic import SecretStr
from temporalio.service import RPCError

from embedded import devfile
from embedded.errors import AlreadyRunning, DidNotStart
from embedded.pollers import polls
from embedded.ports import HOST, Claims, free_port
from embedded.process import Process, end_leftover
from embedded.program import Program
from embedded.supervisor import Service, Supervisor
from embedded.temporal import TemporalServer
from perdure.settings import Settings
from storage.sessions import SessionStore

__all__ = ["Stack", "environment_of"]

_DEFAULT_PORT, _DEFAULT_UI_PORT, _DEFAULT_GATEWAY_PORT = 7233, 8233, 8000


class Stack:
    """Everything a session needs, running on one folder.

    >>> async with Stack(["examples/counter.py"], data=Path(".perdure")) as stack:  # doctest: +SKIP
    ...     runner = Runner(await stack.temporal.connect(), ...)

    Args:
        agents: module paths or files that define agents.
        names: what these agents are called, for who looks it up in dev.json.
        data: the folder; made if missing.
        port: Temporal's port; None means the one of the last run, else 7233, else any free one; 0 means
            the one of the last run, else any free one.
        ui_port: of Temporal's UI; likewise, with 8233.
        ui: whether Temporal's UI runs.
        gateway_port: of the HTTP gateway, in the worker; likewise, with 8000.
        settings: what to keep of the surroundings; None reads the environment and ``.env``. Its
            database and artifacts are used if they were set, else those in the folder.
        dynamic_config: more of Temporal's dynamic configuration, for tests.
        say: takes the lines that tell of ends and restarts.
    """

    def __init__(
        self,
        agents: Sequence[str],
        *,
        data: Path,
        names: Sequence[str] = (),
        port: int | None = None,
        ui_port: int | None = None,
        ui: bool = True,
        gateway_port: int | None = None,
        settings: Settings | None = None,
        dynamic_config: Mapping[str, object] | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.data = data.absolute()
        self._agents, self._names = tuple(agents), tuple(names)
        self._port, self._ui_port, self._ui = port, ui_port, ui
        self._gateway_port = gateway_port
        self._claims = Claims()
        self._given = settings or Settings()
        self._dynamic_config = dynamic_config
        self._say = say
        self._lock: IO[str] | None = None
        self._supervisor: Supervisor | None = None

    async def start(self) -> None:
        """Start all of it; returns when a worker polls.

        Raises:
            AlreadyRunning: another run owns the folder.
            MissingProgram: ``temporal`` is not installed.
            DidNotStart: a port that was named is taken, or a part ended or was not ready in time; the
                message ends with its log.
        """
        self._own_folder()
        try:
            # First of all, for they hold the ports; and the worker before what it works with.
            for name in ("run/worker.pid", "run/standin.pid", "temporal/temporal.pid"):
                await asyncio.to_thread(end_leftover, self.data / name)
            self._plan()
            await self._migrate()
            stages: list[list[Service]] = [[self.temporal], [*self._programs()]]
            self._supervisor = Supervisor(stages, say=self._say)
            await self._supervisor.start()
        except BaseException:
            self._disown_folder()
            raise

    async def watch(self) -> None:
        """Run until :meth:`stop`; raises what is a defect of the supervision."""
        assert self._supervisor is not None, "set by start"
        await self._supervisor.watch()

    async def stop(self) -> None:
        """Stop the worker, letting its activities finish, then the rest. Safe to call twice."""
        if self._supervisor is not None:
            await self._supervisor.stop()
        self._disown_folder()

    async def kill(self) -> None:
        """End all of it with SIGKILL, now. Nothing is lost: the next run goes on."""
        if self._supervisor is not None:
            await self._supervisor.leave()
            for program in self._programs():
                await program.kill()
            await self.temporal.kill()
        self._disown_folder()

    async def __aenter__(self) -> Stack:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _own_folder(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        (self.data / ".gitignore").write_text("*\n")
        # The system lets go of the lock when we die, however we die; nobody has to clean up.
        lock = (self.data / "dev.lock").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise AlreadyRunning(
                f"another perdure dev runs on {self.data}; end it, or give this one a folder with --data"
            ) from None
        self._lock = lock

    def _disown_folder(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self._claims.release()

    def _plan(self) -> None:
        """Choose ports, and put together what will run."""
        last = devfile.read(self.data) or devfile.DevFile()
        port = self._choose("Temporal", self._port, last.temporal_port, _DEFAULT_PORT)
        ui_port = (
            self._choose("Temporal's UI", self._ui_port, last.ui_port, _DEFAULT_UI_PORT) if self._ui else None
        )
        # An empty variable, as a copied .env.example has it, is no key either.
        standin = not self._given.gemini_api_key and self._given.model_base_url is None
        self.model_port = self._choose("the stand-in", 0, last.model_port, None) if standin else None
        gateway_port = self._choose(
            "the gateway", self._gateway_port, last.gateway_port, _DEFAULT_GATEWAY_PORT
        )
        self.settings = self._settings(port, gateway_port)
        self.temporal = TemporalServer(
            self.data / "temporal",
            port=port,
            ui_port=ui_port,
            namespace=self.settings.temporal_namespace,
            dynamic_config=self._dynamic_config,
            log=self.data / "logs" / "temporal.log",
        )
        self.standin = self._standin(self.model_port) if self.model_port is not None else None
        self.worker = self._worker()
        found = (
            "database_url",
            "artifacts_url",
            "temporal_address",
            "temporal_namespace",
            "task_queue",
            "agents",
        )
        devfile.write(
            self.data,
            devfile.DevFile(
                temporal_port=port,
                ui_port=ui_port,
                gateway_port=gateway_port,
                model_port=self.model_port,
                settings={name: getattr(self.settings, name) for name in found},
                serves=self._names,
            ),
        )

    def _choose(self, what: str, wanted: int | None, last: int | None, default: int | None) -> int:
        if wanted:
            if not self._claims.take(wanted):
                raise DidNotStart(
                    f"{what} needs port {wanted} of {HOST}, and it is taken; name another, or none at all"
                )
            return wanted
        preferred = last or (default if wanted is None else None)
        port = free_port(preferred, take=self._claims.take)
        if preferred and port != preferred:
            whose = " of the last run" if last else ""
            self._say(f"port {preferred}{whose} is taken; using {port} for {what}")
        return port

    def _settings(self, port: int, gateway_port: int) -> Settings:
        given = self._given
        update: dict[str, object] = {"temporal_address": f"{HOST}:{port}", "agents": self._agents}
        if "database_url" not in given.model_fields_set:
            update["database_url"] = f"sqlite:///{self.data / 'perdure.db'}"
        if "artifacts_url" not in given.model_fields_set:
            update["artifacts_url"] = f"file://{self.data / 'artifacts'}"
        if given.gateway_address is None:
            update["gateway_address"] = f"{HOST}:{gateway_port}"
            if "gateway_auth" not in given.model_fields_set:
                update["gateway_auth"] = "none"
        if self.model_port is not None:
            update["model_base_url"] = f"http://{HOST}:{self.model_port}"
            update["gemini_api_key"] = SecretStr("stand-in")
        return given.model_copy(update=update)

    def _programs(self) -> list[Program]:
        return [program for program in (self.standin, self.worker) if program is not None]

    def _worker(self) -> Program:
        return self._program(
            "worker",
            "the worker",
            [sys.executable, "-m", "perdure", "worker"],
            ready=self._worker_polls,
            # Its own limit on running activities comes first; ours is for a worker that hangs.
            grace=self.settings.graceful_shutdown + 5,
        )

    def _standin(self, port: int) -> Program:
        command = [sys.executable, "-m", "perdure.testing.gemini", "--port", str(port)]
        return self._program("standin", "the Gemini stand-in", command, ready=self._standin_answers, grace=5)

    def _program(
        self,
        key: str,
        name: str,
        command: Sequence[str],
        *,
        ready: Callable[[int], Awaitable[str | None]],
        grace: float,
    ) -> Program:
        pid_file = self.data / "run" / f"{key}.pid"
        process = Process(
            name, command, log=self.data / "logs" / f"{key}.log", env=self._environment(), pid_file=pid_file
        )
        return Program(process, pid_file=pid_file, ready=ready, grace=grace)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, **environment_of(self.settings), "PYTHONUNBUFFERED": "1"}

    async def _migrate(self) -> None:
        store = await SessionStore.open(self.settings.database_url, self.settings.artifacts_url, migrate=True)
        await store.close()

    async def _worker_polls(self, pid: int) -> str | None:
        """None if the worker with this pid polls our task queue, else what is missing."""
        try:
            found = await polls(
                await self.temporal.connect(), self.settings.task_queue, host=socket.gethostname(), pid=pid
            )
        except (RuntimeError, RPCError) as error:
            return f"Temporal does not answer: {error}"
        return None if found else f"it does not poll the task queue {self.settings.task_queue} yet"

    async def _standin_answers(self, pid: int) -> str | None:
        assert self.model_port is not None, "there is a stand-in"
        try:
            _, writer = await asyncio.open_connection(HOST, self.model_port)
        except OSError as error:
            return str(error)
        writer.close()
        await writer.wait_closed()
        return None


def environment_of(settings: Settings) -> dict[str, str]:
    """The environment variables that give another process these settings."""
    environment = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if value is None:
            continue
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        text = value if isinstance(value, str) else json.dumps(value)
        environment[f"PERDURE_{name.upper()}"] = text
    return environment
