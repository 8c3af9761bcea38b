"""Deployment tags from the environment variables that hosting platforms set in every process.

Only variables and one mounted file are read; no metadata server is queried. The platforms document them here:

- AWS Lambda: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html
- Amazon ECS: https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-environment-variables.html
- Azure App Service and Functions: https://learn.microsoft.com/azure/app-service/reference-app-settings
- Azure Container Apps: https://learn.microsoft.com/azure/container-apps/environment-variables
- Databricks Apps: https://docs.databricks.com/dev-tools/databricks-apps/system-env
- Fly.io: https://fly.io/docs/machines/runtime-environment
- Google App Engine: https://cloud.google.com/appengine/docs/standard/python3/runtime
- Google Cloud Run: https://cloud.google.com/run/docs/container-contract
- Heroku: https://devcenter.heroku.com/articles/dyno-metadata
- Koyeb: https://www.koyeb.com/docs/build-and-deploy/environment-variables
- Kubernetes: https://kubernetes.io/docs/concepts/workloads/pods/downward-api and
  https://kubernetes.io/docs/tasks/run-application/access-api-from-pod
- Nomad: https://developer.hashicorp.com/nomad/docs/runtime/environment
- Railway: https://docs.railway.com/reference/variables
- Render: https://render.com/docs/environment-variables
- Vercel: https://vercel.com/docs/environment-variables/system-environment-variables
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""The file with the namespace's name, in a pod with a service account."""


class Platform(NamedTuple):
    """The variables of a platform; of several for one tag, the first that is set wins.

    Attributes:
        sign: The variable that identifies the platform.
        environment: Variables for the environment, such as production or staging.
        app_version: Variables for the version of the code.
        deployment_id: Variables for the deployment; if it has no name of its own, for the instance or the app.
        region: Variables for the region.
    """

    sign: str
    environment: tuple[str, ...] = ()
    app_version: tuple[str, ...] = ()
    deployment_id: tuple[str, ...] = ()
    region: tuple[str, ...] = ()


PLATFORMS: Mapping[str, Platform] = {
    "aws_lambda": Platform(
        "AWS_LAMBDA_FUNCTION_NAME",
        app_version=("AWS_LAMBDA_FUNCTION_VERSION",),
        deployment_id=("AWS_LAMBDA_FUNCTION_NAME",),
        region=("AWS_REGION", "AWS_DEFAULT_REGION"),
    ),
    "ecs": Platform("ECS_CONTAINER_METADATA_URI_V4", region=("AWS_REGION", "AWS_DEFAULT_REGION")),
    "azure_app_service": Platform(
        "WEBSITE_SITE_NAME",
        environment=("WEBSITE_SLOT_NAME",),
        deployment_id=("WEBSITE_DEPLOYMENT_ID", "WEBSITE_SITE_NAME"),
        region=("REGION_NAME",),
    ),
    "azure_container_apps": Platform(
        "CONTAINER_APP_NAME", deployment_id=("CONTAINER_APP_REVISION", "CONTAINER_APP_NAME")
    ),
    "databricks_apps": Platform("DATABRICKS_APP_NAME", deployment_id=("DATABRICKS_APP_NAME",)),
    "fly": Platform(
        "FLY_APP_NAME",
        app_version=("FLY_IMAGE_REF",),
        deployment_id=("FLY_MACHINE_ID", "FLY_APP_NAME"),
        region=("FLY_REGION",),
    ),
    "app_engine": Platform(
        "GAE_SERVICE", app_version=("GAE_VERSION",), deployment_id=("GAE_DEPLOYMENT_ID", "GAE_SERVICE")
    ),
    "cloud_run": Platform("K_SERVICE", deployment_id=("K_REVISION", "K_SERVICE")),
    "cloud_run_jobs": Platform("CLOUD_RUN_JOB", deployment_id=("CLOUD_RUN_EXECUTION", "CLOUD_RUN_JOB")),
    "heroku": Platform(
        "DYNO",
        app_version=("HEROKU_BUILD_COMMIT", "HEROKU_SLUG_COMMIT"),
        deployment_id=("HEROKU_RELEASE_VERSION", "DYNO"),
    ),
    "koyeb": Platform(
        "KOYEB_SERVICE_NAME",
        app_version=("KOYEB_GIT_SHA",),
        deployment_id=("KOYEB_REGIONAL_DEPLOYMENT_ID", "KOYEB_SERVICE_NAME"),
        region=("KOYEB_REGION",),
    ),
    "nomad": Platform(
        "NOMAD_ALLOC_ID",
        environment=("NOMAD_NAMESPACE",),
        deployment_id=("NOMAD_ALLOC_ID",),
        region=("NOMAD_REGION",),
    ),
    "railway": Platform(
        "RAILWAY_SERVICE_ID",
        environment=("RAILWAY_ENVIRONMENT_NAME",),
        app_version=("RAILWAY_GIT_COMMIT_SHA",),
        deployment_id=("RAILWAY_DEPLOYMENT_ID",),
        region=("RAILWAY_REPLICA_REGION",),
    ),
    "render": Platform(
        "RENDER_SERVICE_ID",
        app_version=("RENDER_GIT_COMMIT",),
        deployment_id=("RENDER_INSTANCE_ID", "RENDER_SERVICE_NAME"),
    ),
    "vercel": Platform(
        "VERCEL",
        environment=("VERCEL_TARGET_ENV", "VERCEL_ENV"),
        app_version=("VERCEL_GIT_COMMIT_SHA",),
        deployment_id=("VERCEL_DEPLOYMENT_ID",),
        region=("VERCEL_REGION",),
    ),
    # Last, because platforms that run on top of Kubernetes are more specific.
    "kubernetes": Platform(
        "KUBERNETES_SERVICE_HOST", environment=("POD_NAMESPACE",), deployment_id=("POD_NAME", "HOSTNAME")
    ),
}
"""Name -> platform. If several are recognized, the first one wins."""

TAGS = ("environment", "app_version", "deployment_id", "region")
"""The tags that a platform can provide."""

_DEFAULTS = {"default", "$LATEST"}
"""Values without information: the default namespace, and the version of an unpublished function."""


def deployment_tags(names: Collection[str], environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the tags that these platforms provide for this process; empty if it runs on none of them."""
    tags: dict[str, str] = {}
    for name, platform in PLATFORMS.items():
        if name in names and environment.get(platform.sign):
            tags = _tags_of(platform, environment) | _special(name, environment) | tags
    return tags


def _tags_of(platform: Platform, environment: Mapping[str, str]) -> dict[str, str]:
    candidates = {tag: [environment.get(variable, "") for variable in getattr(platform, tag)] for tag in TAGS}
    values = {tag: next(filter(None, found), "") for tag, found in candidates.items()}
    return {tag: value for tag, value in values.items() if value and value not in _DEFAULTS}


def _special(name: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return tags that are not simply the value of a variable."""
    if name == "ecs":  # http://169.254.170.2/v4/<id of the task, a dash, and the container's, or an id of both>
        return {"deployment_id": environment[PLATFORMS["ecs"].sign].rstrip("/").rpartition("/")[2]}
    if name == "kubernetes" and not environment.get("POD_NAMESPACE"):
        namespace = _text(NAMESPACE_FILE)
        return {"environment": namespace} if namespace and namespace not in _DEFAULTS else {}
    return {}


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except (OSError, ValueError):
        return ""
