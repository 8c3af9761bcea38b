"""Runs the check with an MLflow version that does not exist yet.

Its argument selects the change: ``shape``, the way it builds span processors; ``names``, its importable names.
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
