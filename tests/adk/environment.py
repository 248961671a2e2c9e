"""google-adk's own environment: it wants another google-genai than Perdure is tested with.

It is made once, in ``.venv-adk`` at the root of the checkout, and again when what it is to
hold changes. ``python -m tests.adk.environment`` makes it and prints its Python.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["ROOT", "command_environment", "ensure"]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".venv-adk"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
CONSTRAINTS = Path(__file__).with_name("constraints-adk.txt")
STAMP = FOLDER / ".installed"


def ensure() -> Path:
    """The environment's Python, installed first where it is missing or out of date.

    Of several processes that ask for it at once, one makes it and the others wait.

    Raises:
        RuntimeError: the installation failed; the message has what pip said.
    """
    python = FOLDER / "bin" / "python"
    wanted = _wanted()
    with REQUIREMENTS.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if STAMP.is_file() and STAMP.read_text() == wanted:
            return python
        _run(sys.executable, "-m", "venv", "--clear", str(FOLDER))
        pip = (str(python), "-m", "pip", "-q", "--disable-pip-version-check", "install", "--no-compile")
        _run(*pip, "-c", str(CONSTRAINTS), "-r", str(REQUIREMENTS))
        STAMP.write_text(wanted)
        return python


def command_environment(**more: str) -> dict[str, str]:
    """The environment variables for a command in there: ours would lead it to our packages and settings."""
    ours = ("PYTHON", "PYTEST_", "PERDURE_", "MYPY", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | more


def _wanted() -> str:
    digest = hashlib.sha256(REQUIREMENTS.read_bytes() + CONSTRAINTS.read_bytes()).hexdigest()
    return f"{sys.version}\n{digest}\n"


def _run(*command: str) -> None:
    done = subprocess.run(
        command, cwd=ROOT, env=command_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    print(ensure())
