"""Starts delivery with an MLflow that builds span processors in an unknown way; prints whether it was left alone."""

import logging

from mlflow.tracing import provider

logging.basicConfig(format="%(message)s")
original = provider._get_mlflow_span_processor


def of_another_shape(tracking_uri, experiment_id=None):  # type: ignore[no-untyped-def]
    return original(tracking_uri)


provider._get_mlflow_span_processor = of_another_shape

from mlflow_middleware import delivery  # noqa: E402 - the bridge is loaded with it
from mlflow_middleware.settings import Settings  # noqa: E402

delivery.start(Settings.load())
delivery.start(Settings.load())
print("left alone" if provider._get_mlflow_span_processor is of_another_shape else "replaced")
