"""What `pip install perdure` gives: one name, beside another package's `workflows`, and a demo that runs."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(900)

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CARRIED: dict[str, str] = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
ROOMS = sorted(name for name in CARRIED if not name.endswith(".py"))


def run(*command: str | Path, cwd: Path, timeout: float = 600) -> str:
    """Run a command with no settings of ours; what it printed."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PERDURE_", "PYTHON")) and name not in ("GEMINI_API_KEY", "GOOGLE_API_KEY")
    }
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=timeout
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, cwd=ROOT)
    (built,) = folder.glob("perdure-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with nothing but the wheel and llama-index-workflows."""
    environment = tmp_path_factory.mktemp("clean") / "venv"
    run(sys.executable, "-m", "venv", environment, cwd=ROOT)
    python = environment / "bin" / "python"
    pip = (python, "-m", "pip", "-qq", "--disable-pip-version-check", "install", "--no-compile")
    run(*pip, "-c", ROOT / "constraints.txt", f"{wheel}[dev]", "llama-index-workflows", cwd=ROOT)
    return python


def test_the_wheel_adds_one_name(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"perdure"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    assert "perdure/py.typed" in names


@pytest.mark.parametrize("room", ROOMS)
def test_the_wheel_carries_every_file_of_a_room(wheel: Path, room: str) -> None:
    files = [path for path in (ROOT / room).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert files
    wanted = {f"perdure/_runtime/{path.relative_to(ROOT)}" for path in files}
    assert wanted <= set(zipfile.ZipFile(wheel).namelist())


def test_workflows_is_still_the_other_packages(python: Path, tmp_path: Path) -> None:
    code = "import perdure, workflows; from workflows import Workflow; print(workflows.__file__)"
    found = Path(run(python, "-c", code, cwd=tmp_path).strip())
    assert found.parent.name == "workflows"
    assert found.parent.parent.name == "site-packages"


def test_no_room_of_ours_is_a_top_level_name(python: Path, tmp_path: Path) -> None:
    ours = [*sorted(set(ROOMS) - {"workflows"}), "worker"]
    code = f"from importlib.util import find_spec; print([name for name in {ours!r} if find_spec(name)])"
    assert run(python, "-c", code, cwd=tmp_path) == "[]\n"


def test_the_command_and_the_module_are_the_same(python: Path, tmp_path: Path) -> None:
    said = run(python.with_name("perdure"), "--version", cwd=tmp_path)
    assert said == run(python, "-m", "perdure", "--version", cwd=tmp_path)
    assert said.startswith("perdure 0.")


def test_the_demo_runs_from_anywhere(python: Path, tmp_path: Path) -> None:
    said = run(python.with_name("perdure"), "demo", cwd=tmp_path)
    assert "All of it is true" in said
    assert list(tmp_path.iterdir()) == []
