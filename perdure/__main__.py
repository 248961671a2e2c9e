"""The ``perdure`` command, also as ``python -m perdure``.

The one module of this package that reaches up: it puts the rooms (cli, gateway, embedded,
workflows, activities, storage, worker) on the path. In a checkout they stand at its root;
installed, they live in ``perdure/_runtime``, because names like ``workflows`` belong to
others too. They come first, so that the runtime finds its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

from perdure.leaving import end_with
from perdure.loading import loading

__all__ = ["main"]


def main() -> None:
    """Run the command line; ends the process with its exit code."""
    package = Path(__file__).resolve().parent
    installed = package / "_runtime"
    sys.path.insert(0, str(installed if installed.is_dir() else package.parent))
    end_with(_run)


def _run() -> int:
    with loading():
        from cli.main import run

    return run()


if __name__ == "__main__":
    main()
