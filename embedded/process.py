"""One program run as a process of its own: started with a log file, stopped, killed, found again.

A pid alone names nobody: it is reused. So a pid file holds the pid *and* the process's
start time, and a leftover of a killed parent is ended only if both fit.

The processes get a session of their own, so that Ctrl-C in a terminal reaches only the
parent, which then stops them in the right order.

Each run has a thread that waits for its end. So an end is a signal, not something to poll
for, in whichever event loop somebody waits, and no slot of asyncio's small thread pool is
held for as long as a server runs.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

import psutil

from embedded.errors import DidNotStart, MissingProgram

__all__ = ["Process", "end_leftover"]

_TAIL_BYTES = 8192
_LOG_BYTES = 16 * 2**20
_GONE_WITHIN = 30.0
_POLL = 0.01
_READY_POLL = 0.05


class Process:
    """A program with its log, one run at a time.

    Args:
        name: what to call it in messages.
        command: the program and its arguments.
        log: the file its output is appended to; folders are made.
        env: the whole environment; None means ours.
        cwd: where it runs; None means where we do.
        user: uid and gid to run as; only root may give it.
        pid_file: where to write who it is, so that a later run can end it if we are killed.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: tuple[int, int] | None = None,
        pid_file: Path | None = None,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self._env = env
        self._cwd = cwd
        self._user = user
        self._pid_file = pid_file
        self._popen: subprocess.Popen[bytes] | None = None
        self._ended: Future[int] = Future()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._popen is not None and not self._ended.done()

    @property
    def pid(self) -> int | None:
        """The process id, or None if it does not run."""
        return self._popen.pid if self._popen is not None and self.running else None

    @property
    def returncode(self) -> int | None:
        """The exit code of the last run (negative: the signal that ended it), or None while it runs."""
        return self._ended.result() if self._ended.done() else None

    def start(self) -> None:
        """Start it. Says nothing of when it is ready.

        Raises:
            DidNotStart: it runs already, or the system refused to start it.
            MissingProgram: there is no such program.
        """
        if self.running:
            raise DidNotStart(f"{self.name} runs already, as process {self.pid}")
        try:
            self._popen = self._spawn()
        except FileNotFoundError as error:
            raise MissingProgram(f"{self.name}: {error.filename} does not exist") from error
        except OSError as error:
            raise DidNotStart(f"{self.name}: {self.command[0]} cannot be started: {error}") from error
        self._ended = Future()
        threading.Thread(
            target=_wait_for, args=(self._popen, self._ended), name=f"end of {self.name}", daemon=True
        ).start()
        if self._pid_file is not None:
            _write_pid_file(self._pid_file, self._popen.pid)

    async def wait(self, timeout: float | None = None) -> int | None:  # noqa: ASYNC109 - None tells of it
        """Wait for its end, at most `timeout` seconds; the exit code, or None if it still runs."""
        await asyncio.wait([asyncio.wrap_future(self._ended)], timeout=timeout)
        return self.returncode

    async def stop(self, *, grace: float = 10, how: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end and wait; kill it with its children after `grace` seconds. Safe to call twice."""
        if self._popen is not None and self.running:
            self._popen.send_signal(how)
            if await self.wait(grace) is None:
                await self.kill()
        self._forget()

    async def kill(self) -> None:
        """End it and all its children with SIGKILL, now. Safe to call twice."""
        if self._popen is not None and self.running:
            await asyncio.to_thread(_kill_tree, self._popen.pid)
            await self.wait()
        self._forget()

    def tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            text = file.read().decode("utf-8", "replace")
        return "\n".join(text.splitlines()[-lines:])

    async def until_ready(self, check: Callable[[], Awaitable[str | None]], *, within: float) -> None:
        """Return once `check` gives None; until then it says what is missing.

        It is asked a last time behind the end of the time: a machine that stood still must not make late
        what is ready.

        Raises:
            DidNotStart: the process ended, or was not ready `within` seconds; with the tail of its log.
        """
        deadline, late = time.monotonic() + within, False
        while (missing := await check()) is not None and self.running:
            if late:
                raise self._not_started(f"was not ready in {within:g} s: {missing}")
            late = time.monotonic() > deadline
            await self.wait(_READY_POLL)
        if not self.running:  # even if the check passed: then somebody else answered it
            raise self._not_started(f"ended with code {self.returncode}")

    def _not_started(self, why: str) -> DidNotStart:
        return DidNotStart(f"{self.name} {why}; the end of its log {self.log}:\n{self.tail() or '(empty)'}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_name(self.log.name + ".old"))
        user, group = self._user or (None, None)
        with self.log.open("ab") as log:
            return subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                user=user,
                group=group,
                extra_groups=[] if self._user else None,
                start_new_session=True,
            )

    def _forget(self) -> None:
        if self._pid_file is not None:
            self._pid_file.unlink(missing_ok=True)


def end_leftover(pid_file: Path, *, grace: float = 5) -> int | None:
    """End the process that a pid file names, if it is still that very process; its pid if one was ended."""
    try:
        written = json.loads(pid_file.read_text())
        pid, started = int(written["pid"]), float(written["started"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):  # cut short by the crash it is there for: it names nobody
        pid_file.unlink(missing_ok=True)
        return None
    ended = None
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - started) < 1 and process.status() != psutil.STATUS_ZOMBIE:
            process.terminate()
            _, alive = psutil.wait_procs([process], timeout=grace)
            if alive:
                _kill_tree(pid)
            ended = pid
    except psutil.NoSuchProcess:
        ended = None
    pid_file.unlink(missing_ok=True)
    return ended


def _wait_for(popen: subprocess.Popen[bytes], ended: Future[int]) -> None:
    ended.set_result(popen.wait())


def _write_pid_file(path: Path, pid: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        started = psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:  # it ended at once; the caller sees that when it waits for it
        return
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps({"pid": pid, "started": started}))
    draft.replace(path)


def _kill_tree(pid: int) -> None:
    try:
        root = psutil.Process(pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    # They must have ended before their files are used again. Whoever inherits the children may be
    # slow to reap them, so a zombie counts as ended.
    deadline = time.monotonic() + _GONE_WITHIN
    while any(map(_runs, family)) and time.monotonic() < deadline:
        time.sleep(_POLL)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
