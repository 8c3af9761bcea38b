"""Runs the check where MLflow is of a version that does not exist yet.

Its argument says what has changed: ``shape``, the way it builds span processors; ``names``, what can be imported.
"""

import sys

from mlflow.tracing import provider

from mlflow_middleware.cli import main


def of_another_shape(tracking_uri, experiment_id=None):  # type: ignore[no-untyped-def]
    raise NotImplementedError


if sys.argv[1] == "shape":
    provider._get_mlflow_span_processor = of_another_shape
else:
    del provider.detach_span_from_context
sys.exit(main(["check", "--json"]))
