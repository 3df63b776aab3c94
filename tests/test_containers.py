"""The images, the compose file and the manifests agree with the code and with each other."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.settings import Settings
from workers.settings import WorkerSettings

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
SETTINGS = {f"ROLLOVER_{name}".upper() for kind in (Settings, WorkerSettings) for name in kind.model_fields}
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
OURS = {name: service for name, service in COMPOSE.items() if "build" in service}
DURABLE = [
    "valkey-server",
    "--appendonly",
    "yes",
    "--appendfsync",
    "always",
    "--maxmemory-policy",
    "noeviction",
]


def manifests() -> Iterator[dict[str, Any]]:
    for path in sorted((DOCKER / "kubernetes").glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))


def pods() -> dict[str, dict[str, Any]]:
    """What runs: the pod's specification, by the name of what keeps it."""
    kinds = {"Deployment", "StatefulSet"}
    return {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]
        for each in manifests()
        if each["kind"] in kinds
    }


def dockerfile(name: str) -> list[str]:
    return (DOCKER / f"{name}.Dockerfile").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", ["api", "worker"])
def test_what_an_image_copies_is_there_and_not_ignored(name: str) -> None:
    copied = [line.split()[1:-1] for line in dockerfile(name) if line.startswith("COPY ")]
    sources = {source for part in copied for source in part}
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert sources
    assert sources <= {line[1:] for line in ignored if line[0] == "!"}
    assert all((ROOT / source).exists() for source in sources)


@pytest.mark.parametrize("name", ["api", "worker"])
def test_an_image_runs_as_nobody_special_and_says_how_it_is(name: str) -> None:
    lines = dockerfile(name)
    assert lines.index("USER rollover") < min(i for i, line in enumerate(lines) if line.startswith("CMD"))
    assert any(line.startswith("HEALTHCHECK") for line in lines)


def test_the_compose_file_builds_what_is_there_and_keeps_what_is_queued() -> None:
    built = {service["build"]["dockerfile"] for service in OURS.values()}
    assert built == {f"docker/{path.name}" for path in DOCKER.glob("*.Dockerfile")}
    assert COMPOSE["valkey"]["command"][: len(DURABLE)] == DURABLE
    assert {name for service in OURS.values() for name in service["environment"]} <= SETTINGS


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_container_cannot_change_its_image_nor_gain_rights(name: str) -> None:
    service = OURS[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", sorted(COMPOSE))
def test_no_containers_log_fills_the_disk(name: str) -> None:
    assert COMPOSE[name]["logging"] == {
        "driver": "json-file",
        "options": {"max-size": "16m", "max-file": "2"},
    }


def test_only_those_who_need_pictures_have_them() -> None:
    with_pictures = {
        name for name, each in OURS.items() if "artifacts:/var/lib/rollover" in each.get("volumes", [])
    }
    assert with_pictures == {"api", "worker"}
    mounting = {
        name for name, pod in pods().items() if any(v["name"] == "artifacts" for v in pod.get("volumes", []))
    }
    assert mounting == {"api", "worker-shapes"}


def test_what_torch_compiles_lies_where_it_can_be_loaded_from_and_only_workers_write() -> None:
    lines = [line.split()[1:] for line in dockerfile("worker") if line.startswith("ENV ")]
    given = dict(each.split("=", 1) for line in lines for each in line)
    caches = {Path(given[f"{tool}_CACHE_DIR"]).parent for tool in ("TORCHINDUCTOR", "TRITON")}
    # Below a volume of its own: Docker mounts a tmpfs so that no code in it can be loaded.
    mounted = {
        name: {Path(volume.partition(":")[2]) for volume in each.get("volumes", [])}
        for name, each in OURS.items()
    }
    assert {name for name, paths in mounted.items() if caches <= paths} == {"worker"}
    assert not caches & {Path(each) for each in OURS["worker"]["tmpfs"]}
    [container] = pods()["worker-shapes"]["containers"]
    assert caches <= {Path(each["mountPath"]) for each in container["volumeMounts"]}
    # A volume has the owner that its folder has in the image.
    made = next(line for line in dockerfile("worker") if "install -d -o rollover" in line)
    assert {str(each) for each in caches} <= set(made.split())


def test_nobody_reaches_valkey_without_the_password_or_from_outside() -> None:
    valkey = COMPOSE["valkey"]
    assert valkey["command"][-2] == "--requirepass"
    assert "ports" not in valkey
    assert all("VALKEY_PASSWORD:?" in each["environment"]["ROLLOVER_REDIS_URL"] for each in OURS.values())


def test_the_manifests_run_what_the_compose_file_runs() -> None:
    commands = {name: pod["containers"][0].get("command") for name, pod in pods().items()}
    assert commands == {
        "valkey": None,
        "api": None,
        "webhooks": COMPOSE["webhooks"]["command"],
        "worker-shapes": ["python3", "-m", "workers", "--model", "shapes"],
    }
    arguments = pods()["valkey"]["containers"][0]["args"]
    assert arguments[: len(DURABLE)] == DURABLE
    assert "--maxmemory" in arguments
    assert "--maxmemory" in COMPOSE["valkey"]["command"]
    grace = {name: pod.get("terminationGracePeriodSeconds") for name, pod in pods().items()}
    assert f"{grace['worker-shapes']}s" == COMPOSE["worker"]["stop_grace_period"]
    assert f"{grace['webhooks']}s" == COMPOSE["webhooks"]["stop_grace_period"]


@pytest.mark.parametrize("name", sorted(pods()))
def test_a_pod_keeps_to_the_restricted_standard(name: str) -> None:
    pod = pods()[name]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        named = {variable["name"] for variable in container["env"] if name != "valkey"}
        assert named <= SETTINGS


def test_scaling_names_a_worker_and_metrics_that_there_are() -> None:
    kinds = {each["kind"]: each for each in manifests()}
    scaled = kinds["ScaledObject"]
    # Scraped by a label and a port that the API's service has.
    api = next(
        each for each in manifests() if each["kind"] == "Service" and each["metadata"]["name"] == "api"
    )
    monitor = kinds["ServiceMonitor"]["spec"]
    assert monitor["selector"]["matchLabels"] == api["metadata"]["labels"]
    assert monitor["endpoints"][0]["port"] == api["spec"]["ports"][0]["name"]
    assert scaled["spec"]["scaleTargetRef"]["name"] in pods()
    query = scaled["spec"]["triggers"][0]["metadata"]["query"]
    metrics = (ROOT / "app" / "metrics.py").read_text(encoding="utf-8")
    asked = set(re.findall(r"rollover_\w+", query))
    assert asked == {"rollover_queue_length", "rollover_workers"}
    assert all(f'"{name}"' in metrics for name in asked)


def test_every_manifest_is_applied_but_those_that_need_more_than_kubernetes() -> None:
    folder = DOCKER / "kubernetes"
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))["resources"]
    assert {*listed, "scaling.yaml", "kustomization.yaml"} == {path.name for path in folder.glob("*.yaml")}
