"""MLflow's configuration from the environment, used if MLflow's own client is incompatible; it sends no requests."""

from __future__ import annotations

import os
from typing import Any

from requests import Response

from mlflow_middleware.mlflow_bridge.address import Address


class NoClient(Exception):
    """The installed MLflow has no supported client."""


def is_slim() -> bool:
    """See `Client`."""
    return True


def tracking_uri() -> str:
    """See `Client`."""
    return os.environ.get("MLFLOW_TRACKING_URI", "")


def is_tracking_uri_set() -> bool:
    """See `Client`."""
    return bool(tracking_uri())


def active_experiment_id() -> str | None:
    """See `Client`."""
    return None


def set_active_experiment(experiment_id: str) -> None:
    """See `Client`."""


def request(tracking_uri: str, method: str, path: str, *, timeout: float, **kwargs: Any) -> Response:
    """See `Client`.

    Raises:
        NoClient: Always.
    """
    raise NoClient("the installed MLflow is not supported: run `mlflow-middleware check`")


def address_of(tracking_uri: str, path: str, answered: Response) -> Address | None:
    """See `Client`."""
    return None
