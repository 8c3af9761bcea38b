"""Steps of ``mlflow-middleware check`` on the server itself: its version, our credentials, the experiment."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from mlflow_middleware.commands.check_chain import ANSWER_TIME, Chain, NotNeeded, Wrong
from mlflow_middleware.commands.check_network import proxy_remedy

if TYPE_CHECKING:  # the first step imports it, which takes a second and may fail
    from mlflow_middleware.delivery.rest import ConnectionProblem

OLDEST_SERVER = (3, 4)
"""The first version of the MLflow server that accepts spans over OTLP."""

_CREDENTIALS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_AUTH", "DATABRICKS_TOKEN")


def version(chain: Chain) -> str:
    """Check that the server is new enough."""
    chain.need_server()
    content, text = chain.answer.headers.get("Content-Type", ""), chain.answer.text.strip()
    match = re.match(r"(\d+)\.(\d+)", text)
    if chain.answer.status_code == 200 and match:
        if (int(match[1]), int(match[2])) < OLDEST_SERVER:
            raise Wrong(
                f"{chain.shown_uri} is MLflow {text[:20]}, which does not accept spans over OTLP; "
                "upgrade the server to 3.13 or newer (3.4 is the oldest that can work)"
            )
        return f"MLflow {text[:20]}"
    if chain.answer.status_code == 200 and content.startswith("text/html"):
        raise Wrong(
            f"{chain.shown_uri} does not answer like an MLflow server, but with a web page; "
            "is the address complete, or is there a login page in front of it?"
        )
    raise NotNeeded(f"the server does not report its version (status {chain.answer.status_code})")


def credentials(chain: Chain) -> str:
    """Check that the server accepts our credentials."""
    from mlflow_middleware.delivery.experiment import resolve_experiment
    from mlflow_middleware.delivery.rest import ConnectionProblem, NoAccess

    chain.need_server()
    try:
        chain.experiment_id = resolve_experiment(chain.uri)
    except NoAccess as problem:
        raise Wrong(_described(chain, problem)) from problem
    except ConnectionProblem as problem:
        chain.experiment_problem = problem
    used = [name for name in _CREDENTIALS if os.environ.get(name)]
    return f"accepted ({', '.join(used) or 'no credentials are set'})"


def experiment(chain: Chain) -> str:
    """Check that the environment's experiment exists, or could be created, and those of the option ``experiment``."""
    from mlflow_middleware.delivery.experiment import find_or_create_experiment
    from mlflow_middleware.delivery.rest import ConnectionProblem

    chain.need_server()
    if chain.experiment_problem is not None:
        raise Wrong(str(chain.experiment_problem))
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME")
    found = [f"{name!r}, id {chain.experiment_id}" if name else f"id {chain.experiment_id}"]
    try:
        found += [f"{each!r}, id {find_or_create_experiment(chain.uri, each)}" for each in chain.experiments]
    except ConnectionProblem as problem:
        raise Wrong(f"{problem}; until this is corrected, its traces go to the experiment {found[0]}") from problem
    return "; ".join(found)


def ask(
    chain: Chain, method: str, path: str, *, timeout: float = ANSWER_TIME, **kwargs: Any
) -> tuple[int, dict[str, Any]]:
    """Send a request to the server; return the status and the JSON of the response.

    Raises:
        Wrong: There is no valid response.
    """
    from mlflow_middleware.delivery import rest

    try:
        return rest.ask(chain.uri, method, path, timeout=timeout, **kwargs)
    except rest.ConnectionProblem as problem:
        raise Wrong(_described(chain, problem)) from problem


def _described(chain: Chain, problem: ConnectionProblem) -> str:
    """Describe a problem, and the proxy that may cause it."""
    from mlflow_middleware.delivery.rest import Denied

    remedy = proxy_remedy(chain.uri) if isinstance(problem, Denied) else ""
    return f"{problem}; or a proxy denies it{remedy}" if remedy else str(problem)
