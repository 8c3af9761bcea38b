"""The resolution of MLflow's own environment variables to an experiment id.

``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME`` (created if missing) and ``MLFLOW_EXPERIMENT_ID`` have the same
meaning as in full MLflow. Nothing here runs in the path of a request.
"""

from __future__ import annotations

import os
from typing import Any

from mlflow_middleware import mlflow_bridge
from mlflow_middleware.delivery.encoded import is_name
from mlflow_middleware.delivery.rest import (
    REQUEST_TIMEOUT,
    ConnectionProblem,
    NoAccess,
    NotNow,
    ask,
    check_address,
    is_local,
    is_server,
    printable,
    root_cause,
    unexpected,
)

DEFAULT_EXPERIMENT = "0"
"""The id of the experiment "Default", which every tracking server has."""

_EXPERIMENTS = "/api/2.0/mlflow/experiments/"


def resolve_experiment(tracking_uri: str, *, create: bool = True, timeout: float = REQUEST_TIMEOUT) -> str:
    """Find (or create) the experiment that the environment specifies.

    Args:
        tracking_uri: The server.
        create: Whether to create a missing experiment.
        timeout: Seconds to wait for each response.

    Returns:
        The experiment's id.

    Raises:
        ConnectionProblem: The address, the credentials or the experiment is wrong, or the server is unreachable.
    """
    check_address(tracking_uri)
    if active := mlflow_bridge.client.active_experiment_id():
        return active
    found = _of_environment(tracking_uri, create, timeout)
    mlflow_bridge.client.set_active_experiment(found)
    _found_by_environment[_environment(tracking_uri)] = found
    return found


def resolve_first_experiment(tracking_uri: str) -> str:
    """Find (or create) the environment's experiment, for traces that began before the app chose another one.

    Return the experiment that the app has chosen since if the environment specifies none and there is no default.

    Raises:
        ConnectionProblem: See `resolve_experiment`.
    """
    check_address(tracking_uri)
    active = mlflow_bridge.client.active_experiment_id()
    if active is None:
        return resolve_experiment(tracking_uri)
    if known := _found_by_environment.get(_environment(tracking_uri)):
        return known
    try:
        return _of_environment(tracking_uri, create=True)
    except NoAccess:
        raise
    except ConnectionProblem:
        if os.environ.get("MLFLOW_EXPERIMENT_NAME") or _experiment_id():
            raise
        return active


def find_or_create_experiment(tracking_uri: str, experiment: str) -> str:
    """Find an experiment as the option ``experiment`` specifies it: by its id, or else by its name.

    Raises:
        ConnectionProblem: See `resolve_experiment`.
    """
    if not is_name(experiment):
        return find_experiment(tracking_uri, experiment)
    check_address(tracking_uri)
    return _by_name(tracking_uri, experiment, create=True, timeout=REQUEST_TIMEOUT, source="experiment")


def _experiment_id() -> str | None:
    """Return the environment's id: that of the start if ``mlflow.set_experiment()`` has overwritten it."""
    named = os.environ.get("MLFLOW_EXPERIMENT_ID")
    return _ID_AT_START if named == mlflow_bridge.client.active_experiment_id() else named


_found_by_environment: dict[tuple[str, str | None], str] = {}
"""The experiments that were found before the app chose another one. ``MLFLOW_EXPERIMENT_ID`` may have been set after
the start, so that it does not show whether the app or MLflow has set it."""


def _environment(tracking_uri: str) -> tuple[str, str | None]:
    return tracking_uri, os.environ.get("MLFLOW_EXPERIMENT_NAME")


_ID_AT_START = os.environ.get("MLFLOW_EXPERIMENT_ID")


def _of_environment(tracking_uri: str, create: bool, timeout: float = REQUEST_TIMEOUT) -> str:
    name, experiment_id = os.environ.get("MLFLOW_EXPERIMENT_NAME"), _experiment_id()
    if name:
        found = _by_name(tracking_uri, name, create, timeout)
        if experiment_id and experiment_id != found:
            raise ConnectionProblem(
                f"MLFLOW_EXPERIMENT_ID={experiment_id} and MLFLOW_EXPERIMENT_NAME={name!r} contradict each other: "
                f"that experiment's id is {found}; set only one of them"
            )
    elif experiment_id:
        found = _by_id(tracking_uri, experiment_id, timeout)
    elif tracking_uri.startswith("databricks"):
        raise ConnectionProblem(
            "MLFLOW_EXPERIMENT_NAME is not set, and a Databricks workspace has no default experiment; "
            "set it to a workspace path such as /Shared/my-app"
        )
    else:
        found = _by_id(tracking_uri, DEFAULT_EXPERIMENT, timeout)
    return found


def find_experiment(tracking_uri: str, experiment: str | None, *, timeout: float = REQUEST_TIMEOUT) -> str:
    """Find an experiment to read traces from; never create one.

    Args:
        tracking_uri: The server.
        experiment: Its name or its id; None for the one that the environment specifies.
        timeout: Seconds to wait for each response.

    Returns:
        The experiment's id.

    Raises:
        ConnectionProblem: The address, the credentials or the experiment is wrong, or the server is unreachable.
    """
    if not is_server(tracking_uri):
        raise ConnectionProblem(
            f"MLFLOW_TRACKING_URI={printable(tracking_uri)} is not the address of a server; "
            "use mlflow.search_traces() to read traces from there"
        )
    if experiment is None:
        return resolve_experiment(tracking_uri, create=False, timeout=timeout)
    check_address(tracking_uri)
    if experiment.isdecimal():
        status, answer = _ask(tracking_uri, "GET", "get", params={"experiment_id": experiment}, timeout=timeout)
        if status == 200:
            return _active_id(tracking_uri, status, answer, f"experiment {experiment}")
    named = {"experiment_name": experiment}
    status, answer = _ask(tracking_uri, "GET", "get-by-name", params=named, timeout=timeout)
    return _active_id(tracking_uri, status, answer, f"experiment {experiment!r}")


def _by_name(tracking_uri: str, name: str, create: bool, timeout: float, source: str = "MLFLOW_EXPERIMENT_NAME") -> str:
    named = {"experiment_name": name}
    status, answer = _ask(tracking_uri, "GET", "get-by-name", params=named, timeout=timeout)
    if status == 404 and create:
        status, answer = _ask(tracking_uri, "POST", "create", json={"name": name}, timeout=timeout)
        if status == 200:
            return str(answer["experiment_id"])
        if answer.get("error_code") == "RESOURCE_ALREADY_EXISTS":  # another worker was faster
            status, answer = _ask(tracking_uri, "GET", "get-by-name", params=named, timeout=timeout)
    return _active_id(tracking_uri, status, answer, f"{source}={name!r}")


def _by_id(tracking_uri: str, experiment_id: str, timeout: float) -> str:
    status, answer = _ask(tracking_uri, "GET", "get", params={"experiment_id": experiment_id}, timeout=timeout)
    variable = f"MLFLOW_EXPERIMENT_ID={experiment_id!r}"
    if status in (400, 404):
        raise ConnectionProblem(
            f"{variable}: {printable(tracking_uri)} has no experiment with this id; "
            "correct it, or set MLFLOW_EXPERIMENT_NAME instead, which is created if missing"
        )
    return _active_id(tracking_uri, status, answer, variable)


def _active_id(tracking_uri: str, status: int, answer: dict[str, Any], variable: str) -> str:
    if status != 200:
        problem = ConnectionProblem(f"{variable}: {unexpected(tracking_uri, status, answer)}")
        problem.status = status
        raise problem
    experiment = answer["experiment"]
    if experiment.get("lifecycle_stage") == "deleted":
        raise ConnectionProblem(f"{variable}: this experiment is deleted; restore it or name another one")
    return str(experiment["experiment_id"])


def _ask(
    tracking_uri: str, method: str, path: str, *, timeout: float = REQUEST_TIMEOUT, **kwargs: Any
) -> tuple[int, dict[str, Any]]:
    if is_local(tracking_uri):  # without a time limit
        return _ask_store(tracking_uri, **kwargs)
    return ask(tracking_uri, method, _EXPERIMENTS + path, timeout=timeout, **kwargs)


def _ask_store(
    tracking_uri: str, params: dict[str, str] | None = None, json: dict[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """Find or create an experiment, like `ask`, in a store that full MLflow accesses directly."""
    from mlflow_middleware.mlflow_bridge import local_store

    try:
        if json:
            return 200, {"experiment_id": local_store.create_experiment(tracking_uri, json["name"])}
        ((key, value),) = (params or {}).items()
        found = local_store.find_experiment(tracking_uri, key, value)
    except Exception as error:
        status, code = local_store.problem_of(error)
        if code != "RESOURCE_ALREADY_EXISTS":
            kind = NotNow if "locked" in str(error) else ConnectionProblem
            raise kind(f"MLFLOW_TRACKING_URI={printable(tracking_uri)} cannot be used ({root_cause(error)})") from error
        return status, {"error_code": code}
    return (200, {"experiment": found}) if found else (404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})
