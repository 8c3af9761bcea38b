"""Where traces go, and in which way a server takes them."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol

from mlflow_middleware.delivery.artifact_server import ArtifactServer
from mlflow_middleware.delivery.encoded import EncodedTrace
from mlflow_middleware.delivery.otlp_collector import OtlpCollector
from mlflow_middleware.delivery.otlp_variables import PREFIX, collector
from mlflow_middleware.delivery.replies import Outcome
from mlflow_middleware.delivery.rest import is_local
from mlflow_middleware.delivery.tracking_server import TrackingServer


class Sink(Protocol):
    """Where traces go."""

    sends_spans_apart: bool
    """Whether spans go by `send_spans`, many traces a request, after `send_infos`; otherwise with the infos."""

    def send_infos(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> Generator[Outcome, None, None]:
        """Store the info of each trace; with its spans, unless it takes those apart.

        Yields:
            What became of each, in their order. It may stop early: the others were not tried, or not answered.
        """

    def send_spans(self, experiment_id: str, traces: Sequence[EncodedTrace]) -> None:
        """Store the spans of many traces; all or nothing.

        Raises:
            RetryableError: The same may be sent again.
            PermanentError: At least one of them is not acceptable.
        """

    def delete_info(self, experiment_id: str, trace: EncodedTrace) -> None:
        """Remove the info of a trace whose spans are refused."""

    def close(self) -> None:
        """Close its connections; the next request opens others."""


def sink_for(tracking_uri: str) -> Sink:
    """The sink that fits a tracking URI."""
    if tracking_uri.startswith(PREFIX):
        return OtlpCollector(collector())
    if tracking_uri == "databricks" or tracking_uri.startswith("databricks://"):
        return ArtifactServer(tracking_uri)
    if is_local(tracking_uri):
        from mlflow_middleware.delivery.local_store import LocalStore  # which imports what only full MLflow has

        return LocalStore(tracking_uri)
    return TrackingServer(tracking_uri)
