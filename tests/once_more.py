"""What has failed in a whole run is run once more, alone and in a fresh process.

As CPython's own tests do it (``regrtest --rerun``, github.com/python/cpython/pull/108966). Thousands of
tests share a machine with the servers that they start, stall and kill, and one of them may meet what it does
not mean. That is a defect, of the test or of Perdure, and is told with all that the first run has printed;
but it holds up nobody's work. With STRICT set, it does. More than a few that fail are no accident.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

__all__ = ["main"]

MOST = 3
"""Tests that may have failed in the run before."""
FAILED = Path(".pytest_cache/v/cache/lastfailed")
"""Where pytest leaves their names; the run before began with an empty cache."""


def main() -> int:
    """Run them again, after a run that ended with pytest's 1: tests have failed.

    Returns:
        pytest's exit code; 1 where too many have failed, or STRICT is set in the environment.
    """
    failed = sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []
    if not 0 < len(failed) <= MOST:
        return 1
    print("== pytest, once more and alone:", *failed, sep="\n   ", flush=True)
    again = subprocess.run([sys.executable, "-m", "pytest", *failed], check=False).returncode
    if again != 0:
        return again
    for name in failed:
        print(f"FAILURE then SUCCESS: {name}")
    print("A test that fails once in a while is a defect: what it met is above. STRICT=1 makes it count.")
    return int(bool(os.environ.get("STRICT")))


if __name__ == "__main__":
    sys.exit(main())
