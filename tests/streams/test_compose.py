"""docker-compose.kafka.yml and docker/: held against the pins, settings, catalogue, commands and the collector.

Nothing is started here: that takes a Docker daemon.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector

from schemas.catalogue import TOPICS
from streams.broker.jars import pinned
from streams.broker.node import Layout, server_properties
from streams.cli.main import cli
from streams.metrics.collect import WorkerCollector
from streams.metrics.health import Pulse
from streams.settings import DEFAULT_PORT, LOOPBACK, Settings
from streams.transport.timeouts import PROMISE_S
from tests.streams.registries import VERSION as REGISTRY

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = yaml.safe_load((ROOT / "docker-compose.kafka.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
DOCKERFILE = re.sub(r"\\\n\s*", " ", (DOCKER / "Dockerfile").read_text()).splitlines()
DASHBOARD = json.loads((DOCKER / "grafana" / "dashboards" / "quantum.json").read_text())
OF_PROMETHEUS = {"instance", "job", "le"}
# What one node on loopback and one in a network of containers cannot have in common.
PLACES = {"process.roles", "node.id", "controller.quorum.voters", "controller.listener.names", "listeners",
          "advertised.listeners", "listener.security.protocol.map", "log.dirs"}


def _listeners(text: str) -> dict[str, str]:
    return dict(part.split("://") for part in text.split(","))


def _steps(word: str) -> list[str]:
    return [line.removeprefix(word).strip() for line in DOCKERFILE if line.startswith(f"{word} ")]


def _baked() -> dict[str, str]:
    """Environment of the image."""
    return dict(part.split("=", 1) for step in _steps("ENV") for part in shlex.split(step))


def _expressions() -> list[str]:
    rules = yaml.safe_load((DOCKER / "prometheus.rules.yml").read_text())
    return [rule["expr"] for group in rules["groups"] for rule in group["rules"]] + [
        target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def _families() -> dict[str, set[str]]:
    """Series by name, with the labels that each has."""
    ends = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
    families = list(WorkerCollector([], Pulse()).collect())
    families += ProcessCollector(registry=CollectorRegistry()).collect()
    return {family.name + end: set(getattr(family, "_labelnames", ())) for family in families
            for end in ends.get(family.type, ("",))}


def test_every_image_has_a_version_and_ours_and_kafkas_are_the_pinned_ones() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    images = {name: service["image"] for name, service in SERVICES.items()}
    assert all(re.fullmatch(r"[a-z./-]+:v?\d+\.\d+\.\d+", image) for image in images.values())
    assert images["registry"] == f"apicurio/apicurio-registry:{REGISTRY}"
    assert images["kafka"] == f"apache/kafka:{pinned()[0]}"
    assert {images[name] for name in OURS} == {f"quantum-streams:{project['version']}"}
    stages = [step.split()[0] for step in _steps("FROM")]
    assert len(stages) == 2
    assert all(re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", stage) for stage in stages)


def test_every_port_is_on_loopback_only_and_kafka_is_where_our_commands_look() -> None:
    ports = {name: service.get("ports", []) for name, service in SERVICES.items()}
    published = [port for of_service in ports.values() for port in of_service]
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)
    assert len({port.split(":")[1] for port in published}) == len(published)
    assert ports["kafka"] == [f"{LOOPBACK}:{DEFAULT_PORT}:{DEFAULT_PORT}"]
    assert not [service for service in SERVICES.values() if service.get("network_mode") or service.get("privileged")]


def test_kafka_has_a_listener_for_the_host_and_one_for_containers() -> None:
    environment = SERVICES["kafka"]["environment"]
    listening, told = (_listeners(environment[f"KAFKA_{name}LISTENERS"]) for name in ("", "ADVERTISED_"))
    assert listening.keys() == {"HOST", "CONTAINERS", "CONTROLLER"}
    assert told == {"HOST": f"{LOOPBACK}:{DEFAULT_PORT}", "CONTAINERS": OURS["worker"]["environment"]["QUANTUM_BROKER"]}
    assert all(listening[name].rpartition(":")[2] == told[name].rpartition(":")[2] for name in told)
    security = dict(part.split(":") for part in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(","))
    assert security == dict.fromkeys(listening, "PLAINTEXT")
    assert environment["KAFKA_INTER_BROKER_LISTENER_NAME"] == "CONTAINERS"
    assert environment["KAFKA_CONTROLLER_QUORUM_VOTERS"] == f"1@{listening['CONTROLLER']}"
    assert SERVICES["kafka"]["volumes"] == [f"kafka:{environment['KAFKA_LOG_DIRS']}"]


def test_kafka_is_set_as_the_embedded_broker_is(tmp_path: Path) -> None:
    lines = server_properties(Layout(tmp_path), 1, 2).splitlines()
    embedded = {key: value for key, value in (line.split("=", 1) for line in lines) if key not in PLACES}
    given = {name.removeprefix("KAFKA_").lower().replace("_", "."): value
             for name, value in SERVICES["kafka"]["environment"].items()}
    assert {name: value for name, value in given.items() if name in embedded} == embedded
    assert given.keys() - embedded.keys() == PLACES | {"inter.broker.listener.name"}


@pytest.mark.parametrize("service", OURS)
def test_our_commands_are_commands_of_ours(service: str) -> None:
    command, name, args, parent = cli, "quantum", list(SERVICES[service]["command"]), None
    while True:
        ctx = command.make_context(name, args, parent=parent)
        if not isinstance(command, click.Group):
            break
        found, command, args = command.resolve_command(ctx, [*ctx._protected_args, *ctx.args])
        name, parent = found or "", ctx
    assert parent is not None
    assert _steps("ENTRYPOINT") == ['["quantum"]']


@pytest.mark.parametrize("service", OURS)
def test_our_environment_is_made_of_settings(service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (_baked() | SERVICES[service]["environment"]).items():
        if name.startswith("QUANTUM_"):
            monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert settings.broker == "kafka:9092"
    assert settings.registry == SERVICES["kafka-ui"]["environment"]["KAFKA_CLUSTERS_0_SCHEMAREGISTRY"]
    assert settings.framing == "confluent"  # or the Kafka UI would show bytes
    asked = SERVICES["registry"]["healthcheck"]["test"][-1]
    assert asked == f"{settings.registry}/subjects".replace("registry", "localhost", 1)
    if service == "worker":
        assert settings.metrics_host == "0.0.0.0"  # or Prometheus would not reach it
        assert f"{LOOPBACK}:{settings.metrics_port}:{settings.metrics_port}" in SERVICES[service]["ports"]


def test_what_depends_on_a_service_is_there_and_can_be_known() -> None:
    for service in SERVICES.values():
        depends = service.get("depends_on", {})
        for name, how in (depends.items() if isinstance(depends, dict) else ((name, {}) for name in depends)):
            if how.get("condition") == "service_healthy":
                assert "test" in SERVICES[name]["healthcheck"]
    assert SERVICES["worker"]["depends_on"] == {"topics": {"condition": "service_completed_successfully"}}
    assert SERVICES["topics"]["restart"] == "no"
    assert int(SERVICES["worker"]["stop_grace_period"].removesuffix("s")) > PROMISE_S
    clocks = [name for name, service in OURS.items() if "--clock" in service["command"]]
    assert clocks == ["worker"]


def test_files_that_are_named_are_there() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
    assert all((ROOT / service["build"]["dockerfile"]).is_file() for service in OURS.values())
    copied = [name for step in _steps("COPY") if not step.startswith("--from") for name in step.split()[:-1]]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text().split()
    assert ignored[0] == "*"
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied)


def test_the_image_runs_as_somebody_without_rights_and_is_asked_for_readiness() -> None:
    assert _steps("USER") == ["quantum"]
    assert DOCKERFILE.index("USER quantum") > max(i for i, line in enumerate(DOCKERFILE) if line.startswith("RUN"))
    (check,) = _steps("HEALTHCHECK")
    assert f"http://127.0.0.1:{_baked()['QUANTUM_METRICS_PORT']}/readyz" in check
    assert "--constraint constraints.txt" in next(step for step in _steps("RUN") if "uv pip install" in step)


def test_series_of_rules_and_dashboard_are_those_of_the_collector() -> None:
    families = _families()
    used = {name for text in _expressions() for name in re.findall(r"\b(?:quantum|process)_\w+", text)}
    assert len(used) > 15
    assert used <= families.keys()
    variable = DASHBOARD["templating"]["list"][0]["query"]["query"]
    series, label = re.findall(r"\w+", variable.removeprefix("label_values"))
    assert label in families[series]


def test_labels_and_topics_of_expressions_exist() -> None:
    families = _families()
    for text in _expressions():
        known = OF_PROMETHEUS.union(*(families.get(name, set()) for name in re.findall(r"\w+", text)))
        matched = {name for inside in re.findall(r"\{(.*?)\}", text) for name in re.findall(r"(\w+)=~?", inside)}
        grouped = {name for inside in re.findall(r"\bby \((.*?)\)", text) for name in inside.split(", ")}
        assert matched | grouped <= known, text
        for named in re.findall(r'topic=~?"(.*?)"', text):
            assert set(named.split("|")) <= TOPICS.keys()
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            grouped = set(re.findall(r"\w+", " ".join(re.findall(r"\bby \((.*?)\)", target["expr"]))))
            assert shown <= grouped | OF_PROMETHEUS


def test_prometheus_scrapes_the_worker_and_grafana_asks_prometheus() -> None:
    config = yaml.safe_load((DOCKER / "prometheus.yml").read_text())
    (scrape,) = config["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [f"worker:{_baked()['QUANTUM_METRICS_PORT']}"]}]
    assert scrape.get("metrics_path", "/metrics") == "/metrics"
    mounted = {Path(volume.split(":")[1]).name for volume in SERVICES["prometheus"]["volumes"]}
    assert set(config["rule_files"]) <= mounted
    provisioning = DOCKER / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    asked = {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]}
    assert asked == {source["uid"]}
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "quantum.yml").read_text())["providers"]
    mounts = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounts
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{provider['options']['path']}/quantum.json"


def test_docker_compose_takes_the_file() -> None:
    if shutil.which("docker") is None or subprocess.run(
            ["docker", "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("Docker Compose is not there")
    done = subprocess.run(["docker", "compose", "-f", "docker-compose.kafka.yml", "config", "--quiet"], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
