"""The `perdure` command over a real database: what it prints, and that what goes wrong is one line."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import worker
from cli import cluster, conversation, render
from cli.common import session_key, without_password
from embedded import devfile
from perdure.errors import InvalidOption
from perdure.settings import Settings
from perdure.types import Event, JsonObject, SessionKey
from tests.unit.command import Run, Said, dev_folder

KEY = SessionKey(app="counter", user_id="ada", session_id="one/two")
ID = "counter/ada/one%2Ftwo"


@pytest.fixture
async def data(tmp_path: Path) -> Path:
    """A folder as `perdure dev` leaves it, with one session: two turns, the second one rewound."""
    folder = tmp_path / ".perdure"
    folder.mkdir()
    store = await dev_folder(folder)
    await store.create(KEY)
    for number in (1, 2):
        await store.append(KEY, event(number, "user", "user", {"text": f"Add {number}"}))
        call = {"functionCall": {"name": "add", "args": {"amount": number}}}
        await store.append(KEY, event(number, "m1", "counter", call))
        result = {"functionResponse": {"name": "add", "response": {"sum": number}}}
        await store.append(KEY, event(number, "t1.0", "counter", result, state_delta={"sum": number}))
        await store.append(KEY, event(number, "m2", "counter", {"text": f"The sum is {number}."}))
    version = await store.stage_artifact(KEY, "report.txt", b"sum: 2", "text/plain", event_id="3:artifact")
    saved = Event(id="3:artifact", invocation_id="3", author="user", artifact_delta={"report.txt": version})
    await store.append(KEY, saved)
    await store.rewind(KEY, before="2", request_id="back")
    await store.rewind(KEY, before="back", request_id="forth")
    await store.rewind(KEY, before="2", request_id="again")
    await store.close()
    return folder


def event(invocation: int, name: str, author: str, part: JsonObject, **more: Any) -> Event:
    content = {"role": "user" if author == "user" else "model", "parts": [part]}
    return Event(
        id=f"{invocation}:{name}",
        invocation_id=str(invocation),
        author=author,
        content=content,
        **more,
    )


def own(**fields: Any) -> Event:
    """An event that the runtime itself records."""
    return Event(id="e", invocation_id="1", author="perdure", **fields)


class TestSessions:
    def test_list_shows_the_sessions_of_all_agents_that_run_here(self, perdure: Run, data: Path) -> None:
        said = perdure("sessions", "list")
        assert said.code == 0
        assert said.out.splitlines()[1].split()[:2] == [ID, "12"]

    def test_an_export_imports_as_the_same_session(self, perdure: Run, data: Path, tmp_path: Path) -> None:
        printed = perdure("sessions", "export", ID)
        assert printed.code == 0
        file = tmp_path / "session.jsonl"
        assert perdure("sessions", "export", ID, "--output", str(file)).out == ""
        assert file.read_text(encoding="utf-8") == printed.out
        assert_failed(perdure("sessions", "import", str(file)), "SessionExists", ID)
        said = perdure("sessions", "import", str(file), "--as", "counter/ada/copy")
        assert said.out == "counter/ada/copy has 12 events and is at version 13.\n"
        copied = perdure("sessions", "export", "counter/ada/copy").out.splitlines()
        assert copied[1:] == printed.out.splitlines()[1:]

    def test_an_export_of_no_session_leaves_no_file(self, perdure: Run, data: Path, tmp_path: Path) -> None:
        file = tmp_path / "session.jsonl"
        said = perdure("sessions", "export", "counter/ada/3", "-o", str(file))
        assert_failed(said, "SessionNotFound", "counter/ada/3")
        assert not file.exists()

    def test_list_of_one_app_and_user_as_json(self, perdure: Run, data: Path) -> None:
        found = json.loads(perdure("sessions", "list", "counter", "--user", "ada", "--json").out)
        assert [session["session"] for session in found["sessions"]] == [ID]
        assert found["next"] == {}

    def test_list_of_nobody_says_so(self, perdure: Run, data: Path) -> None:
        assert perdure("sessions", "list", "counter", "--user", "bob").out == (
            "no sessions of counter for user bob\n"
        )

    def test_list_with_no_app_and_no_agents_asks_for_the_app(self, perdure: Run) -> None:
        assert_failed(perdure("sessions", "list"), "InvalidOption", "perdure sessions list APP")

    def test_show_has_every_event_and_marks_the_rewound_ones(self, perdure: Run, data: Path) -> None:
        said = perdure("sessions", "show", ID)
        lines = {line.split()[0]: line for line in said.out.splitlines() if line[:1].isdigit()}
        assert list(lines) == [str(seq) for seq in range(1, 13)]
        rewound = [seq for seq, line in lines.items() if "rewound " in line[:15]]
        assert rewound == [str(seq) for seq in range(5, 12)]
        assert "add(amount=1)" in lines["2"]
        assert 'add → {"sum": 1}' in lines["3"]
        assert "sum = 1" in lines["3"]
        assert "The sum is 1." in lines["4"]
        assert "rewound to before 2" in lines["12"]
        assert "\nSTATE\n  sum = 1\n" in said.out

    def test_show_can_leave_out_what_was_rewound(self, perdure: Run, data: Path) -> None:
        found = json.loads(perdure("sessions", "show", ID, "--live", "--json").out)
        assert [event["seq"] for event in found["events"]] == [1, 2, 3, 4, 12]
        assert found["state"] == {"sum": 1}
        assert found["artifacts"] == []
        assert found["user_id"] == "ada"

    def test_context_is_what_the_model_is_told(self, perdure: Run, data: Path) -> None:
        found = json.loads(perdure("sessions", "context", ID, "--json").out)
        parts = [part for content in found["contents"] for part in content["parts"]]
        assert [next(iter(part)) for part in parts] == ["text", "functionCall", "functionResponse", "text"]
        assert found["systemInstruction"]["parts"][0]["text"].startswith("You keep named counters")
        said = perdure("sessions", "context", ID).out
        assert [line.split()[0] for line in said.splitlines() if line[:1].isdigit()] == ["1", "2", "3", "4"]
        assert 'add → {"sum": 1}' in said

    def test_a_session_that_does_not_exist_is_one_line(self, perdure: Run, data: Path) -> None:
        assert_failed(perdure("sessions", "show", "counter/ada/3"), "SessionNotFound", "counter/ada/3")

    def test_a_name_that_is_no_session_is_one_line(self, perdure: Run, data: Path) -> None:
        assert_failed(perdure("sessions", "show", "three"), "InvalidOption", "APP/USER/SESSION")

    @pytest.mark.parametrize("command", [("rewind", ID, "1"), ("compact", ID), ("end", ID)])
    def test_without_temporal_steering_is_one_line(
        self, perdure: Run, data: Path, command: tuple[str, ...]
    ) -> None:
        said = perdure("sessions", *command)
        assert_failed(said, "NotReachable", "Temporal does not answer at 127.0.0.1:1")

    def test_without_a_database_looking_is_one_line(self, perdure: Run) -> None:
        assert_failed(perdure("sessions", "show", ID), "NotReachable", "start perdure dev here")


class TestSettings:
    def test_what_is_set_by_hand_goes_before_what_dev_wrote(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PERDURE_TEMPORAL_ADDRESS", "temporal.example:7233")
        settings = devfile.settings_in(data, Settings(_env_file=None))
        assert settings.temporal_address == "temporal.example:7233"
        assert settings.agents == ("examples.counter",)

    def test_a_setting_that_makes_no_sense_is_one_line(
        self, perdure: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PERDURE_POOL_SIZE", "many")
        assert_failed(perdure("temporal", "setup"), "InvalidOption", "pool_size")

    def test_a_dev_file_that_is_not_ours_is_one_line(self, perdure: Run, data: Path) -> None:
        (data / "dev.json").write_text("[]")
        assert_failed(perdure("sessions", "list"), "InvalidOption", "dev.json")


class TestOperations:
    def test_db_upgrade_makes_the_tables_and_may_run_twice(
        self, perdure: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PERDURE_DATABASE_URL", f"sqlite:///{tmp_path / 'new.db'}")
        for _ in range(2):
            assert perdure("db", "upgrade").out.endswith("is up to date\n")
        assert perdure("sessions", "list", "counter").out == "no sessions of counter\n"

    def test_a_database_that_does_not_answer_is_one_line_without_its_password(
        self, perdure: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PERDURE_DATABASE_URL", "postgresql://ada:s3cret@127.0.0.1:1/perdure")
        for command in (("db", "upgrade"), ("sessions", "list", "counter")):
            said = perdure(*command)
            assert_failed(said, "NotReachable", "postgresql://ada:***@127.0.0.1:1/perdure does not answer")

    def test_temporal_setup_prints_a_command_for_each_search_attribute(self, perdure: Run) -> None:
        lines = perdure("temporal", "setup").out.splitlines()
        assert [line.split("--name ")[1] for line in lines] == [
            f"{name} --type Keyword" for name in ("PerdureApp", "PerdureUser", "PerdureStatus")
        ]
        assert all(line.startswith("temporal operator search-attribute create --address") for line in lines)

    def test_a_password_is_not_printed(self) -> None:
        url = "postgresql://ada:s3cret@db.example/perdure"
        assert without_password(url) == "postgresql://ada:***@db.example/perdure"
        assert without_password("sqlite:///x.db") == "sqlite:///x.db"

    def test_a_worker_of_tools_is_told_its_queue(self, perdure: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        served: list[Settings] = []
        monkeypatch.setattr(worker, "main", served.append)
        perdure("worker", "--agents", "examples.counter", "--task-queue", "gpu", "--tools-only")
        perdure("worker", "--agents", "examples.counter")
        assert [(one.task_queue, one.tools_only) for one in served] == [("gpu", True), ("perdure", False)]

    def test_a_worker_works_beside_perdure_dev(
        self, perdure: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        served: list[Settings] = []
        monkeypatch.setattr(worker, "main", served.append)
        ports = {"temporal_port": 17233, "ui_port": 18233, "gateway_port": 18000, "model_port": 19000}
        told = {"temporal_address": "127.0.0.1:17233", "task_queue": "dev", "agents": ["examples.memory"]}
        (tmp_path / "dev.json").write_text(json.dumps({**ports, "settings": told}))
        beside = ("worker", "--data", str(tmp_path))
        perdure(*beside, "--tools-only")
        perdure(*beside, "--tools-only", "--agents", "examples.counter", "--task-queue", "gpu")
        assert_failed(perdure(*beside), "InvalidOption", "--data goes with --tools-only")
        assert {one.temporal_address for one in served} == {"127.0.0.1:17233"}
        assert [(one.agents, one.task_queue) for one in served] == [
            (("examples.memory",), "dev"),
            (("examples.counter",), "gpu"),
        ]

    def test_a_worker_of_tools_for_a_queue_that_none_names_is_one_line(self, perdure: Run) -> None:
        asked = ("worker", "--agents", "examples.anywhere", "--tools-only")
        assert_failed(perdure(*asked), "InvalidOption", "--task-queue heavy")

    def test_a_worker_without_agents_is_one_line(self, perdure: Run) -> None:
        assert_failed(perdure("worker"), "InvalidOption", "--agents examples.counter")

    def test_version(self, perdure: Run) -> None:
        said = perdure("--version")
        assert said.code == 0
        assert said.out.startswith("perdure 0.")

    def test_an_unknown_command_is_a_usage_error(self, perdure: Run) -> None:
        assert perdure("dance").code == 2

    def test_a_defect_is_one_line_too_and_shows_where_when_asked(
        self, perdure: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(_: object) -> None:
            raise ZeroDivisionError("by nothing")

        monkeypatch.setattr(cluster, "find_settings", broken)
        assert_failed(perdure("temporal", "setup"), "ZeroDivisionError", "by nothing")
        monkeypatch.setenv("PERDURE_LOG_LEVEL", "debug")
        assert "Traceback" in perdure("temporal", "setup").err


class TestRendering:
    def test_an_answer_is_words_of_the_agent(self) -> None:
        assert conversation.is_answer(event(1, "m2", "counter", {"text": "Done."}))
        assert not conversation.is_answer(event(1, "m1", "counter", {"functionCall": {"name": "add"}}))
        assert not conversation.is_answer(event(1, "end", "perdure", {"text": "Done."}))

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            (own(rewind={"before": "7"}), ["rewound to before 7"]),
            (
                own(content={"parts": [{"text": "All\nof it."}]}, compaction={"start": 1, "end": 9}),
                ["summary of 1 to 9: All of it."],
            ),
            (own(error={"type": "ModelRefused", "message": "no"}), ["ModelRefused: no"]),
            (own(meta={"interrupted": True, "reason": "cancel"}), ["interrupted: cancel"]),
            (own(artifact_delta={"a.txt": 2}), ["saved a.txt, version 2"]),
            (event(1, "m1", "a", {"text": "hm", "thought": True}), ["(thought) hm"]),
            (event(1, "m1", "a", {"inlineData": {"mimeType": "image/png", "data": "AA=="}}), ["[image/png]"]),
        ],
    )
    def test_an_event_is_described(self, given: Event, expected: list[str]) -> None:
        assert list(render.describe(given)) == expected

    def test_a_long_value_is_cut_to_one_line(self) -> None:
        assert render.one_line({"text": "x" * 500}, 20) == '{"text": "xxxxxxxxx…'
        assert render.one_line("a\n b", 20) == "a b"

    def test_brackets_in_a_conversation_are_not_markup(self) -> None:
        console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115 - closed with it
        console.print(render.event_table([event(1, "user", "user", {"text": "[bold]hello[/bold] [/]"})]))
        console.file.close()
        assert "[bold]hello[/bold] [/]" in console.export_text()

    def test_json_has_times_and_keys(self) -> None:
        given = Event(id="e", invocation_id="1", author="user", created_at=datetime(2026, 1, 2, tzinfo=UTC))
        found = json.loads(render.as_json([given, KEY]))
        assert found[0]["created_at"] == "2026-01-02T00:00:00+00:00"
        assert found[1] == ID

    def test_a_session_is_named_as_its_workflow_is(self) -> None:
        assert session_key(ID) == KEY
        with pytest.raises(InvalidOption, match="APP/USER/SESSION"):
            session_key("counter/ada")


def assert_failed(said: Said, kind: str, text: str) -> None:
    """It ended with 1 and said one readable line."""
    assert said.code == 1
    assert said.err.startswith(f"perdure: {kind}: ")
    assert text in said.err
    assert said.err.count("\n") == 1
    assert "Traceback" not in said.err
