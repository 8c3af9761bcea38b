"""The Kubernetes manifests: each overlay as ``kubectl kustomize`` renders it, against the schemas and itself."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mlflow_middleware.settings import Settings
from tests.deploy.dockerfile import instructions
from tests.servers import ROOT, clean_environment

KUBERNETES = ROOT / "examples" / "kubernetes"
OVERLAYS = {
    "mlflow-server": "http://mlflow.mlflow.svc.cluster.local:5000",
    "databricks": "databricks",
}
"""Overlay -> the tracking URI that it sets."""

VERSIONS = ["1.30", kubernetes_validate.latest_version()]
"""The oldest Kubernetes with ``preStop.sleep`` enabled, and the newest that the validator knows."""

POD = {"metadata.name": "chat-7d9f8-x2x9z", "metadata.namespace": "chat", "spec.nodeName": "node-1"}
"""The downward API's values for a pod."""

UNITS = {"": 1, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def quantity(text: str) -> int:
    """Parse a size as Kubernetes writes it."""
    number, unit = re.fullmatch(r"(\d+)([KMG]i)?", text).groups(default="")  # type: ignore[union-attr]
    return int(number) * UNITS[unit]


@pytest.fixture(scope="module", params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> str:
    """Each overlay in turn."""
    return str(request.param)


@pytest.fixture(scope="module")
def resources(overlay: str) -> list[dict[str, Any]]:
    """Return the rendered resources."""
    place = str(KUBERNETES / "overlays" / overlay)
    commands = {"kustomize": ["kustomize", "build", place], "kubectl": ["kubectl", "kustomize", place]}
    found = [command for program, command in commands.items() if shutil.which(program)]
    if not found:
        pytest.skip("neither kustomize nor kubectl is installed, and no package index has one")
    done = subprocess.run(found[0], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def only(resources: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """Return the only resource of a kind."""
    (resource,) = [each for each in resources if each["kind"] == kind]
    return resource


def pod_of(resources: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the pod's specification."""
    pod: dict[str, Any] = only(resources, "Deployment")["spec"]["template"]["spec"]
    return pod


def environment_of(resources: list[dict[str, Any]]) -> dict[str, str]:
    """Return the variables of the container, assembled as Kubernetes does."""
    (container,) = pod_of(resources)["containers"]
    sources = {
        "configMapRef": only(resources, "ConfigMap"),
        "secretRef": only(resources, "Secret"),
    }
    variables: dict[str, str] = {}
    for source in container["envFrom"]:
        ((kind, reference),) = source.items()
        resource = sources[kind]
        assert reference["name"] == resource["metadata"]["name"]
        is_secret = kind == "secretRef"
        for name, value in resource["data"].items():
            variables[name] = base64.b64decode(value).decode() if is_secret else value
    for entry in container["env"]:
        variables[entry["name"]] = POD[entry["valueFrom"]["fieldRef"]["fieldPath"]]
    return variables


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "file", [path for path in sorted((KUBERNETES / "base").glob("*.yaml")) if path.stem != "kustomization"],
    ids=lambda path: path.stem,
)  # fmt: skip
def test_a_manifest_fits_its_schema(file: Path, version: str) -> None:
    """The base alone fits, too, and there is no property that Kubernetes does not know."""
    for resource in yaml.safe_load_all(file.read_text()):
        kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_overlay_fits_the_schemas(resources: list[dict[str, Any]], version: str) -> None:
    """All rendered resources fit, and all are in one namespace."""
    for resource in resources:
        kubernetes_validate.validate(resource, version, strict=True)
        assert resource["metadata"]["namespace"] == "chat"
    assert sorted(resource["kind"] for resource in resources) == [
        *("ConfigMap", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Secret", "Service")
    ]


def test_all_refer_to_the_same_pods(resources: list[dict[str, Any]]) -> None:
    """Selectors match the pods, and referenced ports and volumes exist."""
    deployment = only(resources, "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    (container,) = pod_of(resources)["containers"]
    policy = only(resources, "NetworkPolicy")["spec"]
    ports = {port["name"] for port in container["ports"]}

    assert deployment["selector"]["matchLabels"] == labels
    assert only(resources, "Service")["spec"]["selector"] == labels
    assert only(resources, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert policy["podSelector"]["matchLabels"] == labels
    assert {port["targetPort"] for port in only(resources, "Service")["spec"]["ports"]} <= ports
    assert {port["port"] for rule in policy["ingress"] for port in rule["ports"]} == ports
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod_of(resources)["volumes"]}


def test_an_eviction_leaves_other_pods(resources: list[dict[str, Any]]) -> None:
    """A disruption affects fewer pods than there are; otherwise no node could ever be drained."""
    replicas = only(resources, "Deployment")["spec"]["replicas"]

    assert 0 < only(resources, "PodDisruptionBudget")["spec"]["maxUnavailable"] < replicas


def test_the_server_is_reachable_from_the_pods(overlay: str, resources: list[dict[str, Any]]) -> None:
    """Names can be resolved and the server's port reached, and nothing else."""
    rules = only(resources, "NetworkPolicy")["spec"]["egress"]
    ports = [{port["port"] for port in rule["ports"]} for rule in rules]

    assert ports == [{53}, {443 if overlay == "databricks" else 5000}]


def test_the_image_fits_the_pod(resources: list[dict[str, Any]]) -> None:
    """User, port, spool and health route are those of the Dockerfile; the root file system is read-only."""
    (container,) = pod_of(resources)["containers"]
    said = {step.keyword: step.rest for step in instructions(ROOT / "examples/docker/Dockerfile")}
    security = pod_of(resources)["securityContext"]
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]

    assert (security["runAsNonRoot"], security["runAsUser"], security["fsGroup"]) == (True, *[int(said["USER"])] * 2)
    assert container["ports"][0]["containerPort"] == int(said["EXPOSE"])
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert all(Settings().excludes(probe["path"]) for probe in probes)
    assert "memory" in container["resources"]["limits"]


def test_an_exit_gets_the_time_that_it_needs(resources: list[dict[str, Any]]) -> None:
    """The initial pause, the time for open requests, and that for delivery fit before the kubelet kills the pod."""
    (container,) = pod_of(resources)["containers"]
    said = {step.keyword: step.rest for step in instructions(ROOT / "examples/docker/Dockerfile")}
    requests_take = int(re.search(r'"--timeout-graceful-shutdown", "(\d+)"', said["CMD"])[1])  # type: ignore[index]
    delivery_takes = float(environment_of(resources)["MLFLOW_MIDDLEWARE_SHUTDOWN_TIMEOUT"])
    pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert pod_of(resources)["terminationGracePeriodSeconds"] >= pause + requests_take + delivery_takes + 5


def test_the_spool_fits_its_volume(resources: list[dict[str, Any]]) -> None:
    """It is on the volume, and reaches its limit before the volume does, and that before the pod is evicted."""
    (container,) = pod_of(resources)["containers"]
    variables = environment_of(resources)
    (mount,) = [
        each for each in container["volumeMounts"] if each["mountPath"] == variables["MLFLOW_MIDDLEWARE_SPOOL_DIR"]
    ]
    (volume,) = [each for each in pod_of(resources)["volumes"] if each["name"] == mount["name"]]
    size = quantity(volume["emptyDir"]["sizeLimit"])

    assert int(variables["MLFLOW_MIDDLEWARE_MAX_SPOOL_BYTES"]) < size
    assert size < quantity(container["resources"]["limits"]["ephemeral-storage"])


def test_the_container_starts_with_its_variables(overlay: str, resources: list[dict[str, Any]]) -> None:
    """They are valid options, the pod is in the tags, and the overlay names the server."""
    variables = environment_of(resources)
    program = (
        "from mlflow_middleware.settings import Settings; import json; print(json.dumps(Settings.load().trace_tags))"
    )

    printed = subprocess.check_output([sys.executable, "-c", program], env=clean_environment(**variables), text=True)

    assert yaml.safe_load(printed) == {
        "environment": "production",
        "app_version": "1.0.0",
        "deployment_id": POD["metadata.name"],
        "region": "eu-central-1",
        "pod": POD["metadata.name"],
        "node": POD["spec.nodeName"],
        "namespace": "chat",
    }
    assert variables["MLFLOW_TRACKING_URI"] == OVERLAYS[overlay]
