"""Node's packages for the TypeScript in the docs: installed once, in ``.venv-node`` at the root.

They are installed again when what is to be there changes. ``python -m tests.typescript.environment``
does it and prints the folder.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

__all__ = ["Absent", "compiled", "ensure"]

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / ".venv-node"
LISTS = ("package.json", "package-lock.json")
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ERR_SOCKET_TIMEOUT")
"""How npm says that it found no registry, as opposed to what it should have found there."""


class Absent(Exception):
    """There is no way to have the packages on this machine; the message says why."""


def ensure() -> Path:
    """The folder of the packages, ``node_modules``, installed first where it is missing or out of date.

    Raises:
        Absent: there is no node, one that is too old, or no npm; or no registry can be reached.
        RuntimeError: the installation failed; the message has what npm said.
    """
    version = _node()
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Several test processes may want it at once.
        wanted = hashlib.sha256(b"".join((HERE / name).read_bytes() for name in LISTS)).hexdigest()
        stamp = FOLDER / "installed"
        if not stamp.is_file() or stamp.read_text() != f"{version} {wanted}\n":
            stamp.unlink(missing_ok=True)
            _install()
            stamp.write_text(f"{version} {wanted}\n")
    return FOLDER / "node_modules"


def compiled(story: str, folder: Path) -> Path:
    """Check the types of a module, which may import ``./steps.js``, and compile it.

    Args:
        story: the module's source.
        folder: an empty one, where it is put.

    Returns:
        What node runs.

    Raises:
        Absent, RuntimeError: as for :func:`ensure`.
        AssertionError: its types are wrong; the message has what the compiler said.
    """
    (folder / "node_modules").symlink_to(ensure())
    for name in ("package.json", "tsconfig.json", "steps.ts"):
        shutil.copy(HERE / name, folder)
    (folder / "story.ts").write_text(story, "utf-8")
    compiler = folder / "node_modules" / ".bin" / "tsc"
    done = subprocess.run([compiler, "-p", folder], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{story}"
    return folder / "out" / "story.js"


def _node() -> str:
    """The version of node."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise Absent(f"there is no {program} command")
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if tuple(map(int, said.removeprefix("v").split(".")[:2])) < (20, 3):
        raise Absent(f"node is {said}, and @temporalio/client needs 20.3 or newer")
    return said


def _install() -> None:
    for name in LISTS:
        shutil.copy(HERE / name, FOLDER)
    quick = ["--ignore-scripts", "--no-audit", "--no-fund", "--fetch-timeout=30000", "--fetch-retries=1"]
    command = ["npm", "ci", "--loglevel=error", *quick]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        if any(f" code {code}" in done.stderr for code in UNREACHABLE):
            raise Absent(f"npm reaches no registry:\n{done.stderr}")
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    print(ensure())
