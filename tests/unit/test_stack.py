"""What `perdure dev` decides before it starts anything: ports, settings, which model."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from embedded import devfile
from embedded.devfile import DevFile
from embedded.errors import DidNotStart
from embedded.ports import free_port
from embedded.stack import Stack, environment_of
from perdure.settings import Settings


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "PERDURE_GEMINI_API_KEY", "PERDURE_MODEL_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def settings(**given: str) -> Settings:
    return Settings(_env_file=None, **given)  # type: ignore[arg-type]  # every setting, by its name


def planned(
    data: Path, given: Settings | None = None, *, port: int | None = None, ui_port: int | None = None
) -> Stack:
    stack = Stack(["examples.counter"], data=data, port=port, ui_port=ui_port, settings=given or settings())
    stack._plan()
    stack._claims.release()  # as when it is stopped
    return stack


def test_everything_is_in_its_folder(tmp_path: Path) -> None:
    found = planned(tmp_path, port=0).settings
    assert found.database_url == f"sqlite:///{tmp_path / 'perdure.db'}"
    assert found.artifacts_url == f"file://{tmp_path / 'artifacts'}"
    assert found.agents == ("examples.counter",)


def test_a_database_that_is_set_is_used(tmp_path: Path) -> None:
    found = planned(tmp_path, settings(database_url="postgresql://db/perdure"), port=0).settings
    assert found.database_url == "postgresql://db/perdure"
    assert found.artifacts_url == f"file://{tmp_path / 'artifacts'}"


def test_with_no_key_there_is_a_stand_in(tmp_path: Path) -> None:
    stack = planned(tmp_path, port=0)
    assert stack.standin is not None
    assert stack.settings.model_base_url == f"http://127.0.0.1:{stack.model_port}"


@pytest.mark.parametrize("name", ["GEMINI_API_KEY", "GOOGLE_API_KEY", "PERDURE_GEMINI_API_KEY"])
def test_with_a_key_it_is_gemini_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "a-key")
    stack = planned(tmp_path, port=0)
    assert stack.standin is None
    assert stack.settings.model_base_url is None
    assert environment_of(stack.settings)["PERDURE_GEMINI_API_KEY"] == "a-key"


def test_an_empty_key_is_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "")
    assert planned(tmp_path, port=0).standin is not None


def test_the_key_is_not_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMINI_API_KEY", "a-key")
    planned(tmp_path, port=0)
    assert "a-key" not in (tmp_path / "dev.json").read_text()


def test_the_next_run_has_the_same_ports(tmp_path: Path) -> None:
    first, second = planned(tmp_path, port=0, ui_port=0), planned(tmp_path)
    assert second.temporal.address == first.temporal.address
    assert second.temporal.ui_url == first.temporal.ui_url
    assert second.model_port == first.model_port


def test_a_port_that_is_named_is_taken_and_remembered(tmp_path: Path) -> None:
    port = free_port()
    assert planned(tmp_path, port=port).temporal.port == port
    assert planned(tmp_path).temporal.port == port


def test_a_port_that_is_named_and_not_free_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stack = Stack(["examples.counter"], data=tmp_path, port=0, gateway_port=port, settings=settings())
        with pytest.raises(DidNotStart, match=f"the gateway needs port {port} of 127.0.0.1, and it is taken"):
            stack._plan()


def test_a_port_of_the_last_run_that_is_not_free_is_replaced_and_said(tmp_path: Path) -> None:
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (tmp_path / "dev.json").write_text(f'{{"gateway_port": {port}}}')
        stack = Stack(["examples.counter"], data=tmp_path, port=0, settings=settings(), say=said.append)
        stack._plan()
    other = str(stack.settings.gateway_address).rpartition(":")[2]
    assert other != str(port)
    assert f"port {port} of the last run is taken; using {other} for the gateway" in said


def test_commands_in_the_folder_find_the_stack(tmp_path: Path) -> None:
    stack = planned(tmp_path, port=0)
    found = devfile.settings_in(tmp_path, settings())
    for name in ("database_url", "artifacts_url", "temporal_address", "task_queue", "agents"):
        assert getattr(found, name) == getattr(stack.settings, name)


def test_a_folder_without_a_stack_gives_the_settings_as_they_are(tmp_path: Path) -> None:
    given = settings(task_queue="mine")
    assert devfile.read(tmp_path) is None
    assert devfile.settings_in(tmp_path, given) is given


def test_settings_survive_the_environment_of_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = planned(tmp_path, port=0).settings
    for name, value in environment_of(given).items():
        monkeypatch.setenv(name, value)
    assert settings() == given


def test_the_agents_are_known_to_who_is_led_there(tmp_path: Path) -> None:
    assert devfile.served_by(tmp_path, settings()) == ()
    stack = Stack(["examples.counter"], data=tmp_path, names=["counter"], port=0, settings=settings())
    stack._plan()
    stack._claims.release()
    here = devfile.settings_in(tmp_path, settings())
    assert devfile.served_by(tmp_path, here) == ("counter",)
    elsewhere = here.model_copy(update={"temporal_address": "temporal.example:7233"})
    assert devfile.served_by(tmp_path, elsewhere) == ()


def test_a_dev_file_of_another_version_may_have_more(tmp_path: Path) -> None:
    (tmp_path / "dev.json").write_text('{"temporal_port": 1, "from_the_future": true}')
    assert devfile.read(tmp_path) == DevFile(temporal_port=1)


def test_the_gateway_listens_to_this_machine_and_needs_no_token(tmp_path: Path) -> None:
    found = planned(tmp_path, port=0).settings
    assert found.gateway_address is not None
    host, _, port = found.gateway_address.partition(":")
    assert (host, found.gateway_auth) == ("127.0.0.1", "none")
    file = devfile.read(tmp_path)
    assert file is not None
    assert file.gateway_port == int(port)
    assert planned(tmp_path, port=0).settings.gateway_address == found.gateway_address


def test_a_gateway_that_is_set_is_as_it_is_set(tmp_path: Path) -> None:
    found = planned(tmp_path, settings(gateway_address="0.0.0.0:9000"), port=0).settings
    assert (found.gateway_address, found.gateway_auth) == ("0.0.0.0:9000", "tokens")
    asked = planned(tmp_path, settings(gateway_auth="tokens"), port=0).settings
    assert asked.gateway_auth == "tokens"
