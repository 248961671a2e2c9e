"""docker-compose.yml, as far as it can be checked without a Docker engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.listening import address_of
from perdure import searchattributes
from perdure.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXAMPLE = (ROOT / ".env.example").read_text()
ONE_SHOTS = {
    needed
    for service in SERVICES.values()
    for needed, how in service.get("depends_on", {}).items()
    if how["condition"] == "service_completed_successfully"
}


def environment_of(service: str) -> dict[str, str]:
    environment = SERVICES[service].get("environment", {})
    assert isinstance(environment, dict), service
    return environment


@pytest.mark.parametrize("name", SERVICES)
class TestService:
    def test_it_has_a_health_check_or_ends(self, name: str) -> None:
        assert name in ONE_SHOTS or "healthcheck" in SERVICES[name]

    def test_what_ends_is_not_restarted_for_ever(self, name: str) -> None:
        restart = SERVICES[name]["restart"]
        assert restart.startswith("on-failure:") if name in ONE_SHOTS else restart == "unless-stopped"

    def test_its_image_is_pinned(self, name: str) -> None:
        service = SERVICES[name]
        assert "build" in service or re.search(r":\d+[.\d]*$", service["image"])

    def test_it_waits_for_what_it_needs_to_be_healthy_or_done(self, name: str) -> None:
        for needed, how in SERVICES[name].get("depends_on", {}).items():
            expected = "service_completed_successfully" if needed in ONE_SHOTS else "service_healthy"
            assert how == {"condition": expected}, needed
            assert needed in SERVICES

    def test_secrets_come_from_outside(self, name: str) -> None:
        for key, value in environment_of(name).items():
            if re.search("PASSWORD|PWD|SECRET|KEY", key):
                assert re.fullmatch(r"\$\{[A-Z0-9_]+:\?set it in \.env\}", value), key
            assert not re.search(r"://[^/@:]+:(?!\$\{)[^/@]*@", str(value)), f"{key} carries a password"

    def test_its_ports_are_open_to_this_machine_only(self, name: str) -> None:
        assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))

    def test_its_settings_exist(self, name: str) -> None:
        ours = {key for key in environment_of(name) if key.startswith("PERDURE_")}
        assert ours <= {f"PERDURE_{field.upper()}" for field in Settings.model_fields}

    def test_its_volumes_have_names(self, name: str) -> None:
        for volume in SERVICES[name].get("volumes", []):
            assert volume.split(":")[0] in COMPOSE["volumes"]


def test_there_are_the_parts_of_production_and_more_than_one_worker() -> None:
    assert {"worker", "gateway", "postgres", "s3", "temporal", "temporal-ui"} <= set(SERVICES)
    assert SERVICES["worker"]["deploy"]["replicas"] == "${WORKERS:-2}"


def test_the_gateway_listens_where_its_port_leads_and_asks_for_tokens() -> None:
    gateway = SERVICES["gateway"]
    assert gateway["command"] == ["perdure", "serve", "--address", "0.0.0.0:8000"]
    assert gateway["ports"] == ["127.0.0.1:8000:8000"]
    assert "PERDURE_GATEWAY_AUTH" not in environment_of("gateway")
    assert Settings.model_fields["gateway_auth"].default == "tokens"


def test_settings_are_what_the_worker_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in environment_of("worker").items():
        monkeypatch.setenv(key, filled_in(value))
    settings = Settings(_env_file=None)
    assert settings.database_url == "postgresql://perdure:a-POSTGRES_PASSWORD@postgres:5432/perdure"
    assert settings.agents == ("examples.counter",)
    assert settings.gemini_api_key is not None
    assert settings.gemini_api_key.get_secret_value() == "a-GEMINI_API_KEY"


def test_a_stopped_worker_has_longer_than_its_grace() -> None:
    grace = SERVICES["worker"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > Settings.model_fields["graceful_shutdown"].default


def test_the_workers_health_check_asks_the_probe_of_the_same_container() -> None:
    assert SERVICES["worker"]["healthcheck"]["test"] == ["CMD", "perdure", "worker", "--check"]
    address = environment_of("worker")["PERDURE_HEALTH_ADDRESS"]
    assert address_of(address)[0] == "127.0.0.1"
    image = (ROOT / "Dockerfile").read_text()
    assert f"ENV PERDURE_HEALTH_ADDRESS={address}\n" in image
    assert re.search(r'^HEALTHCHECK .* CMD \["perdure", "worker", "--check"\]$', image, re.MULTILINE)


def test_the_cluster_gets_our_search_attributes() -> None:
    names = (searchattributes.APP, searchattributes.USER, searchattributes.STATUS)
    assert f"for name in {' '.join(names)};" in SERVICES["temporal-setup"]["command"][0]


def test_env_example_names_everything_that_must_be_set_and_nothing_of_it() -> None:
    required = set(re.findall(r"\$\{([A-Z0-9_]+):\?", TEXT))
    optional = set(re.findall(r"\$\{([A-Z0-9_]+):-", TEXT))
    assert set(re.findall(r"^([A-Z0-9_]+)=$", EXAMPLE, re.MULTILINE)) == required
    assert set(re.findall(r"^# ([A-Z0-9_]+)=", EXAMPLE, re.MULTILINE)) == optional


@pytest.mark.parametrize("name", ["temporal-schema", "temporal-setup"])
def test_a_script_is_a_shells(name: str) -> None:
    script = SERVICES[name]["command"][0].replace("$$", "$")
    assert "$" in script
    done = subprocess.run(["/bin/sh", "-n", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_bucket_is_made_once_where_the_settings_point() -> None:
    moto = pytest.importorskip("moto.server", reason="moto[server] plays the S3 store")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        settings = {key: filled_in(value) for key, value in environment_of("bucket").items()}
        environment = {**os.environ, **settings, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
        program, flag, code = SERVICES["bucket"]["command"]
        assert (program, flag) == ("python", "-c")
        code += "; print(s3.exists('perdure'))"
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
            )
            assert done.stdout == "True\n", done.stderr
    finally:
        server.stop()


def test_the_image_is_built_from_all_that_the_wheel_carries() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    carried = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    needed = {
        *carried,
        "perdure",
        "pyproject.toml",
        "constraints.txt",
        pyproject["project"]["readme"],
        "LICENSE",
    }
    assert {f"!{name}" for name in needed} <= set((ROOT / ".dockerignore").read_text().splitlines())


def test_docker_compose_takes_it() -> None:
    if shutil.which("docker") is None:
        pytest.skip("there is no docker command")
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, text=True, check=False)
    if plugin.returncode != 0:
        pytest.skip("docker has no compose plugin")
    required = re.findall(r"\$\{([A-Z0-9_]+):\?", TEXT)
    done = subprocess.run(
        ["docker", "compose", "--file", str(ROOT / "docker-compose.yml"), "config", "--format", "json"],
        env={**os.environ, **dict.fromkeys(required, "x")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["services"]) == set(SERVICES)


def filled_in(value: str) -> str:
    """The value as compose would fill it in, each secret standing for itself."""
    value = re.sub(r"\$\{[A-Z0-9_]+:-([^}]*)\}", r"\1", value)
    return re.sub(r"\$\{([A-Z0-9_]+):\?[^}]*\}", r"a-\1", value)
