"""The docs say what is: generated parts are current, links resolve, complete examples run."""

from __future__ import annotations

import importlib.util
import re
import sqlite3
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from _pytest.mark import ParameterSet
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from activities.protocol import Record
from perdure import Agent, ToolContext
from perdure.registry import load_agents
from perdure.settings import Settings
from storage.engine import Database
from storage.migrate import upgrade
from storage.options import StoreOptions
from workflows import messages, wait_messages

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMPLETE = re.compile(r"^<!-- complete -->\n```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def examples(language: str) -> list[ParameterSet]:
    found = [(page.stem, *block) for page in PAGES for block in COMPLETE.findall(page.read_text("utf-8"))]
    return [pytest.param(code, id=stem) for stem, kind, code in found if kind == language]


def anchors_of(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", page.read_text("utf-8")), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in words}


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_generated_is_current(generate: ModuleType) -> None:
    for page, expected in generate.generated().items():
        assert page.read_text("utf-8") == expected, f"{name_of(page)}: run python docs/generate.py"


def test_every_command_and_setting_is_in_its_page(generate: ModuleType) -> None:
    page = generate.cli_page()
    assert {"## perdure dev", "## perdure sessions rewind", "## perdure db upgrade"} <= set(page.splitlines())
    table = generate.settings_table()
    assert len(table.splitlines()) == 2 + len(Settings.model_fields)
    assert "FULL survives a power cut" in table


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_resolve(page: Path) -> None:
    for target in LINK.findall(FENCED.sub("", page.read_text("utf-8"))):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{name_of(page)} links to {target}"
        assert ROOT in file.parents, f"{name_of(page)} links to {target}, which is outside of the repository"
        assert not anchor or anchor in anchors_of(file), f"{name_of(page)} links to {target}"


def test_pages_and_pictures_are_linked() -> None:
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in LINK.findall(page.read_text("utf-8"))
    }
    assert {*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "images").iterdir()} <= linked


@pytest.mark.parametrize("code", examples("python"))
def test_a_complete_example_runs(code: str) -> None:
    names: dict[str, object] = {"__name__": "example"}
    exec(compile(code, "example", "exec"), names)
    assert any(isinstance(value, Agent) or hasattr(value, "declaration") for value in names.values())


async def test_the_agent_of_the_readme_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))  # loading a file adds its folder
    [(_, code)] = COMPLETE.findall((ROOT / "README.md").read_text("utf-8"))
    file = tmp_path / "shopping.py"
    file.write_text(code, "utf-8")
    agent = load_agents([str(file)]).get("shopping")
    add_item = agent.tool("add_item")
    assert add_item is not None
    context = ToolContext(state={"items": {"milk": 1}})
    assert await add_item.call({"item": "milk", "quantity": 2}, context) == {"milk": 3}
    assert context.state.delta == {"items": {"milk": 3}}


@pytest.mark.parametrize("code", examples("sql"))
async def test_a_complete_query_runs(code: str, tmp_path: Path) -> None:
    if "->>" in code and sqlite3.sqlite_version_info < (3, 38):
        pytest.skip("this SQLite has no ->> yet")
    url = f"sqlite:///{tmp_path / 'docs.db'}"
    await upgrade(url)
    database = await Database.open(url, StoreOptions())
    try:
        for statement in filter(str.strip, code.split(";\n")):
            assert await database.read(partial(_rows, statement)) == []
    finally:
        await database.close()


async def _rows(statement: str, conn: AsyncConnection) -> Sequence[object]:
    return (await conn.execute(text(statement))).all()


@pytest.mark.parametrize(
    "record",
    [
        messages.Message,
        messages.Reply,
        messages.RewindRequest,
        messages.Ack,
        messages.CancelRequest,
        messages.EndRequest,
        messages.ArtifactRequest,
        messages.RememberRequest,
        messages.InMemory,
        messages.Status,
    ],
)
def test_every_field_of_a_message_is_documented(record: type[Record]) -> None:
    page = (ROOT / "docs" / "signals.md").read_text("utf-8")
    assert record.__name__ in page
    missing = [name for name in record.model_fields if f"`{name}`" not in page and f'"{name}"' not in page]
    assert not missing, f"docs/signals.md does not name {missing} of {record.__name__}"


@pytest.mark.parametrize(
    "record",
    [
        wait_messages.Decision,
        wait_messages.Result,
        wait_messages.Progress,
        wait_messages.Notification,
        wait_messages.Waiting,
        wait_messages.Settled,
    ],
)
def test_every_field_about_waiting_is_documented(record: type[Record]) -> None:
    page = (ROOT / "docs" / "waiting.md").read_text("utf-8")
    assert f"**{record.__name__}**" in page
    missing = [name for name in record.model_fields if f"`{name}`" not in page]
    assert not missing, f"docs/waiting.md does not name {missing} of {record.__name__}"


def test_every_table_and_column_is_documented() -> None:
    from storage.schema import metadata

    page = (ROOT / "docs" / "data-model.md").read_text("utf-8")
    for table in metadata.tables.values():
        missing = [column.name for column in table.columns if f"`{column.name}`" not in page]
        assert f"`{table.name}`" in page
        assert not missing or table.name == "epoch_floor", f"docs/data-model.md: {table.name} has {missing}"
