"""Deployment tags from the hosting platform, if none of the user's variables is set."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from mlflow_middleware._internal import platforms
from mlflow_middleware._internal.platforms import PLATFORMS, TAGS
from mlflow_middleware.settings import ENV_PREFIX, Settings, SettingsError
from tests.servers import ROOT

SET_BY = {
    "aws_lambda": (
        {"AWS_LAMBDA_FUNCTION_NAME": "chat", "AWS_LAMBDA_FUNCTION_VERSION": "7", "AWS_REGION": "eu-west-1"},
        {"app_version": "7", "deployment_id": "chat", "region": "eu-west-1"},
    ),
    "ecs": (
        {
            "ECS_CONTAINER_METADATA_URI_V4": "http://169.254.170.2/v4/cd189a933e5849daa93386466019ab50-2495160603",
            "AWS_EXECUTION_ENV": "AWS_ECS_FARGATE",
            "AWS_REGION": "us-west-2",
        },
        {"deployment_id": "cd189a933e5849daa93386466019ab50-2495160603", "region": "us-west-2"},
    ),
    "azure_app_service": (
        {
            "WEBSITE_SITE_NAME": "chat",
            "WEBSITE_SLOT_NAME": "staging",
            "WEBSITE_DEPLOYMENT_ID": "chat__staging",
            "REGION_NAME": "North Europe",
        },
        {"environment": "staging", "deployment_id": "chat__staging", "region": "North Europe"},
    ),
    "azure_container_apps": (
        {"CONTAINER_APP_NAME": "chat", "CONTAINER_APP_REVISION": "chat--20mh1s9"},
        {"deployment_id": "chat--20mh1s9"},
    ),
    "databricks_apps": (
        {"DATABRICKS_APP_NAME": "chat", "DATABRICKS_WORKSPACE_ID": "1234"},
        {"deployment_id": "chat"},
    ),
    "fly": (
        {
            "FLY_APP_NAME": "chat",
            "FLY_MACHINE_ID": "148ed193b95048",
            "FLY_IMAGE_REF": "registry.fly.io/chat:deployment-01H9RK9EYO9PGNBYAKGXSHV0PH",
            "FLY_REGION": "ams",
        },
        {
            "app_version": "registry.fly.io/chat:deployment-01H9RK9EYO9PGNBYAKGXSHV0PH",
            "deployment_id": "148ed193b95048",
            "region": "ams",
        },
    ),
    "app_engine": (
        {"GAE_SERVICE": "chat", "GAE_VERSION": "20261127t101500", "GAE_DEPLOYMENT_ID": "4611"},
        {"app_version": "20261127t101500", "deployment_id": "4611"},
    ),
    "cloud_run": (
        {"K_SERVICE": "chat", "K_REVISION": "chat-00042-abc", "K_CONFIGURATION": "chat"},
        {"deployment_id": "chat-00042-abc"},
    ),
    "cloud_run_jobs": (
        {"CLOUD_RUN_JOB": "ratings", "CLOUD_RUN_EXECUTION": "ratings-x7k2p", "CLOUD_RUN_TASK_INDEX": "0"},
        {"deployment_id": "ratings-x7k2p"},
    ),
    "heroku": (
        {"DYNO": "web.1", "HEROKU_RELEASE_VERSION": "v42", "HEROKU_SLUG_COMMIT": "2c3a0b2"},
        {"app_version": "2c3a0b2", "deployment_id": "v42"},
    ),
    "koyeb": (
        {"KOYEB_SERVICE_NAME": "chat", "KOYEB_GIT_SHA": "2c3a0b2", "KOYEB_REGION": "fra"},
        {"app_version": "2c3a0b2", "deployment_id": "chat", "region": "fra"},
    ),
    "nomad": (
        {"NOMAD_ALLOC_ID": "5b7f1ec2", "NOMAD_NAMESPACE": "production", "NOMAD_REGION": "global"},
        {"environment": "production", "deployment_id": "5b7f1ec2", "region": "global"},
    ),
    "railway": (
        {
            "RAILWAY_SERVICE_ID": "s-1",
            "RAILWAY_ENVIRONMENT_NAME": "production",
            "RAILWAY_GIT_COMMIT_SHA": "2c3a0b2",
            "RAILWAY_DEPLOYMENT_ID": "d-1",
            "RAILWAY_REPLICA_REGION": "europe-west4",
        },
        {"environment": "production", "app_version": "2c3a0b2", "deployment_id": "d-1", "region": "europe-west4"},
    ),
    "render": (
        {"RENDER_SERVICE_ID": "srv-1", "RENDER_INSTANCE_ID": "srv-1-x7", "RENDER_GIT_COMMIT": "2c3a0b2"},
        {"app_version": "2c3a0b2", "deployment_id": "srv-1-x7"},
    ),
    "vercel": (
        {
            "VERCEL": "1",
            "VERCEL_ENV": "preview",
            "VERCEL_GIT_COMMIT_SHA": "2c3a0b2",
            "VERCEL_DEPLOYMENT_ID": "dpl_1",
            "VERCEL_REGION": "iad1",
        },
        {"environment": "preview", "app_version": "2c3a0b2", "deployment_id": "dpl_1", "region": "iad1"},
    ),
    "kubernetes": (
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "POD_NAME": "chat-7d9f8-x2x9z", "POD_NAMESPACE": "production"},
        {"environment": "production", "deployment_id": "chat-7d9f8-x2x9z"},
    ),
}
"""Platform -> the variables that it sets in the app's processes, and the tags that follow."""


@pytest.fixture(autouse=True)
def env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without any platform, wherever these tests run."""
    ours = {variable for platform in PLATFORMS.values() for variables in platform[1:] for variable in variables}
    signs = {platform.sign for platform in PLATFORMS.values()}
    for name in (*ours, *signs, "ENVIRONMENT", "APP_VERSION", "DEPLOYMENT_ID", "REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in [name for name in os.environ if name.startswith(ENV_PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(platforms, "NAMESPACE_FILE", tmp_path / "namespace")
    return monkeypatch


def run_on(env: pytest.MonkeyPatch, *names: str) -> None:
    """Set the variables of these platforms."""
    for name in names:
        for variable, value in SET_BY[name][0].items():
            env.setenv(variable, value)


def test_every_platform_is_tested() -> None:
    """Each has its row above."""
    assert SET_BY.keys() == PLATFORMS.keys()


def test_the_page_names_the_variables() -> None:
    """Those of each platform and tag, in order."""
    page = (ROOT / "docs" / "deployment.md").read_text().split("## Tags without a variable", 1)[1]
    rows = [[re.findall(r"`(\w+)`", cell) for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    table = {row[0][0]: row[1:] for row in rows if len(row) == 5 and row[0] and row[0][0] in PLATFORMS}

    for name, platform in PLATFORMS.items():
        known = [list(getattr(platform, tag)) for tag in TAGS]
        if name == "ecs":
            known[2] = [platform.sign]
        assert table[name] == known


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_platform_provides_its_tags(env: pytest.MonkeyPatch, name: str) -> None:
    """Without any variable of the user's, every trace has them."""
    run_on(env, name)

    assert Settings.load().trace_tags == SET_BY[name][1]


@pytest.mark.parametrize("name", PLATFORMS)
def test_without_its_sign_a_platform_provides_nothing(env: pytest.MonkeyPatch, name: str) -> None:
    """A variable such as AWS_REGION on a laptop is no deployment."""
    run_on(env, name)
    env.delenv(PLATFORMS[name].sign)

    assert Settings.load().trace_tags == {}


@pytest.mark.parametrize("name", PLATFORMS)
def test_the_users_values_beat_the_platforms(env: pytest.MonkeyPatch, name: str) -> None:
    """These are the variables of `deployment_tags` and fixed tags."""
    run_on(env, name)
    for tag in TAGS:
        env.setenv(tag.upper(), f"my {tag}")

    assert Settings.load(tags={"region": "moon"}).trace_tags == {
        "environment": "my environment",
        "app_version": "my app_version",
        "deployment_id": "my deployment_id",
        "region": "moon",
    }


def test_an_unset_variable_is_filled_in(env: pytest.MonkeyPatch) -> None:
    """Tag by tag; tags that `deployment_tags` does not name are not added."""
    run_on(env, "fly")
    env.setenv("VERSION", "1.2")

    mine = Settings.load(deployment_tags="app_version=VERSION,region=MY_REGION,tier=TIER")

    assert mine.trace_tags == {"app_version": "1.2", "region": "ams"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("false", {}),
        ("0", {}),
        (False, {}),
        ([], {}),
        ("heroku", {}),
        ("kubernetes, heroku", SET_BY["kubernetes"][1]),
        (["kubernetes"], SET_BY["kubernetes"][1]),
        ("true", SET_BY["kubernetes"][1]),
        (True, SET_BY["kubernetes"][1]),
    ],
)
@pytest.mark.parametrize("as_variable", [True, False])
def test_one_option_switches_it_off(
    env: pytest.MonkeyPatch, value: object, expected: dict[str, str], as_variable: bool
) -> None:
    """All of it, or all except the platforms that it names; in code and in the environment."""
    run_on(env, "kubernetes")
    if not as_variable:
        assert Settings.load(detect_deployment=value).trace_tags == expected
    elif isinstance(value, str):
        env.setenv(f"{ENV_PREFIX}DETECT_DEPLOYMENT", value)
        assert Settings.load().trace_tags == expected


@pytest.mark.parametrize("value", ["herokku", ["kubernetes", "k8s"], 3, None, {"heroku": True}])
def test_an_unknown_platform_is_an_error(value: object) -> None:
    """It names the option, the value, and the known platforms."""
    with pytest.raises(SettingsError, match="detect_deployment") as caught:
        Settings.load(detect_deployment=value)

    assert repr(value) in str(caught.value)
    assert "true, false, or any of aws_lambda, ecs" in str(caught.value)


def test_the_platform_on_top_of_kubernetes_takes_priority(env: pytest.MonkeyPatch) -> None:
    """Knative's revision names the deployment, the pod's namespace the environment."""
    run_on(env, "kubernetes", "cloud_run")

    assert Settings.load().trace_tags == {"environment": "production", "deployment_id": "chat-00042-abc"}


def test_a_pod_without_the_downward_api(env: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its host name is the pod's name, and its service account has the namespace."""
    env.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    env.setenv("HOSTNAME", "chat-7d9f8-x2x9z")
    (tmp_path / "namespace").write_text("staging\n")

    assert Settings.load().trace_tags == {"environment": "staging", "deployment_id": "chat-7d9f8-x2x9z"}


@pytest.mark.parametrize("content", [None, b"default", b"\xff\xfe", b""])
def test_an_uninformative_namespace(env: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None) -> None:
    """The default one names no environment, and a missing or unreadable file stops no app."""
    env.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    if content is not None:
        (tmp_path / "namespace").write_bytes(content)

    assert Settings.load().trace_tags == {}


def test_an_unpublished_function_has_no_version(env: pytest.MonkeyPatch) -> None:
    """Lambda calls it $LATEST, whichever code it runs."""
    run_on(env, "aws_lambda")
    env.setenv("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")

    assert Settings.load().trace_tags == {"deployment_id": "chat", "region": "eu-west-1"}


def test_values_are_made_safe(env: pytest.MonkeyPatch) -> None:
    """Like all stored values: without control characters, and bounded."""
    run_on(env, "kubernetes")
    env.setenv("POD_NAME", "a\x1bb" + "x" * 10_000)

    assert Settings.load().trace_tags["deployment_id"] == ("a\ufffdb" + "x" * 10_000)[:4096]
